"""The whole protocol on one screen: what goes in, what comes out, and the two callables between."""

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
    """Who calls. `id` and `tenant` are opaque names; `scopes` say what the caller may do.

    A scope is `action:template` (`run:analyst`, `resume:*`), `*` for all, or a name of the
    application's own. `key` names the credential that was shown (a key's or a token's id), never
    the credential itself.
    """

    id: str
    tenant: str = "default"
    scopes: frozenset[str] = frozenset()
    key: str = ""


ALL_SESSIONS = "sessions:all"
"""The scope of a principal who may use every session, event and batch of the own tenant."""


def may_use(principal: Principal | None, owner: str) -> bool:
    """Tell whether the caller may use what is `owner`'s in their tenant.

    Without one it is the application itself.
    """
    return principal is None or principal.id == owner or ALL_SESSIONS in principal.scopes


class Progress:
    """How far a call has come, shared by all its layers.

    Decides whether a failure may be tried again.
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
        self.model_error: BaseException | None = None  # what the last failed model call raised
        self.resumable = False
        """True when the call has a checkpoint: `input=None` continues it, repeating no tool."""
        self.request_counts: dict[str, int] = {}
        """Model requests that have a name, by their contents: how often each was made."""

    @property
    def is_cancelled(self) -> bool:
        """Whether the task that runs the call has been cancelled."""
        return self.cancels is not None and self.cancels.is_cancelled


def new_run_id() -> str:
    """A random UUID (version 4, RFC 9562) as text, in half the time of `str(uuid.uuid4())`."""
    text = os.urandom(16).hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


class AgentContext:
    """One call, as every layer sees it. A second call needs a context of its own.

    Usage and progress are the call's.

    Args:
        input: a str, a message or list of messages, a PromptValue, the agent's input dict, a
            LangGraph `Command`, or None (continue from the checkpoint).
        run_id: a UUID string; a new one by default.
        session_id: the conversation (LangGraph's thread id), or None: then the call leaves nothing
        behind.
        credentials: what the caller showed to prove who they are. Secret: never in a repr, never
        stored.
        principal: who calls, once known; all layers of the call see the same.
        streaming: whether somebody reads chunks while the call runs; only `core` asks.
        config: the caller's RunnableConfig, or None.
        context: LangChain's runtime context for the agent (`context_schema`); never persisted.
        options: further keyword arguments for the agent's `ainvoke`/`astream`.
        metadata: the caller's labels; they reach traces and events.
        agent_name: the agent's own name; set by the executor.
        template_digest: the template's; set by the executor.
        agent_ref: how to make the agent again, for a session's record; set by the executor.
        turn: what the session layer holds for the call, or None; set by that layer.
        call_budget: what the call may spend, or None; set by the cost layer.
        assignment: which task of a pool the call is, or None; set by the pool.
        accounts: budgets that the call draws on beside those of its agent (a batch's), for the cost
        layer.
        deadline: `asyncio` loop time (seconds, monotonic) after which the call is stopped, or None.
        attempts: how often the retry layer may try this call, or None for the layer's own setting.
        emit: where chunks go; set by the edge.
        usage: the ledger of the call; a new one by default.
        idempotency_key: a name of what the call is for: made again after a crash, it has the same.
            Models whose template says `idempotency_header` are asked under names made from it.

    Siblings made by `with_emit` and `with_input` share every object (usage, metadata, progress);
    assigning a field of one does not change the other.
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
        """Who calls, once known."""
        return self._caller[0]

    def with_emit(self, emit: Emit) -> AgentContext:
        """A sibling whose chunks go to `emit` first."""
        sibling = self._sibling()
        sibling.emit = emit
        return sibling

    def with_caller(self, principal: Principal | None, credentials: Any) -> AgentContext:
        """A sibling in which a caller that is not named yet is this one."""
        sibling = self._sibling()
        sibling._caller = [principal if self.principal is None else self.principal]
        if sibling.credentials is None:
            sibling.credentials = credentials
        return sibling

    def with_principal(self, principal: Principal) -> AgentContext:
        """A sibling of a call whose caller is recognised; it does not carry what proved it."""
        self._caller[0] = principal  # the layers around this one want to know too
        sibling = self._sibling()
        sibling.credentials = None
        return sibling

    def with_turn(self, turn: Any) -> AgentContext:
        """A sibling that holds a turn of its session."""
        sibling = self._sibling()
        sibling.turn = turn
        return sibling

    def with_call_budget(self, call_budget: Any) -> AgentContext:
        """Return a sibling that spends from this budget."""
        sibling = self._sibling()
        sibling.call_budget = call_budget
        return sibling

    def with_input(self, input: Any) -> AgentContext:
        """A sibling with another input; None continues the call from its checkpoint."""
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
    """What one call gave.

    `output` is the text of the final answer message, or the JSON of a structured response, or empty
    on an interrupt, or the plain string form of what another kind of agent returned. `value` is
    what the agent returned, whole.
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
        """What the call cost in USD, or None when a model has no known price."""
        return self.usage.cost_usd

    def with_text(self, text: str) -> AgentResult:
        """The same result with another answer text everywhere.

        The layer emits the changed text itself.
        """
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
        """The documented JSON form (the CLI's `--json`): no messages, no raw value."""
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
