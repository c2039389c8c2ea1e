"""A batch's cost, time and outcome, from its results, whichever process ran it."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.result import USAGE_COUNTERS

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.batch.journal.records import Execution

PAGE_SIZE = 1_000


@dataclass(slots=True)
class BatchReport:
    """Summarise a batch in figures; times in seconds.

    `speed_up` is the summed duration of its tasks (the time of a serial run) over its running time,
    `efficiency` that per concurrent task; both count ended tasks. Durations are of last attempts.
    `cost_usd` sums all priced calls; `unpriced` counts results with unpriced ones. `peak_memory_mb`
    and `cpu_s` are of the runner's process (with the pool's memory), since its last start.
    """

    execution_id: str
    name: str
    status: str
    reason: str
    total: int
    by_status: dict[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    serial_s: float = 0.0
    speed_up: float = 0.0
    efficiency: float = 0.0
    max_concurrent: int = 1
    tasks_per_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: str = "0"
    estimated: int = 0
    unpriced: int = 0
    attempts: int = 0
    retries: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    agents: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    cpu_s: float = 0.0
    forecast: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return asdict(self)

    def to_text(self) -> str:
        """Return a readable page."""
        status = ", ".join(f"{count} {name}" for name, count in sorted(self.by_status.items()))
        tokens = (
            f"{self.usage.get('input_tokens', 0)} tokens in, "
            f"{self.usage.get('output_tokens', 0)} out"
        )
        estimated_note = " (some estimated)" if self.estimated else ""
        unpriced_note = f", {self.unpriced} tasks without a known price" if self.unpriced else ""
        calls = (
            f"{self.usage.get('model_calls', 0)} model calls, "
            f"{self.usage.get('tool_calls', 0)} tool calls"
        )
        lines = [
            f"batch       {self.execution_id} {self.name}".rstrip(),
            f"status      {self.status}{': ' + self.reason if self.reason else ''}",
            f"tasks       {self.total}: {status}",
            f"time        {self.wall_s:.1f} s; one after another {self.serial_s:.1f} s",
            (
                f"parallel    {self.speed_up:.2f} x with {self.max_concurrent} at once, efficiency "
                f"{self.efficiency:.3f}"
            ),
            f"throughput  {self.tasks_per_s:.2f} tasks/s",
            f"duration    p50 {self.p50_s:.3f} s, p95 {self.p95_s:.3f} s, p99 {self.p99_s:.3f} s",
            f"usage       {tokens}, {calls}",
            f"cost        {self.cost_usd} USD{estimated_note}{unpriced_note}",
            f"attempts    {self.attempts}, of them {self.retries} again",
            f"resources   {self.peak_memory_mb:.0f} MiB at most, {self.cpu_s:.1f} s CPU",
        ]
        if self.forecast and self.forecast.get("cost_usd") is not None:
            low = self.forecast["low_usd"]
            high = self.forecast["high_usd"]
            lines.append(
                f"forecast    {self.forecast['cost_usd']:.6f} USD ({low:.6f} to {high:.6f})"
            )
        if self.errors:
            lines.append(
                "errors      " + ", ".join(f"{count} {kind}" for kind, count in self.errors.items())
            )
        return "\n".join(lines)


async def make_report(
    journal: Journal, execution: Execution, figures: dict[str, Any]
) -> BatchReport:
    """Build the report of an execution.

    `figures` are its runner's, live or last stored. Results are read page by page; only their
    durations stay in memory.
    """
    counts = await journal.counts(execution.id)
    report = BatchReport(
        execution.id, execution.name, execution.status, execution.reason, sum(counts.values())
    )
    report.by_status = {str(status): count for status, count in counts.items()}
    durations = array("d")
    usage: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    agents: Counter[str] = Counter()
    workers: Counter[str] = Counter()
    cost = Decimal(0)
    after = 0
    while page := await journal.results(execution.id, after, PAGE_SIZE):
        after = page[-1].number
        for result in (stored_result.result for stored_result in page):
            durations.append(result.duration_s)
            usage.update({name: result.usage.get(name, 0) for name in USAGE_COUNTERS})
            errors.update([] if result.error is None else [result.error.kind])
            agents[result.agent] += 1
            workers.update([result.worker] if result.worker else [])
            cost += result.cost or 0
            report.estimated += result.estimated
            report.unpriced += result.cost_usd is None
            report.attempts += result.attempts
            report.retries += result.attempts - 1
    report.usage = dict(usage)
    report.errors = dict(errors.most_common())
    report.agents = dict(agents)
    report.workers = dict(workers)
    report.cost_usd = format(cost, "f")
    _fill_timings(report, durations, execution, figures)
    return report


def _fill_timings(
    report: BatchReport, durations: array[float], execution: Execution, figures: dict[str, Any]
) -> None:
    report.wall_s = float(figures.get("active_s", 0.0))
    report.serial_s = sum(durations)
    report.max_concurrent = int(execution.settings.get("max_concurrent", 10))
    if report.wall_s > 0:
        report.speed_up = round(report.serial_s / report.wall_s, 3)
        report.efficiency = round(
            report.speed_up / max(1, min(report.max_concurrent, report.total)), 4
        )
        report.tasks_per_s = round(len(durations) / report.wall_s, 3)
    report.serial_s = round(report.serial_s, 3)
    ranked = sorted(durations)
    report.p50_s, report.p95_s, report.p99_s = (
        quantile(ranked, share) for share in (0.5, 0.95, 0.99)
    )
    report.peak_memory_mb = figures.get("peak_memory_mb", 0.0)
    report.cpu_s = figures.get("cpu_s", 0.0)
    report.forecast = execution.forecast


def quantile(ranked: list[float], share: float) -> float:
    """Return the quantile of sorted values (nearest rank); 0 for an empty list."""
    return ranked[max(0, math.ceil(len(ranked) * share) - 1)] if ranked else 0.0
