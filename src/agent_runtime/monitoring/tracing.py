"""OpenTelemetry spans of runs, model calls and tools (GenAI semantic conventions)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import MissingExtra
from agent_runtime.secrets.redaction import SECRETS

if TYPE_CHECKING:
    from agent_runtime.monitoring.callback_event import CallbackEvent

MAX_OPEN_SPANS = 100_000
"""Spans that are never ended (by a process that loses its runs) must not fill the memory."""
_OPERATIONS = {"run": "invoke_agent", "llm": "chat", "tool": "execute_tool"}
_NAMES = {"run": "gen_ai.agent.name", "llm": "gen_ai.request.model", "tool": "gen_ai.tool.name"}
_COUNTS = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
}


class RuntimeTracing:
    """Makes spans of a handler's events: add `on_event` to its listeners. Needs the extra `otel`.

    A run's span is a child of the span that is current where it starts, or of the run around it;
    those of its model and tool calls are children of the run's. Prompts, answers and arguments are
    not recorded.

    Args:
        tracer_provider: the application's; the global one by default.

    Raises MissingExtra.
    """

    def __init__(self, tracer_provider: Any = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingExtra("OpenTelemetry tracing", "langchain-agent-runtime[otel]") from error
        self._trace = trace
        self._tracer = trace.get_tracer("agent_runtime", tracer_provider=tracer_provider)
        self._open_spans: OrderedDict[str, Any] = OrderedDict()

    def on_event(self, event: CallbackEvent) -> None:
        """Begin or end a span."""
        family, _, phase = event.type.partition("_")
        if family not in _OPERATIONS:
            return
        # Providers number their calls: two runs may have tool calls of one id.
        key = f"{family}:{event.run_id}:{'' if family == 'run' else event.call_id}"
        if phase == "start":
            self._begin(family, key, event)
        elif phase in ("end", "error") and (span := self._open_spans.pop(key, None)) is not None:
            self._end(span, event)

    def _begin(self, family: str, key: str, event: CallbackEvent) -> None:
        parent_span = self._open_spans.get(
            f"run:{event.parent_id if family == 'run' else event.run_id}:"
        )
        parent_context = (
            None if parent_span is None else self._trace.set_span_in_context(parent_span)
        )
        operation = _OPERATIONS[family]
        name = SECRETS.text(event.name)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            _NAMES[family]: name,
            "agent_runtime.run_id": event.run_id or "",
        }
        if event.session_id:
            attributes["gen_ai.conversation.id"] = event.session_id
        if event.tenant:
            attributes["agent_runtime.tenant"] = SECRETS.text(event.tenant)
        kind = self._trace.SpanKind.CLIENT if family == "llm" else self._trace.SpanKind.INTERNAL
        start_ns = int(event.occurred_at * 1e9)
        span = self._tracer.start_span(
            f"{operation} {name}", parent_context, kind, attributes, start_time=start_ns
        )
        self._open_spans[key] = span
        while len(self._open_spans) > MAX_OPEN_SPANS:
            self._open_spans.popitem(last=False)[1].end()

    def _end(self, span: Any, event: CallbackEvent) -> None:
        data = event.data
        counts = data.get("usage", data)
        for name, attribute in _COUNTS.items():
            if counts.get(name):
                span.set_attribute(attribute, counts[name])
        if "provider" in data:
            span.set_attribute("gen_ai.provider.name", data["provider"])
        if counts.get("cost_usd") is not None:
            span.set_attribute("agent_runtime.cost_usd", float(counts["cost_usd"]))
        if error := data.get("error"):
            span.set_attribute("error.type", error)
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        span.end(int(event.occurred_at * 1e9))
