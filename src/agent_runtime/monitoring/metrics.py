"""Prometheus metrics of every run: a closed set of labels, and a bounded number of series."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, write_to_textfile
from prometheus_client.metrics import MetricWrapperBase

from agent_runtime.errors import ConfigurationError
from agent_runtime.redaction import SECRETS
from agent_runtime.usage import TOKEN_COUNTS

if TYPE_CHECKING:
    from agent_runtime.callback_handler import CallbackEvent
    from agent_runtime.monitoring.ledger import Account, Charge

MAX_SERIES = 10_000
OTHER = "other"
MAX_LABEL = 128
"""Characters of a label's value."""
SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LAYER_SECONDS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
NAMESPACE = "agent_runtime"


class _Family:
    """One metric with its label sets; when its share of the series is used up, new ones count as `other`."""

    def __init__(self, metric: MetricWrapperBase, labels: int, max_children: int) -> None:
        self._metric, self._max, self._lock = metric, max_children, threading.Lock()
        self._children: dict[tuple[Any, ...], Any] = {}
        self._other = (OTHER,) * labels

    def of(self, *values: Any) -> Any:
        """The child with these label values."""
        child = self._children.get(values)
        return child if child is not None else self._new(values)

    def _new(self, values: tuple[Any, ...]) -> Any:
        with self._lock:
            if len(self._children) >= self._max:  # `other` itself has the last place
                return self._children.setdefault(self._other, self._metric.labels(*self._other))
            shown = [SECRETS.text(str(value))[:MAX_LABEL] for value in values]
            return self._children.setdefault(values, self._metric.labels(*shown))


