"""Keeps an execution's lease, hears what others ask of it, and watches its running tasks."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agent_runtime.batch.journal.records import Wanted
from agent_runtime.batch.lease_times import BEAT_S, LEASE_S
from agent_runtime.errors import StoreError

if TYPE_CHECKING:
    from agent_runtime.batch.runner import ExecutionRun

TICK_S = 0.25


class Keeper:
    """Runs beside the workers.

    `run` raises ExecutionLost when another process has taken the execution over.
    """

    def __init__(self, run: ExecutionRun) -> None:
        self._run = run

    async def run(self) -> None:
        """Keep until cancelled."""
        next_s = 0.0
        held_until_s = time.monotonic() + LEASE_S
        while True:
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = now_s + BEAT_S
                try:
                    await self._beat()
                    held_until_s = now_s + LEASE_S
                except StoreError:
                    if now_s >= held_until_s:  # by now somebody else may have it
                        raise
            self._watch()
            await asyncio.sleep(TICK_S)

    async def _beat(self) -> None:
        run = self._run
        execution = run.execution
        wanted = await run.shop.journal.beat(execution.id, execution.token, LEASE_S, run.figures())
        if wanted:
            await run.shop.journal.heard(execution.id, wanted)
            await self.asked(wanted)
        pools = [each.backend for each in run.shop.scheduler.seats]
        used = sum(
            float(pool.memory_mb)
            for each in pools
            if (pool := getattr(each, "usage", None)) is not None
        )
        run.tally.pool_memory_mb = max(run.tally.pool_memory_mb, used)

    async def asked(self, wanted: Wanted) -> None:
        """Do what somebody has asked for."""
        if wanted == "cancel":
            self._run.end("cancelled", "asked")
        elif wanted == "pause":
            await self._run.pause()
        elif wanted == "run":
            await self._run.go_on()

    def _watch(self) -> None:
        run = self._run
        for attempt in list(run.running.values()):
            took_s = attempt.duration_s
            if took_s >= run.settings.slow_after and not attempt.slow:
                attempt.slow = True
                run.tally.slow += 1
                data = {
                    "execution_id": run.execution.id,
                    "task_id": attempt.row.id,
                    "running_s": round(took_s, 3),
                }
                run.publish("batch.slow", data)
            if took_s >= attempt.overdue_s + run.settings.grace:  # it does not end by a cancel
                run.crew.give_up(attempt)
            elif took_s >= attempt.overdue_s:
                attempt.stop()
