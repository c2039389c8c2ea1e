"""Represent a run in a worker; the application counts, limits and records it."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import CallError
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.remote.channel import channel
from agent_runtime.remote.exceptions import serialize_exception
from agent_runtime.run.gate import ModelGate
from agent_runtime.run.limits import RunLimits
from agent_runtime.run.state import Run

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent_runtime.cancel_watch import CancelWatch
    from agent_runtime.run.model_call import ModelCall
    from agent_runtime.run.request import ModelRequest
    from agent_runtime.run.state import ToolCall
    from agent_runtime.types import AgentContext

_REQUEST_NUMBERS = itertools.count(1)


class WorkerRun(Run):
    """Asks the host before each tool call, and before each model call inside a tool."""

    __slots__ = ("limits_loops",)

    def __init__(
        self,
        context: AgentContext,
        recorder: AgentCallbackHandler,
        prompt: str | None,
        *,
        limits_loops: bool,
        limits: RunLimits,
    ) -> None:
        super().__init__(context, RemoteGate(limits), recorder, prompt)
        self.limits_loops = limits_loops

    def check_tool_calls(self, count: int) -> None:
        """Raise Refused when a limit forbids `count` tool calls; one is checked at its start."""
        if count > 1:
            self._request_permit("check_calls", next(_REQUEST_NUMBERS), count)

    def start_tool_call(self, name: str, args: Any, call_id: str | None) -> ToolCall:
        """Start a tool call; raises Refused when a limit forbids it."""
        self.check_refusal()
        reported_args = args if self.recorder.content else None
        if reported_args is None and self.limits_loops:
            reported_args = json.dumps(args, sort_keys=True, default=str)
        number = self._request_permit(
            "open_tool", next(_REQUEST_NUMBERS), name, reported_args, call_id
        )
        return WorkerToolCall(number, content=self.recorder.content)  # type: ignore[return-value]  # the same two methods

    def _request_permit(self, method: str, number: int, *args: Any) -> int:
        try:
            channel().call_blocking(method, number, *args)
        except RemoteLimitExceeded as refusal:
            raise self.refuse(refusal) from None
        return number


class RemoteLimitExceeded(CallError):
    """The application refused a step, and knows why; the run ends with its reason."""


class RemoteGate(ModelGate):
    """The gate for models that tools make themselves: they are called here, and counted there."""

    def open(self, request: ModelRequest) -> ModelCall:
        """Ask whether the call may be made; raises Refused."""
        run = request.run
        assert isinstance(run, WorkerRun)  # noqa: S101 - there is no other here
        number = run._request_permit(
            "open_model",
            next(_REQUEST_NUMBERS),
            request.model,
            request.provider,
            request.messages,
            _forwarded_kwargs(request.kwargs),
        )
        return WorkerModelCall(run, number)  # type: ignore[return-value]  # what those who hold one use of it

    async def aopen(self, request: ModelRequest) -> ModelCall:
        """Open a model call for async callers."""
        return self.open(request)


class WorkerModelCall:
    """Report one call of a hidden model to the application."""

    __slots__ = ("_number", "cancel_watch", "run")

    def __init__(self, run: WorkerRun, number: int) -> None:
        self.run = run
        self._number = number
        self.cancel_watch: CancelWatch | None = None

    def chunk(self, message: BaseMessage) -> None:
        """Tell one streamed chunk."""
        channel().notify("model_chunk", self._number, message)

    def end(self, message: BaseMessage | None = None) -> None:
        """Tell the end."""
        channel().notify("model_end", self._number, message)

    def abort(self, error: BaseException) -> None:
        """Tell the failure."""
        channel().notify("model_abort", self._number, serialize_exception(error))


class WorkerToolCall:
    """One running tool call."""

    __slots__ = ("_content", "_number")

    def __init__(self, number: int, *, content: bool) -> None:
        self._number = number
        self._content = content

    def end(self, output: Any) -> None:
        """Tell the result."""
        channel().notify("tool_end", self._number, output if self._content else None)

    def abort(self, error: BaseException) -> None:
        """Tell the failure."""
        channel().notify("tool_abort", self._number, serialize_exception(error))


def _forwarded_kwargs(kwargs: Any) -> dict[str, Any]:
    forwarded_options = ("tools", "functions", "response_format", "model", "max_tokens", "stop")
    return {name: kwargs[name] for name in forwarded_options if name in kwargs}