class RuntimeMetrics:
    """What all runs of a process took, cost and came to.

    Give it to an AgentFactory (`metrics=`), or add `on_event` to an AgentCallbackHandler's listeners. Labels are
    template, tenant, model, provider's outcome, tool, layer, account and kinds; never a run, a session or a user.

    Args:
        registry: where the metrics are registered; one of their own by default.
        max_series: how many series there are at most, over all metrics.

    Raises ConfigurationError for fewer than 500 series, ValueError (the client's) for a registry that has them.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, max_series: int = MAX_SERIES) -> None:
        if max_series < 500:
            raise ConfigurationError(f"max_series is at least 500, not {max_series}")
        self.registry = registry or CollectorRegistry()
        self._max_series = max_series
        self._runs = self._counter(15, "runs", "Calls that ended.", "template", "tenant", "outcome")
        self._run_s = self._histogram(14, "run_duration_seconds", "How long calls took.", SECONDS, "template")
        self._running = self._gauge(2, "runs_active", "Calls under way.", "template")
        self._models = self._counter(8, "model_calls", "Model calls that ended.", "template", "model", "outcome")
        self._model_s = self._histogram(10, "model_call_duration_seconds", "How long they took.", SECONDS, "model")
        self._first_s = self._histogram(
            10, "time_to_first_token_seconds", "Until a stream's first token.", SECONDS, "model"
        )
        self._tokens = self._counter(10, "tokens", "Tokens; input has the cached ones.", "template", "model", "kind")
        self._cost = self._counter(14, "cost_usd", "Cost in USD.", "tenant", "template", "model", "kind")
        self._unpriced = self._counter(2, "unpriced_model_calls", "Model calls without a known price.", "model")
        self._tools = self._counter(8, "tool_calls", "Tool calls that ended.", "template", "tool", "outcome")
        self._layer_s = self._histogram(2, "layer_seconds", "What layers took themselves.", LAYER_SECONDS, "layer")
        self._waiting = self._gauge(1, "waiting", "Calls that are in a layer and not further in: its queue.", "layer")
        self._budgets = self._gauge(3, "budget_used_ratio", "Share of a budget that is spent.", "account")
        self._dropped = self._gauge(1, "dropped", "What was dropped and counted, by where.", "where")

    def _counter(self, percent: int, name: str, text: str, *labels: str) -> _Family:
        return self._family(percent, Counter, name, text, labels, 2)  # the client adds a `_created` series

    def _gauge(self, percent: int, name: str, text: str, *labels: str) -> _Family:
        return self._family(percent, Gauge, name, text, labels, 1)

    def _histogram(self, percent: int, name: str, text: str, buckets: Sequence[float], *labels: str) -> _Family:
        return self._family(percent, Histogram, name, text, labels, len(buckets) + 4, buckets=buckets)

    def _family(
        self, percent: int, kind: Any, name: str, text: str, labels: Sequence[str], series: int, **kw: Any
    ) -> _Family:
        """A metric that has this share of all series; `series` is what one set of labels takes."""
        metric = kind(f"{NAMESPACE}_{name}", text, labels, registry=self.registry, **kw)
        return _Family(metric, len(labels), max(1, self._max_series * percent // 100 // series - 1))

    # -- what is counted -----------------------------------------------------------------------------------

    def on_event(self, event: CallbackEvent) -> None:
        """Count one event of a run."""
        handle = self._ON.get(event.type)
        if handle is not None:
            handle(self, event)

    def _run_start(self, event: CallbackEvent) -> None:
        self._running.of(event.template).inc()

    def _run_end(self, event: CallbackEvent) -> None:
        outcome = event.data.get("error") or event.data.get("status") or "unknown"
        self._running.of(event.template).dec()
        self._runs.of(event.template, event.tenant or "default", outcome).inc()
        self._run_s.of(event.template).observe(event.duration_s or 0.0)

    def _llm_end(self, event: CallbackEvent) -> None:
        data, template, model = event.data, event.template, event.name
        self._models.of(template, model, data.get("error", "ok")).inc()
        self._model_s.of(model).observe(event.duration_s or 0.0)
        if (first_s := data.get("first_token_s")) is not None:
            self._first_s.of(model).observe(first_s)
        if "input_tokens" not in data:  # it failed before anything was billed
            return
        for name in TOKEN_COUNTS:
            if count := data.get(name):
                self._tokens.of(template, model, name).inc(count)
        if (cost := data.get("cost_usd")) is None:
            self._unpriced.of(model).inc()
        elif cost != "0":
            kind = "estimated" if data["estimated"] else "exact"
            self._cost.of(event.tenant or "default", template, model, kind).inc(float(Decimal(cost)))

    def _tool_end(self, event: CallbackEvent) -> None:
        self._tools.of(event.template, event.name, event.data.get("error", "ok")).inc()

    _ON: dict[str, Callable[[RuntimeMetrics, CallbackEvent], None]] = {  # noqa: RUF012 - never changed
        "run_start": _run_start,
        "run_end": _run_end,
        "run_error": _run_end,
        "llm_end": _llm_end,
        "llm_error": _llm_end,
        "tool_end": _tool_end,
        "tool_error": _tool_end,
    }

    def entered(self, layer: str) -> None:
        """A call is in this layer, and not yet further in."""
        self._waiting.of(layer).inc()

    def left(self, layer: str) -> None:
        """It has gone further in, or out again."""
        self._waiting.of(layer).dec()

    def took(self, layer: str, seconds: float) -> None:
        """What a layer itself took of a call."""
        self._layer_s.of(layer).observe(seconds)

    def on_charge(self, account: Account, charge: Charge) -> None:
        """Keep how far a budget is used; of its period only the kind is in the label."""
        scope, _, period = account.key.partition("/")
        pairs = (
            (account.limit_micro_usd, charge.spent.micro_usd),
            (account.limit_tokens, charge.spent.tokens),
        )
        used = max((spent / limit for limit, spent in pairs if limit), default=0.0)
        self._budgets.of(f"{scope}/{period.partition('=')[0]}").set(used)

    def watch_drops(self, where: str, dropped: Callable[[], float]) -> None:
        """Show what `dropped()` says at each scrape: `bus`, `events`, `log`."""
        self._dropped.of(where).set_function(dropped)

    # -- how it is seen ------------------------------------------------------------------------------------

    def render(self) -> bytes:
        """The metrics in Prometheus' text format: answer a scrape with it from any framework."""
        return generate_latest(self.registry)

    def asgi_app(self) -> Any:
        """An ASGI application that answers scrapes: mount it at `/metrics`."""
        from prometheus_client import make_asgi_app

        return make_asgi_app(self.registry)

    def write(self, path: str | Path) -> None:
        """Write the metrics to a file, whole or not at all, for the node exporter's textfile collector."""
        write_to_textfile(str(path), self.registry)
