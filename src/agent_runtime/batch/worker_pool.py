"""The workers of an execution: each runs one task after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_runtime.batch.active_execution import ActiveExecution, ExecutionControl
    from agent_runtime.batch.attempt import Attempt
    from agent_runtime.batch.journal.records import TaskRow
    from agent_runtime.batch.task_runner import TaskRunner

CANCEL_WAIT_S = 2.0
"""Seconds a cancelled task may take to end before it is abandoned."""


class WorkerPool:
    """As many workers as tasks may run at once; `on_end` hears of each that has ended."""

    def __init__(
        self,
        active: ActiveExecution,
        control: ExecutionControl,
        task_runner: TaskRunner,
        on_end: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._active = active
        self._control = control
        self._task_runner = task_runner
        self._on_end = on_end
        self._workers: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        """Workers whose tasks do not end: others have their places."""
        self._surplus = 0
        self.starts_to_persist = 0
        """So many starts are awaited.

        After a crash, so that a task that ends its process at once is counted.
        """

    def resize(self, limit: int) -> None:
        """Set the number of workers; excess ones end after their task."""
        slots = self._active.environment.load_balancer.capacity
        target_size = limit if slots is None else min(limit, slots)
        for _ in range(target_size - len(self._workers)):
            self._spawn()
        self._surplus = max(0, len(self._workers) - target_size)
        if self._surplus:
            self._active.queue.wake()

    def _spawn(self) -> None:
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)
        worker.add_done_callback(self._on_end)

    async def _work(self) -> None:
        queue = self._active.queue
        while not self._surplus:
            row = queue.get_nowait() or await queue.get(lambda: bool(self._surplus))
            if row is None:
                break
            if not await self._run_task(row):
                return
        self._surplus = max(0, self._surplus - 1)

    async def _run_task(self, row: TaskRow) -> bool:
        """Run a task; return False when this worker was replaced meanwhile."""
        active = self._active
        load_balancer = self._active.environment.load_balancer
        slot = None
        abandoned = False
        try:
            slot = load_balancer.acquire_nowait() or await load_balancer.acquire()
            if active.queue.paused:  # paused meanwhile: no task may start
                active.queue.requeue(row)
                return True
            row.dispatch_count = row.dispatch_count + 1
            row.status = "running"
            if not active.writer.ephemeral:  # else it would be forgotten with the process anyway
                active.writer.enqueue(self._task_runner.build_outcome(row))
            if self.starts_to_persist or active.writer.backlogged:
                self.starts_to_persist = max(0, self.starts_to_persist - 1)
                await active.writer.flush()
            outcome = await self._task_runner.run_attempt(row, slot)
            abandoned = outcome is None
            if outcome is not None:
                active.writer.enqueue(outcome)
        finally:
            if not abandoned:
                active.queue.task_done(row)
                if slot is not None:
                    load_balancer.release(slot)
        return not abandoned

    def abandon(self, attempt: Attempt) -> None:
        """Abandon an attempt that ignores its cancel, and replace its worker."""
        active = self._active
        active.writer.enqueue(self._task_runner.abandon(attempt))
        active.environment.load_balancer.release(attempt.backend_slot)
        active.queue.task_done(attempt.row)
        if attempt.worker in self._workers:
            self._workers.discard(attempt.worker)
            self._abandoned.add(attempt.worker)
            attempt.worker.add_done_callback(self._abandoned.discard)
        if not self._control.ending:
            self._spawn()

    async def shutdown(self, grace_s: float) -> None:
        """Let running tasks end within their grace, then cancel them, then abandon them."""
        await self._wait_workers(grace_s)
        for attempt in list(self._active.running.values()):
            attempt.stop()
        await self._wait_workers(CANCEL_WAIT_S)
        for attempt in list(self._active.running.values()):
            self.abandon(attempt)
        for worker in [*self._workers, *self._abandoned]:
            worker.cancel()
        await self._wait_workers(CANCEL_WAIT_S)

    async def _wait_workers(self, within_s: float) -> None:
        if self._workers:
            await asyncio.wait(self._workers, timeout=within_s)
