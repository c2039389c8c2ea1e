"""Prometheus metrics of every run: a closed set of labels, and a bounded number of series."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile

from agent_runtime.errors import ConfigurationError
from agent_runtime.monitoring.series import Series, SeriesCollector
from agent_runtime.size_limits import size_limit
from agent_runtime.usage import TOKEN_COUNTS

if TYPE_CHECKING:
    from agent_runtime.budgets.ledger.ledger import Account, Charge
    from agent_runtime.event_bus.consumer import EventConsumer
    from agent_runtime.monitoring.callback_event import CallbackEvent

MAX_SERIES = size_limit("metric_series")
SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LAYER_SECONDS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
NAMESPACE = "agent_runtime"


class RuntimeMetrics:
    """Measure the durations, costs and outcomes of all runs of a process.

    Pass it to an AgentFactory (`metrics=`), or add `on_event` to an AgentCallbackHandler's
    listeners. Labels are template, tenant, model, provider's outcome, tool, layer, account and
    kinds; never a run, a session or a user.

    Args:
        registry: registers the metrics; a new one by default.
        max_series: the most series, over all metrics.

    Raises ConfigurationError for fewer than 500 series, ValueError (the client's) for a registry
    that has them.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, max_series: int = MAX_SERIES
    ) -> None:
        if max_series < 500:
            raise ConfigurationError(f"max_series is at least 500, not {max_series}")
        self.registry = registry or CollectorRegistry()
        self._lock = threading.Lock()
        self._max_series = max_series
        self._collector = SeriesCollector(self._lock, self._refresh_watched_gauges)
        self._watched_gauges: dict[tuple[Series, str], Callable[[], float]] = {}
        add = self._add_series
        self._runs = add(
            14, "counter", "runs", "Calls that ended.", "template", "tenant", "outcome"
        )
        self._run_s = add(
            14, "histogram", "run_duration_seconds", "How long calls took.", "template"
        )
        self._running = add(2, "gauge", "runs_active", "Calls under way.", "template")
        self._models = add(
            8, "counter", "model_calls", "Model calls that ended.", "template", "model", "outcome"
        )
        self._model_s = add(
            10, "histogram", "model_call_duration_seconds", "How long they took.", "model"
        )
        self._first_s = add(
            10, "histogram", "time_to_first_token_seconds", "Until a stream's first token.", "model"
        )
        self._tokens = add(
            10,
            "counter",
            "tokens",
            "Tokens; input has the cached ones.",
            "template",
            "model",
            "kind",
        )
        self._cost = add(
            14, "counter", "cost_usd", "Cost in USD.", "tenant", "template", "model", "kind"
        )
        self._unpriced = add(
            2, "counter", "unpriced_model_calls", "Model calls without a known price.", "model"
        )
        self._tools = add(
            8, "counter", "tool_calls", "Tool calls that ended.", "template", "tool", "outcome"
        )
        self._layer_s = add(
            2, "histogram", "layer_seconds", "What layers took themselves.", "layer"
        )
        self._waiting = add(
            1, "gauge", "waiting", "Calls that wait in a layer: its queue.", "layer"
        )
        self._budgets = add(
            3, "gauge", "budget_used_ratio", "Share of a budget that is spent.", "account"
        )
        self._drops = add(1, "gauge", "dropped", "Dropped items, by source.", "where")
        self._lags = add(
            1, "gauge", "consumer_lag", "Events that a consumer has not acknowledged.", "consumer"
        )
        self.registry.register(self._collector)

    def _add_series(
        self,
        percent: int,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        text: str,
        *labels: str,
    ) -> Series:
        """Add a metric with this share of all series."""
        bounds = (
            () if kind != "histogram" else LAYER_SECONDS if name == "layer_seconds" else SECONDS
        )
        share = self._max_series * percent // 100
        series = Series(kind, f"{NAMESPACE}_{name}", text, labels, share, bounds)
        self._collector.series.append(series)
        return series

    def on_event(self, event: CallbackEvent) -> None:
        """Count one event of a run."""
        handle = self._EVENT_HANDLERS.get(event.type)
        if handle is not None:
            with self._lock:
                handle(self, event)

    def _run_start(self, event: CallbackEvent) -> None:
        self._running.cell(event.template)[0] += 1

    def _run_end(self, event: CallbackEvent) -> None:
        outcome = event.data.get("error") or event.data.get("status") or "unknown"
        self._running.cell(event.template)[0] -= 1
        self._runs.cell(event.template, event.tenant or "default", outcome)[0] += 1
        self._run_s.observe(event.duration_s or 0.0, event.template)

    def _llm_end(self, event: CallbackEvent) -> None:
        data = event.data
        template = event.template
        model = event.name
        self._models.cell(template, model, data.get("error", "ok"))[0] += 1
        self._model_s.observe(event.duration_s or 0.0, model)
        if (first_s := data.get("first_token_s")) is not None:
            self._first_s.observe(first_s, model)
        if "input_tokens" not in data:  # it failed before anything was billed
            return
        for name in TOKEN_COUNTS:
            if count := data.get(name):
                self._tokens.cell(template, model, name)[0] += count
        if (cost := data.get("cost_usd")) is None:
            self._unpriced.cell(model)[0] += 1
        elif cost != "0":
            kind = "estimated" if data["estimated"] else "exact"
            self._cost.cell(event.tenant or "default", template, model, kind)[0] += float(cost)

    def _tool_end(self, event: CallbackEvent) -> None:
        self._tools.cell(event.template, event.name, event.data.get("error", "ok"))[0] += 1

    _EVENT_HANDLERS: dict[str, Callable[[RuntimeMetrics, CallbackEvent], None]] = {  # noqa: RUF012 - never changed
        "run_start": _run_start,
        "run_end": _run_end,
        "run_error": _run_end,
        "llm_end": _llm_end,
        "llm_error": _llm_end,
        "tool_end": _tool_end,
        "tool_error": _tool_end,
    }

    def entered(self, layer: str) -> None:
        """Count a call that has entered this layer, and not the next one."""
        with self._lock:
            self._waiting.cell(layer)[0] += 1

    def left(self, layer: str) -> None:
        """Count a call that has entered the next layer, or left this one."""
        with self._lock:
            self._waiting.cell(layer)[0] -= 1

    def on_duration(self, layer: str, seconds: float) -> None:
        """Record the time that a layer itself took of a call."""
        with self._lock:
            self._layer_s.observe(seconds, layer)

    def on_charge(self, account: Account, charge: Charge) -> None:
        """Keep how far a budget is used; of its period only the kind is in the label."""
        scope, _, period = account.key.partition("/")
        pairs = (
            (account.limit_micro_usd, charge.spent.micro_usd),
            (account.limit_tokens, charge.spent.tokens),
        )
        used_ratio = max((spent / limit for limit, spent in pairs if limit), default=0.0)
        with self._lock:
            self._budgets.cell(f"{scope}/{period.partition('=')[0]}")[0] = used_ratio

    def watch_drops(self, where: str, dropped: Callable[[], float]) -> None:
        """Show the value of `dropped()` at each scrape: `bus`, `events`, `log`."""
        self._watched_gauges[self._drops, where] = dropped

    def watch_lag(self, consumer: EventConsumer) -> None:
        """Show how far an event consumer is behind, as it last measured it."""
        self._watched_gauges[self._lags, consumer.name] = lambda: consumer.last_lag

    def _refresh_watched_gauges(self) -> None:
        for (series, label), read in self._watched_gauges.items():
            series.cell(label)[0] = read()

    # -- how it is seen

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format, for a scrape in any framework."""
        return generate_latest(self.registry)

    def asgi_app(self) -> Any:
        """Return an ASGI application for scrapes: mount it at `/metrics`."""
        from prometheus_client import make_asgi_app

        return make_asgi_app(self.registry)

    def write(self, path: str | Path) -> None:
        """Write the metrics to a file atomically, for the node exporter's textfile collector."""
        write_to_textfile(str(path), self.registry)
