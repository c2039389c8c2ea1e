"""Batches as Prometheus metrics, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent_runtime.batch.result import FINAL_STATUSES
from agent_runtime.monitoring.metrics import NAMESPACE, RuntimeMetrics

if TYPE_CHECKING:
    from agent_runtime.batch.executor import ParallelAgentExecutor


def watch_batches(metrics: RuntimeMetrics, executor: ParallelAgentExecutor) -> None:
    """Export an executor's batches as metrics, summed: execution ids are no labels."""
    metrics.registry.register(BatchCollector(executor))


class BatchCollector(Collector):
    """Collect the metrics of an executor's executions."""

    def __init__(self, executor: ParallelAgentExecutor) -> None:
        self._executor = executor

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        counts = self._executor.result_counts()
        runners = self._executor.active_executions()
        tasks = CounterMetricFamily(
            f"{NAMESPACE}_batch_tasks", "Tasks that have ended.", labels=["status"]
        )
        for status in FINAL_STATUSES:
            tasks.add_metric([status], counts[status])
        yield tasks
        retries = CounterMetricFamily(f"{NAMESPACE}_batch_retries", "Attempts after a failed one.")
        retries.add_metric([], counts["retries"])
        yield retries
        gauges = (
            (
                "batch_running",
                "Tasks that run.",
                sum(len(runner.active.running) for runner in runners),
            ),
            (
                "batch_queued",
                "Tasks that wait in memory.",
                sum(len(runner.active.queue) for runner in runners),
            ),
            (
                "batch_open",
                "Tasks that have not ended.",
                sum(runner.active.open_tasks for runner in runners),
            ),
            ("batch_executions", "Batches that run or are paused here.", len(runners)),
        )
        for name, text, value in gauges:
            family = GaugeMetricFamily(f"{NAMESPACE}_{name}", text)
            family.add_metric([], value)
            yield family
