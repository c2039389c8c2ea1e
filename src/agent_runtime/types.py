"""Define the whole protocol of a call: its input, its output, and the two callables in between."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent_runtime.chunks import Emit, discard
from agent_runtime.usage import Usage as Usage  # noqa: PLC0414 - a part of the protocol, looked for here

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig

    from agent_runtime.cancel_watch import CancelWatch

Status: TypeAlias = Literal["completed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Identify a caller.

    `id` and `tenant` are opaque names; `scopes` are permissions: `action:template` (`run:analyst`,
    `resume:*`), `*` for all, or a name of the application's own. `key` identifies the credential (a
    key's or a token's id), and never contains it.
    """

    id: str
    tenant: str = "default"
    scopes: frozenset[str] = frozenset()
    key: str = ""


ALL_SESSIONS = "sessions:all"
"""The scope to use every session, event and batch of one's tenant."""


def may_use(principal: Principal | None, owner: str) -> bool:
    """Return whether the caller may use the data of `owner` in their tenant.

    None is the application.
    """
    return principal is None or principal.id == owner or ALL_SESSIONS in principal.scopes


class Progress:
    """Track the progress of a call, shared by all its layers.

    It decides whether a failed call may be retried.
    """

    __slots__ = (
        "cancels",
        "counted_limits",
        "finished",
        "message_open",
        "model_error",
        "principal",
        "request_counts",
        "resumable",
        "tools_started",
        "used",
    )

    def __init__(self) -> None:
        self.cancels: CancelWatch | None = None
        """Watches the task that runs the call, from its start on."""
        self.counted_limits: frozenset[str] = frozenset()
        """The limits that this call is counted in: agents inside it are not counted there again."""
        self.used = False
        self.finished = False
        """The agent came to its own end: nothing of the run is left to be continued."""
        self.tools_started = 0
        self.message_open = False
        """A message has been emitted in part.

        Running its model call again would show its text twice.
        """
        self.model_error: BaseException | None = None  # of the last failed model call
        self.resumable = False
        """True when the call has a checkpoint: `input=None` continues it, repeating no tool."""
        self.request_counts: dict[str, int] = {}
        """Model requests that have a name, by their contents: how often each was made."""

    @property
    def is_cancelled(self) -> bool:
        """Return whether the task that runs the call has been cancelled."""
        return self.cancels is not None and self.cancels.is_cancelled


def new_run_id() -> str:
    """Return a random UUID (version 4, RFC 9562) as text.

    It takes half the time of `str(uuid.uuid4())`.
    """
    text = os.urandom(16).hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


