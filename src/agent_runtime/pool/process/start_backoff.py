"""Starting instances: a few at a time, after a failure not at once again, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_runtime.errors import InstanceStartFailed

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 30.0
MAX_FAILURES = 5
"""After so many failed starts in a row calls get the error at once, until the wait is over."""


class Starts:
    """What is known of each agent type's starts.

    `count` and `failures` are totals, `seconds` what starts took.
    """

    def __init__(self, at_once: int) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._failed: dict[str, int] = {}
        self._again_s: dict[str, float] = {}
        self.last_error: dict[str, Exception] = {}
        self.count = 0
        self.failures = 0
        self.seconds = 0.0

    @asynccontextmanager
    async def one(self, agent: str) -> AsyncIterator[None]:
        """The place of one start; when it succeeds, earlier failures are forgotten."""
        async with self._slots:
            began = time.perf_counter()
            yield
            self.count += 1
            self.seconds += time.perf_counter() - began
            for table in (self._failed, self._again_s, self.last_error):
                table.pop(agent, None)

    def failed(self, agent: str, error: Exception) -> float | None:
        """Count a failure.

        Returns after how many seconds to try again, None when callers shall have the error.
        """
        self.failures += 1
        times = self._failed[agent] = self._failed.get(agent, 0) + 1
        wait_s = min(FIRST_WAIT_S * 2 ** (times - 1), LONGEST_WAIT_S)
        self._again_s[agent] = time.monotonic() + wait_s
        self.last_error[agent] = error
        return None if times >= MAX_FAILURES else wait_s

    def ready(self, agent: str) -> bool:
        """Whether a start may be tried now."""
        return time.monotonic() >= self._again_s.get(agent, 0.0)

    def check(self, agent: str) -> None:
        """Raise InstanceStartFailed while starts of this agent fail again and again."""
        if self._failed.get(agent, 0) >= MAX_FAILURES and not self.ready(agent):
            error = self.last_error[agent]
            left_s = self._again_s[agent] - time.monotonic()
            failed = InstanceStartFailed(agent, f"{type(error).__name__}: {error}", left_s)
            raise failed from error
