"""LangChain callbacks and the runtime's own captures, as one ring of `CallbackEvent`s."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langgraph.callbacks import GraphCallbackHandler

from agent_runtime.errors import ConfigurationError
from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.monitoring.callback_event import (
    DEFAULT_CAPTURE,
    FAMILIES,
    CallbackEvent,
    ExecutionSummary,
    Family,
    call_event,
    family_of,
)

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import LLMResult

    from agent_runtime.types import AgentContext

LOG = logging.getLogger("agent_runtime.events")
LOG.addHandler(logging.NullHandler())


def message_of(response: LLMResult) -> BaseMessage | None:
    """Return the message of an LLM result, or None for plain text or an empty result."""
    first = response.generations[0][0] if response.generations and response.generations[0] else None
    return getattr(first, "message", None)


class AgentCallbackHandler(GraphCallbackHandler):
    """Store the last `max_events` events of runs, and count the dropped ones.

    An executor reports to its handler. The same class works alone, in any LangChain call:
    `agent.invoke(..., config={"callbacks": [AgentCallbackHandler()]})`, beside LangSmith and other
    handlers.

    Args:
        max_events: size of the ring.
        capture: the families to store: run, llm, token, tool, chain, interrupt. Tokens and chains
            are off by default: they are many, and each costs time on its path.
        content: whether to store prompts, answers, tool arguments and results, which may be
            private.
        on_token: called with each streamed piece of model text, in the thread of the run.
        bus: receives every stored event as `Event(type="llm.start", data=CallbackEvent(...))`.
        listeners: called with each event in the thread of the run, including families that are not
            stored: metrics, traces. An error of a listener is logged, and affects nothing else.

    Raises ConfigurationError for an unknown family or a ring below 1. All methods may be called
    from any thread.
    """

    run_inline = True  # the default hands every event to a thread: +90 % on a turn

    def __init__(
        self,
        *,
        max_events: int = 1000,
        capture: Collection[Family] = DEFAULT_CAPTURE,
        content: bool = False,
        on_token: Callable[[str], None] | None = None,
        bus: EventBus | None = None,
        listeners: Sequence[Callable[[CallbackEvent], None]] = (),
    ) -> None:
        super().__init__()
        self.listeners = list(listeners)
        if unknown := set(capture) - set(FAMILIES):
            raise ConfigurationError(
                f"unknown event family {sorted(unknown)}; known: {', '.join(FAMILIES)}"
            )
        if max_events < 1:
            raise ConfigurationError(f"max_events must be at least 1, not {max_events}")
        self.capture = frozenset(capture)
        self.content = content
        self.on_token = on_token
        self.bus = bus
        self.recorded = 0
        self.dropped = 0
        """Events that made room for newer ones."""
        self._ring: deque[CallbackEvent] = deque(maxlen=max_events)
        self._open_calls: dict[
            str, tuple[str, str, float, dict[str, Any]]
        ] = {}  # id: name, root id, start, metadata

    @property
    def wants_tokens(self) -> bool:
        """Return whether streamed tokens have a listener; if not, a producer may skip the call."""
        return self.on_token is not None or "token" in self.capture

    def record(self, event: CallbackEvent) -> None:
        """Record and publish a captured event, and call every listener. Never waits."""
        for listener in self.listeners:
            try:
                listener(event)
            except BaseException as error:
                as_user_exception(error)
                LOG.exception("a listener failed on %s", event.type)
        if family_of(event.type) not in self.capture:
            return
        self.recorded += 1
        self.dropped += len(self._ring) == self._ring.maxlen
        self._ring.append(event)
        if self.bus is not None and self.bus.active:
            self.bus.publish(
                Event(
                    event.type.replace("_", ".", 1),
                    event,
                    event.run_id,
                    event.session_id,
                    event.user_id,
                    event.occurred_at,
                    event.tenant,
                    event.template,
                )
            )

    def publish(self, kind: str, context: AgentContext, data: dict[str, Any]) -> None:
        """Publish a layer's event about a call, without storing it in the ring."""
        if self.bus is not None:
            self.bus.publish(call_event(kind, context, data))

    def token(self, text: str, run_id: str | None, call_id: str | None) -> None:
        """Report one streamed piece of model text."""
        if self.on_token is not None:
            self.on_token(text)
        if "token" in self.capture:
            self.record(
                CallbackEvent("llm_new_token", run_id, call_id=call_id, data={"text": text})
            )

    def events(
        self,
        type: str = "*",  # noqa: A002 - the field's name
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[CallbackEvent]:
        """Return the stored events that match all arguments, oldest first.

        `type` is an `fnmatch` pattern (`llm_*`); `since` and `until` are Unix seconds, both
        inclusive.
        """
        return [
            e
            for e in tuple(self._ring)
            if fnmatchcase(e.type, type)
            and (run_id is None or e.run_id == run_id)
            and (session_id is None or e.session_id == session_id)
            and (user_id is None or e.user_id == user_id)
            and (since is None or e.occurred_at >= since)
            and (until is None or e.occurred_at <= until)
        ]

    def summary(self, run_id: str | None = None) -> ExecutionSummary:
        """Return the counts of one run, or of all stored events."""
        events = self.events(run_id=run_id)
        kinds = Counter(e.type for e in events)
        tools = Counter(e.name for e in events if e.type == "tool_start")
        ends = [e.data for e in events if e.type == "llm_end"]
        return ExecutionSummary(
            runs=len({e.run_id for e in events}),
            llm_calls=kinds["llm_start"],
            tool_calls=kinds["tool_start"],
            errors=sum(n for kind, n in kinds.items() if kind.endswith("_error")),
            input_tokens=sum(d.get("input_tokens", 0) for d in ends),
            output_tokens=sum(d.get("output_tokens", 0) for d in ends),
            duration_s=events[-1].occurred_at - events[0].occurred_at if events else 0.0,
            tools=dict(tools),
        )

    def clear(self) -> None:
        """Delete all stored events; counters continue."""
        self._ring.clear()

    def to_dict(self) -> dict[str, Any]:
        """Return the stored events and the counters, JSON-ready."""
        return {
            "recorded": self.recorded,
            "dropped": self.dropped,
            "events": [e.to_dict() for e in tuple(self._ring)],
        }

    def _start(
        self, kind: str, name: str, run_id: UUID, parent: UUID | None, kw: dict[str, Any], data: Any
    ) -> None:
        call_id = str(run_id)
        parent_id = None if parent is None else str(parent)
        metadata = kw.get("metadata") or {}
        root = (
            self._open_calls[parent_id][1]
            if parent_id in self._open_calls
            else str(metadata.get("run_id") or call_id)
        )
        self._open_calls[call_id] = (name, root, time.perf_counter(), metadata)
        self._record(f"{kind}_start", call_id, parent_id, data)

    def _end(self, kind: str, run_id: UUID, data: Any) -> None:
        call_id = str(run_id)
        if call_id in self._open_calls:
            self._record(kind, call_id, None, data)
            if (
                self._open_calls.pop(call_id)[1] == call_id
            ):  # the root: aborted children have no end event
                self._open_calls = {k: v for k, v in self._open_calls.items() if v[1] != call_id}

    def _record(self, kind: str, call_id: str, parent_id: str | None, data: dict[str, Any]) -> None:
        name, root, started, metadata = self._open_calls[call_id]
        elapsed = None if kind.endswith("_start") else time.perf_counter() - started
        session = metadata.get("thread_id") or metadata.get("session_id")
        user = metadata.get("user_id")
        self.record(
            CallbackEvent(kind, root, name, call_id, parent_id, session, user, elapsed, data)
        )

    def _content_data(self, key: str, value: Any) -> dict[str, Any]:
        return {key: value} if self.content else {}

    def on_chat_model_start(  # noqa: D102
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = (kwargs.get("metadata") or {}).get("ls_model_name") or kwargs.get("name") or "model"
        self._start(
            "llm", name, run_id, parent_run_id, kwargs, self._content_data("messages", messages)
        )

    def on_llm_start(  # noqa: D102
        self,
        serialized: Any,
        prompts: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        self.on_chat_model_start(
            serialized, prompts, run_id=run_id, parent_run_id=parent_run_id, **kwargs
        )

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        root = self._open_calls.get(str(run_id), (None, None))[1]
        self.token(token if isinstance(token, str) else "", root, str(run_id))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        message = message_of(response)
        usage: UsageMetadata | None = getattr(message, "usage_metadata", None)
        counts = {k: usage[k] for k in ("input_tokens", "output_tokens")} if usage else {}
        self._end("llm_end", run_id, {**counts, **self._content_data("message", message)})

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._end("llm_error", run_id, {"error": type(error).__name__})

    def on_tool_start(  # noqa: D102
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = (serialized or {}).get("name") or kwargs.get("name") or "tool"
        self._start(
            "tool",
            name,
            run_id,
            parent_run_id,
            kwargs,
            self._content_data("args", kwargs.get("inputs") or input_str),
        )

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._end("tool_end", run_id, self._content_data("output", output))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._end("tool_error", run_id, {"error": type(error).__name__})

    def on_chain_start(  # noqa: D102
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or (serialized or {}).get("name") or "chain"
        self._start(
            "chain", name, run_id, parent_run_id, kwargs, self._content_data("inputs", inputs)
        )

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._end("chain_end", run_id, self._content_data("outputs", outputs))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: D102
        self._end("chain_error", run_id, {"error": type(error).__name__})

    def on_interrupt(self, event: Any) -> None:  # noqa: D102
        self._graph_event("interrupt", event, {"count": len(event.interrupts)})

    def on_resume(self, event: Any) -> None:  # noqa: D102
        self._graph_event("resume", event, {})

    def _graph_event(self, kind: str, event: Any, data: dict[str, Any]) -> None:
        run_id = None if event.run_id is None else str(event.run_id)
        root = self._open_calls[run_id][1] if run_id in self._open_calls else run_id
        self.record(CallbackEvent(kind, root, call_id=run_id, data=data))