class AgentContext:
    """Describe one call to every layer. A second call needs a new context.

    Siblings made by `with_emit` and `with_input` share every object (usage, metadata, progress);
    assigning a field of one does not change the other.

    Args:
        input: a str, a message or list of messages, a PromptValue, the agent's input dict, a
            LangGraph `Command`, or None (continue from the checkpoint).
        run_id: a UUID string; a new one by default.
        session_id: the conversation (LangGraph's thread id), or None: then the call stores nothing.
        credentials: the caller's proof of identity. Secret: never in a repr, never stored.
        principal: the caller, once authenticated; all layers of the call see the same.
        streaming: whether chunks are read while the call runs; only `core` uses it.
        config: the caller's RunnableConfig, or None.
        context: LangChain's runtime context for the agent (`context_schema`); never persisted.
        options: further keyword arguments for the agent's `ainvoke`/`astream`.
        metadata: the caller's labels; they reach traces and events.
        agent_name: the agent's own name; set by the executor.
        template_digest: the template's; set by the executor.
        agent_ref: how to build the agent again, for a session's record; set by the executor.
        turn: the session's turn, or None; set by the session layer.
        call_budget: the call's budget, or None; set by the cost layer.
        assignment: the task of a pool, or None; set by the pool.
        accounts: budgets that the call draws on beside those of its agent (a batch's), for the cost
            layer.
        deadline: `asyncio` loop time (seconds, monotonic) after which the call is stopped, or None.
        attempts: the most attempts of the retry layer, or None for the layer's own setting.
        emit: receives chunks; set by the edge.
        usage: the usage of the call; a new one by default.
        idempotency_key: identifies the call across a crash. Models whose template has an
            `idempotency_header` receive keys derived from it.
    """

    __slots__ = (
        "_caller",
        "accounts",
        "agent_name",
        "agent_ref",
        "assignment",
        "attempts",
        "call_budget",
        "config",
        "context",
        "credentials",
        "deadline",
        "emit",
        "idempotency_key",
        "input",
        "metadata",
        "options",
        "progress",
        "run_id",
        "session_id",
        "streaming",
        "template_digest",
        "turn",
        "usage",
    )  # fmt: skip

    def __init__(
        self,
        input: Any,
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        credentials: Any = None,
        principal: Principal | None = None,
        streaming: bool = False,
        config: RunnableConfig | None = None,
        context: Any = None,
        options: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        deadline: float | None = None,
        attempts: int | None = None,
        emit: Emit = discard,
        usage: Usage | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        self.input = input
        self.run_id = new_run_id() if run_id is None else run_id
        self.session_id = session_id
        self.credentials = credentials
        self.streaming = streaming
        self.config = config
        self.context = context
        self.options = {} if options is None else options
        self.metadata = {} if metadata is None else metadata
        self.turn: Any = None
        self.call_budget: Any = None
        self.assignment: Any = None
        self.accounts: tuple[Any, ...] = ()
        self.idempotency_key = idempotency_key
        self.agent_name = ""
        self.template_digest: str | None = None
        self.agent_ref: Mapping[str, Any] | None = None
        self.deadline = deadline
        self.attempts = attempts
        self.emit = emit
        self.usage = Usage() if usage is None else usage
        self.progress = Progress()
        self._caller = [principal]

    @property
    def principal(self) -> Principal | None:
        """Return the caller, once authenticated."""
        return self._caller[0]

    def with_emit(self, emit: Emit) -> AgentContext:
        """Return a sibling whose chunks go to `emit` first."""
        sibling = self._sibling()
        sibling.emit = emit
        return sibling

    def with_caller(self, principal: Principal | None, credentials: Any) -> AgentContext:
        """Return a sibling with this caller, unless it has one."""
        sibling = self._sibling()
        sibling._caller = [principal if self.principal is None else self.principal]
        if sibling.credentials is None:
            sibling.credentials = credentials
        return sibling

    def with_principal(self, principal: Principal) -> AgentContext:
        """Return a sibling with an authenticated caller, without the credentials."""
        self._caller[0] = principal  # the layers around this one want to know too
        sibling = self._sibling()
        sibling.credentials = None
        return sibling

    def with_turn(self, turn: Any) -> AgentContext:
        """Return a sibling with a turn of its session."""
        sibling = self._sibling()
        sibling.turn = turn
        return sibling

    def with_call_budget(self, call_budget: Any) -> AgentContext:
        """Return a sibling that spends from this budget."""
        sibling = self._sibling()
        sibling.call_budget = call_budget
        return sibling

    def with_input(self, input: Any) -> AgentContext:
        """Return a sibling with another input; None continues the call from its checkpoint."""
        sibling = self._sibling()
        sibling.input = input
        return sibling

    def _sibling(self) -> AgentContext:
        # Written out: a loop over __slots__ or dataclasses.replace costs five times as much, on
        # every layer.
        sibling = AgentContext.__new__(AgentContext)
        sibling.input = self.input
        sibling.run_id = self.run_id
        sibling.session_id = self.session_id
        sibling.credentials = self.credentials
        sibling._caller = self._caller
        sibling.streaming = self.streaming
        sibling.config = self.config
        sibling.context = self.context
        sibling.options = self.options
        sibling.agent_ref = self.agent_ref
        sibling.agent_name = self.agent_name
        sibling.metadata = self.metadata
        sibling.deadline = self.deadline
        sibling.attempts = self.attempts
        sibling.emit = self.emit
        sibling.usage = self.usage
        sibling.progress = self.progress
        sibling.turn = self.turn
        sibling.call_budget = self.call_budget
        sibling.template_digest = self.template_digest
        sibling.assignment = self.assignment
        sibling.accounts = self.accounts
        sibling.idempotency_key = self.idempotency_key
        return sibling

    def __repr__(self) -> str:
        return (
            f"AgentContext(run_id={self.run_id!r}, session_id={self.session_id!r}, "
            f"streaming={self.streaming})"
        )


@dataclass(slots=True)
class AgentResult:
    """Describe the result of one call.

    `output` is the text of the final answer message, or the JSON of a structured response, or empty
    on an interrupt, or the plain string form of another agent's return value. `value` is the
    agent's whole return value.
    """

    output: str
    value: Any
    messages: list[BaseMessage] = field(default_factory=list)
    structured_response: Any = None
    usage: Usage = field(default_factory=Usage)
    run_id: str = ""
    session_id: str | None = None
    status: Status = "completed"
    interrupts: tuple[Any, ...] = ()
    duration_s: float = 0.0
    template_digest: str | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        """Return the cost in USD, or None when a model's price is unknown."""
        return self.usage.cost_usd

    def with_text(self, text: str) -> AgentResult:
        """Return the same result with another answer text, which the layer emits itself."""
        messages = list(self.messages)
        value: Any = text
        answer = next(
            (i for i in reversed(range(len(messages))) if messages[i].type in ("ai", "tool")), None
        )
        if answer is not None:
            old = messages[answer]
            messages[answer] = old.model_copy(update={"content": text})
            if isinstance(self.value, Mapping) and "messages" in self.value:
                value = {
                    **self.value,
                    "messages": [
                        messages[answer] if m is old else m for m in self.value["messages"]
                    ],
                }
                value.pop("structured_response", None)
            else:
                value = messages[answer]
        return dataclasses.replace(
            self, output=text, value=value, messages=messages, structured_response=None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON form (the CLI's `--json`): no messages, no raw value."""
        structured = self.structured_response
        return {
            "output": self.output,
            "structured_response": structured.model_dump()
            if hasattr(structured, "model_dump")
            else structured,
            "status": self.status,
            "interrupts": [
                {"id": getattr(i, "id", None), "value": getattr(i, "value", i)}
                for i in self.interrupts
            ],
            "usage": self.usage.to_dict(),
            "cost_usd": None if self.cost_usd is None else format(self.cost_usd, "f"),
            "run_id": self.run_id,
            "session_id": self.session_id,
            "duration_s": round(self.duration_s, 6),
            "template_digest": self.template_digest,
        }


Handler: TypeAlias = Callable[[AgentContext], Awaitable[AgentResult]]
"""The rest of the onion: awaits the whole call and returns its result."""
