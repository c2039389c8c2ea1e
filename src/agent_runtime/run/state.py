"""Hold the runtime's state of a running call, accessible from all of the agent's code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from langgraph.errors import GraphBubbleUp

from agent_runtime.errors import BudgetExceeded, CallError, LimitExceeded, ToolLoop
from agent_runtime.errors.user_code import error_text
from agent_runtime.monitoring.callback_event import CallbackEvent
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.run.streamed_arguments import StreamedArguments, is_readable

if TYPE_CHECKING:
    from agent_runtime.budgets.call_budget import CallBudget
    from agent_runtime.run.limits import RunLimits
    from agent_runtime.types import AgentContext

GATED_TAG = "agent_runtime:gated"
"""On models and tools that report to the run by themselves, so that the callback route skips them.
"""

USAGE_LOCK = threading.Lock()
"""Held while a ledger is checked and changed: sync tools, and the models they call, run in threads.
"""

block_live_models: ContextVar[Callable[[str], None] | None] = ContextVar(
    "agent_runtime_live_guard", default=None
)
"""Called with the name of a model before its call; a replay sets one that raises."""

REPLAYED_TAG = "agent_runtime:played"
"""On models that play a recording, so that the guard lets them pass."""

current_tool: ContextVar[str | None] = ContextVar("agent_runtime_current_tool", default=None)
"""The id of the tool call whose code runs here."""

current_run: ContextVar[Run | None] = ContextVar("agent_runtime_current_run", default=None)


def ancestor_limits() -> frozenset[str]:
    """Return the limits that the outer calls are counted in."""
    current = current_run.get()
    if current is None:
        return frozenset()
    return frozenset().union(*(run.context.progress.counted_limits for run in current.ancestry))


class Refused(GraphBubbleUp):
    """Carry a refusal out of the agent loop.

    A `GraphBubbleUp` passes through LangGraph's tool node and LangChain's retry, fallback and error
    middleware unchanged; each of them would handle a plain exception.
    """

    def __init__(self, run: Run, error: CallError) -> None:
        super().__init__(str(error))
        self.run = run
        self.error = error


class GateSettings(Protocol):
    """Define the gate's settings for a run."""

    limits: RunLimits
    model_call_timeout_s: float | None


class OpenCall(Protocol):
    """A model or tool call that has not ended."""

    def abort(self, error: BaseException) -> None:
        """Settle the call with an error, unless it has ended."""


