"""The workers of an execution: each runs one task after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_runtime.batch.attempt import Attempt
    from agent_runtime.batch.journal.records import TaskRow
    from agent_runtime.batch.runner import ExecutionRun

STOP_S = 2.0
"""What a task may take to end after its cancel, before it is left alone."""


class Crew:
    """As many workers as tasks may run at once; `on_end` hears of each that has ended."""

    def __init__(self, run: ExecutionRun, on_end: Callable[[asyncio.Task[None]], None]) -> None:
        self._run = run
        self._on_end = on_end
        self._workers: set[asyncio.Task[None]] = set()
        self._left_alone: set[asyncio.Task[None]] = set()
        """Workers whose tasks do not end: others have their places."""
        self._surplus = 0
        self.careful = 0
        """So many starts are awaited.

        After a crash, so that a task that ends its process at once is counted.
        """

    def staff(self, limit: int) -> None:
        """Have as many workers as may run tasks at once.

        Those that are too many end with their task.
        """
        slots = self._run.shop.scheduler.slots
        wanted = limit if slots is None else min(limit, slots)
        for _ in range(wanted - len(self._workers)):
            self._hire()
        self._surplus = max(0, len(self._workers) - wanted)
        if self._surplus:
            self._run.queue.wake()

    def _hire(self) -> None:
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)
        worker.add_done_callback(self._on_end)

    async def _work(self) -> None:
        queue = self._run.queue
        while not self._surplus:
            row = queue.take() or await queue.get(lambda: bool(self._surplus))
            if row is None:
                break
            if not await self._one(row):
                return
        self._surplus = max(0, self._surplus - 1)

    async def _one(self, row: TaskRow) -> bool:
        """Run a task; False when this worker's place was given to another one meanwhile."""
        run = self._run
        scheduler = self._run.shop.scheduler
        seat = None
        given_up = False
        try:
            seat = scheduler.take() or await scheduler.acquire()
            if run.queue.held:  # meanwhile nothing may be begun any more
                run.queue.put_back(row)
                return True
            row.starts = row.starts + 1
            row.status = "running"
            if not run.writer.volatile:  # else it would be forgotten with the process anyway
                run.writer.put(run.tasks.outcome(row))
            if self.careful or run.writer.behind:
                self.careful = max(0, self.careful - 1)
                await run.writer.written()
            outcome = await run.tasks.run(row, seat)
            given_up = outcome is None
            if outcome is not None:
                run.writer.put(outcome)
        finally:
            if not given_up:
                run.queue.done(row)
                if seat is not None:
                    scheduler.leave(seat)
        return not given_up

    def give_up(self, attempt: Attempt) -> None:
        """Have another worker take the place of one whose task does not end."""
        run = self._run
        run.writer.put(run.tasks.give_up(attempt))
        run.shop.scheduler.leave(attempt.seat)
        run.queue.done(attempt.row)
        if attempt.worker in self._workers:
            self._workers.discard(attempt.worker)
            self._left_alone.add(attempt.worker)
            attempt.worker.add_done_callback(self._left_alone.discard)
        if not run.ending:
            self._hire()

    async def wind_up(self, grace_s: float) -> None:
        """Let running tasks end within their grace, then cancel them, then abandon them."""
        await self._gone(grace_s)
        for attempt in list(self._run.running.values()):
            attempt.stop()
        await self._gone(STOP_S)
        for attempt in list(self._run.running.values()):
            self.give_up(attempt)
        for worker in [*self._workers, *self._left_alone]:
            worker.cancel()
        await self._gone(STOP_S)

    async def _gone(self, within_s: float) -> None:
        if self._workers:
            await asyncio.wait(self._workers, timeout=within_s)
