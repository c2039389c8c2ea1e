"""How long the event loop stands still."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MAX_STALL_S = 0.25 if sys.gettrace() is None else 0.5
"""Twice as long where each line is traced, for the coverage."""


class Watchdog:
    """Measures the longest time for which the loop's thread computed without a turn for others.

    CPU time: what another process takes of a core is no fault of the loop's.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        async def look() -> None:
            before = time.thread_time()
            while True:
                await asyncio.sleep(0.005)
                now = time.thread_time()
                self.longest_s = max(self.longest_s, now - before)
                before = now

        looking = asyncio.create_task(look())
        await asyncio.sleep(0.02)
        try:
            yield
            await asyncio.sleep(0.02)
        finally:
            looking.cancel()
