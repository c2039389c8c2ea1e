"""How far an execution has come, in numbers that do not grow with it."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from decimal import Decimal
from typing import Any

from agent_runtime.batch.result import FINAL_STATUSES, USAGE_COUNTERS, TaskResult

RATE_WINDOW_S = 30.0
"""Averaging window of the displayed rate, in seconds."""


class ExecutionProgress:
    """Count stored results and measure the rate; `active_s` is the time in earlier processes."""

    def __init__(self, active_s: float = 0.0) -> None:
        self.total = self.ended = 0
        self.by_status: Counter[str] = Counter()
        self.error_kinds: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.cost_usd = Decimal(0)
        self.unpriced = 0
        self.estimated = 0
        self.retries = self.slow = self.lost = 0
        self.serial_s = 0.0
        self._previous_active_s = active_s
        self._started_monotonic = time.monotonic()
        self._cpu_start_s = time.process_time()
        self._rate_samples: list[tuple[float, int]] = [(self._started_monotonic, 0)]
        self._stopped_monotonic: float | None = None
        self.pool_memory_mb = 0.0

    @property
    def active_s(self) -> float:
        """Return how long the execution has been running, in seconds."""
        until = time.monotonic() if self._stopped_monotonic is None else self._stopped_monotonic
        return self._previous_active_s + until - self._started_monotonic

    def add(self, result: TaskResult) -> None:
        """Count a result."""
        self.ended += 1
        self.by_status[result.status] += 1
        if result.error is not None:
            self.error_kinds[result.error.kind] += 1
        if result.usage.get("model_calls"):
            self.usage.update(result.usage)
        self.estimated += result.estimated
        if result.cost_usd is None:
            self.unpriced += 1
        elif result.cost_usd != "0":
            self.cost_usd += Decimal(result.cost_usd)
        self.serial_s += result.duration_s

    def start_clock(self) -> None:
        """Start measuring the rate: earlier results are not of this process."""
        self._started_monotonic = time.monotonic()
        self._cpu_start_s = time.process_time()
        self._rate_samples = [(self._started_monotonic, self.ended)]

    def stop_clock(self) -> None:
        """Stop the clock: the execution is paused or not run here any more."""
        if self._stopped_monotonic is None:
            self._stopped_monotonic = time.monotonic()

    def resume_clock(self) -> None:
        """Resume the clock; the pause does not count."""
        if self._stopped_monotonic is not None:
            paused_s = time.monotonic() - self._stopped_monotonic
            self._stopped_monotonic = None
            self._started_monotonic += paused_s
            self._rate_samples = [
                (then_s + paused_s, ended) for then_s, ended in self._rate_samples
            ]

    def sample_rate(self) -> None:
        """Sample the progress for the rate; called about once a second."""
        now = time.monotonic()
        self._rate_samples.append((now, self.ended))
        while len(self._rate_samples) > 2 and now - self._rate_samples[0][0] > RATE_WINDOW_S:
            self._rate_samples.pop(0)

    @property
    def rate(self) -> float:
        """Return how many tasks ended per second, lately."""
        sampled, ended_before = self._rate_samples[0]
        now = time.monotonic() if self._stopped_monotonic is None else self._stopped_monotonic
        return (self.ended - ended_before) / (now - sampled) if now > sampled else 0.0

    def to_dict(self, running: int) -> dict[str, Any]:
        """Return the figures, JSON-ready; `eta_s` is None while it is unknown."""
        remaining_tasks = self.total - self.ended
        rate = self.rate
        return {
            "total": self.total,
            "ended": self.ended,
            "running": running,
            **{status: self.by_status[status] for status in FINAL_STATUSES},
            "cost_usd": format(self.cost_usd, "f"),
            "unpriced": self.unpriced,
            "estimated": self.estimated,
            "usage": {name: self.usage[name] for name in USAGE_COUNTERS},
            "errors": dict(self.error_kinds.most_common()),
            "retries": self.retries,
            "slow": self.slow,
            "lost": self.lost,
            "rate": round(rate, 3),
            "eta_s": round(remaining_tasks / rate, 1)
            if rate > 0
            else (0.0 if not remaining_tasks else None),
            "active_s": round(self.active_s, 3),
            "serial_s": round(self.serial_s, 3),
            "cpu_s": round(time.process_time() - self._cpu_start_s, 3),
            "peak_memory_mb": round(peak_memory_mb() + self.pool_memory_mb, 1),
            "updated_at": time.time(),
        }


def peak_memory_mb() -> float:
    """Return this process's peak memory in MiB (Linux counts KiB, macOS bytes)."""
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