class Run:
    """One call's state inside the agent.

    Its ledger, its limits' counters, its open model and tool calls.

    A run that starts inside another (an agent used as a tool or a node) has it as `parent`; usage
    is added to, and limits are checked on, the whole line up to the outermost run.
    """

    __slots__ = (
        "_ancestors",
        "call_budget",
        "context",
        "gate",
        "open_calls",
        "open_streams",
        "prompt",
        "recorder",
        "refusal",
        "running_threads",
        "tenant",
        "tool_counts",
        "unreadable_arguments",
        "user_id",
    )  # fmt: skip

    def __init__(
        self,
        context: AgentContext,
        gate: GateSettings,
        recorder: AgentCallbackHandler,
        prompt: str | None = None,
    ) -> None:
        parent = current_run.get()
        self.context = context
        self.gate = gate
        self.recorder = recorder
        self.prompt = prompt
        self._ancestors: tuple[Run, ...] = () if parent is None else parent.ancestry
        parent_budget = None if parent is None else parent.call_budget
        self.call_budget: CallBudget | None = (
            parent_budget if context.call_budget is None else context.call_budget
        )
        self.user_id = None if context.principal is None else context.principal.id
        self.tenant = None if context.principal is None else context.principal.tenant
        self.refusal: CallError | None = None
        self.tool_counts: Counter[str] = Counter()
        self.unreadable_arguments: dict[str, str] = {}
        """Arguments of streamed tool calls that are no JSON object, by the calls' ids."""
        self.open_calls: dict[Any, OpenCall] = {}  # seen through callbacks, by LangChain's run id
        self.open_streams: dict[OpenCall, tuple[Any, asyncio.Task[Any] | None]] = {}
        self.running_threads: set[Any] = (
            set()
        )  # running sync tools, by thread or by LangChain's run id

    @property
    def ancestry(self) -> tuple[Run, ...]:
        """Return this run and the outer ones, the outermost last.

        Not stored: a run that refers to itself is freed by the cycle collector only, with its input
        and messages.
        """
        return (self, *self._ancestors)

    def record(
        self,
        kind: str,
        name: str,
        call_id: str | None,
        data: dict[str, Any],
        started: float | None = None,
    ) -> None:
        """Report an event of this run; `started` (perf_counter) gives it a duration."""
        elapsed = None if started is None else time.perf_counter() - started
        context = self.context
        self.recorder.record(
            CallbackEvent(
                kind,
                context.run_id,
                name,
                call_id,
                current_tool.get(),
                context.session_id,
                self.user_id,
                elapsed,
                data,
                tenant=self.tenant,
                template=context.agent_name,
            )
        )

    def refuse(self, error: CallError) -> Refused:
        """Record that the run must stop, even if the exception is swallowed inside; return it."""
        if self.refusal is None:
            self.refusal = error
        return Refused(self, self.refusal)

    def run_owning(self, error: CallError) -> Run:
        """Return the run whose budget refused; an outer one stops as a whole."""
        if not isinstance(error, BudgetExceeded):
            return self
        for run in self.ancestry:
            call_budget = run.context.call_budget
            if call_budget is not None and call_budget.is_own_account(error.account):
                return run
        return self

    @property
    def is_cancelled(self) -> bool:
        """Return whether the call of this run, or of an outer one, has been cancelled."""
        return any(run.context.progress.is_cancelled for run in self.ancestry)

    def check_refusal(self) -> None:
        """Raise Refused when this run or an outer one must stop, CancelledError when cancelled."""
        for run in self.ancestry:
            if run.context.progress.is_cancelled:  # a library between swallowed it
                raise asyncio.CancelledError
            if run.refusal is not None:
                raise Refused(run, run.refusal)

    async def close(self, error: BaseException) -> None:
        """Settle the calls that were open when the run ended, and close the providers' streams.

        On an abort LangChain calls neither `on_llm_end` nor `on_llm_error`, and may leave a model's
        stream to the garbage collector: until then the provider would continue to send, and to
        bill.
        """
        for call in list(self.open_calls.values()):
            call.abort(error)
        self.open_calls.clear()
        while self.open_streams:
            stream_call, (stream, _) = self.open_streams.popitem()
            stream_call.abort(error)
            if stream is not None:
                with contextlib.suppress(
                    RuntimeError
                ):  # a task that is being cancelled is closing it just now
                    await stream.aclose()

    def in_stream_step(self) -> bool:
        """Return whether this task is inside a step of a model's stream.

        Calls in there are part of that model call.
        """
        if not self.open_streams:
            return False
        try:
            task = asyncio.current_task()
        except RuntimeError:  # a thread
            return False
        return any(
            owner is task and s is not None and s.ag_running
            for s, owner in self.open_streams.values()
        )

    def record_unreadable_arguments(self, arguments: StreamedArguments) -> None:
        """Record which of a streamed answer's calls have arguments that are not a JSON object.

        Some providers reuse an id in the next answer: a readable one clears it.
        """
        for call_id, text in arguments.by_id().items():
            if is_readable(text):
                self.unreadable_arguments.pop(call_id, None)
            else:
                self.unreadable_arguments[call_id] = text

    def start_tool_call(self, name: str, args: Any, call_id: str | None) -> ToolCall:
        """Count a tool call before its start; raises Refused when a limit forbids it."""
        with USAGE_LOCK:
            self.check_refusal()
            for run in self.ancestry:
                limits = run.gate.limits
                used = run.context.usage
                if limits.tool_calls is not None and used.tool_calls >= limits.tool_calls:
                    raise run.refuse(LimitExceeded("tool_calls", limits.tool_calls))
            self._check_tool_loop(name, args)
            for run in self.ancestry:
                run.context.usage.tool_calls += 1
                run.context.progress.tools_started += 1
        return ToolCall(self, name, args, call_id)

    def check_tool_calls(self, count: int) -> None:
        """Raise Refused when a limit forbids `count` tool calls, before any of them runs."""
        with USAGE_LOCK:
            for run in self.ancestry:
                limits = run.gate.limits
                used = run.context.usage
                if limits.tool_calls is not None and used.tool_calls + count > limits.tool_calls:
                    detail = f"{used.tool_calls} made, and {count} more in one answer"
                    raise run.refuse(LimitExceeded("tool_calls", limits.tool_calls, detail))

    def _check_tool_loop(self, name: str, args: Any) -> None:
        maximum = self.gate.limits.tool_loop
        if maximum is None:
            return
        key = f"{name} {json.dumps(args, sort_keys=True, default=str)}"
        self.tool_counts[key] += 1
        if self.tool_counts[key] > maximum:
            raise self.refuse(ToolLoop("tool_loop", maximum, f"'{name}' with the same arguments"))


class ToolCall:
    """One running tool call."""

    __slots__ = ("_call_id", "_name", "_run", "_started")

    def __init__(self, run: Run, name: str, args: Any, call_id: str | None) -> None:
        self._run = run
        self._name = name
        self._call_id = call_id
        self._started = time.perf_counter()
        run.record("tool_start", name, call_id, {"args": args} if run.recorder.content else {})

    def end(self, output: Any) -> None:
        """Report the tool's result."""
        data = {"output": output} if self._run.recorder.content else {}
        self._run.record("tool_end", self._name, self._call_id, data, self._started)

    def abort(self, error: BaseException) -> None:
        """Report the tool's failure; control flow (an interrupt) is not one."""
        if not isinstance(error, GraphBubbleUp):
            data = {"error": type(error).__name__}
            if self._run.recorder.content:
                data["message"] = error_text(error)
            self._run.record("tool_error", self._name, self._call_id, data, self._started)
