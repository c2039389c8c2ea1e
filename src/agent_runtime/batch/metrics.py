"""Batches as Prometheus metrics, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent_runtime.batch.result import ENDED
from agent_runtime.monitoring.metrics import NAMESPACE, RuntimeMetrics

if TYPE_CHECKING:
    from agent_runtime.batch.executor import ParallelAgentExecutor


def watch_batches(metrics: RuntimeMetrics, executor: ParallelAgentExecutor) -> None:
    """Export an executor's batches as metrics, summed: execution ids are no labels."""
    metrics.registry.register(BatchCollector(executor))


class BatchCollector(Collector):
    """Reads what an executor's runs say of themselves."""

    def __init__(self, executor: ParallelAgentExecutor) -> None:
        self._executor = executor

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand at one moment."""
        counts = self._executor.ended_here()
        runs = self._executor.live_runs()
        tasks = CounterMetricFamily(
            f"{NAMESPACE}_batch_tasks", "Tasks that have ended.", labels=["status"]
        )
        for status in ENDED:
            tasks.add_metric([status], counts[status])
        yield tasks
        retries = CounterMetricFamily(f"{NAMESPACE}_batch_retries", "Attempts after a failed one.")
        retries.add_metric([], counts["retries"])
        yield retries
        numbers = (
            ("batch_running", "Tasks that run.", sum(len(run.running) for run in runs)),
            ("batch_queued", "Tasks that wait in memory.", sum(len(run.queue) for run in runs)),
            ("batch_open", "Tasks that have not ended.", sum(run.open for run in runs)),
            ("batch_executions", "Batches that run or are paused here.", len(runs)),
        )
        for name, text, value in numbers:
            family = GaugeMetricFamily(f"{NAMESPACE}_{name}", text)
            family.add_metric([], value)
            yield family
