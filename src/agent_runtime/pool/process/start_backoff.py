"""Limit the starts of instances: few at a time, with a backoff after failures, and not forever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_runtime.errors import InstanceStartFailed
from agent_runtime.errors.backoff import Backoff

MAX_BACKOFF_S = 30.0
_BACKOFF = Backoff(0.1, MAX_BACKOFF_S)
MAX_FAILURES = 5
"""Failed starts in a row after which calls get the error at once, until the backoff has passed."""


class StartLimiter:
    """Track each agent type's starts; `count` and `failures` are totals, `seconds` durations."""

    def __init__(self, max_concurrent: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrent)
        self._failure_counts: dict[str, int] = {}
        self._retry_monotonic: dict[str, float] = {}
        self.last_error: dict[str, Exception] = {}
        self.count = 0
        self.failures = 0
        self.seconds = 0.0

    @asynccontextmanager
    async def slot(self, agent: str) -> AsyncIterator[None]:
        """Hold a slot for one start; success resets the failures."""
        async with self._slots:
            started = time.perf_counter()
            yield
            self.count += 1
            self.seconds += time.perf_counter() - started
            for table in (self._failure_counts, self._retry_monotonic, self.last_error):
                table.pop(agent, None)

    def record_failure(self, agent: str, error: Exception) -> float | None:
        """Count a failure; return the seconds until the next attempt, or None to report it."""
        self.failures += 1
        failure_count = self._failure_counts[agent] = self._failure_counts.get(agent, 0) + 1
        wait_s = _BACKOFF.pause_s(failure_count)
        self._retry_monotonic[agent] = time.monotonic() + wait_s
        self.last_error[agent] = error
        return None if failure_count >= MAX_FAILURES else wait_s

    def can_start(self, agent: str) -> bool:
        """Return whether a start may be tried now."""
        return time.monotonic() >= self._retry_monotonic.get(agent, 0.0)

    def raise_if_failing(self, agent: str) -> None:
        """Raise InstanceStartFailed during repeated failures of this agent's starts."""
        if self._failure_counts.get(agent, 0) >= MAX_FAILURES and not self.can_start(agent):
            error = self.last_error[agent]
            remaining_s = self._retry_monotonic[agent] - time.monotonic()
            start_error = InstanceStartFailed(
                agent, f"{type(error).__name__}: {error}", remaining_s
            )
            raise start_error from error
