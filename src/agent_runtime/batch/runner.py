"""One execution while this process runs it: its queue, its workers, and the journal they write."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agent_runtime.batch.active_execution import ActiveExecution
from agent_runtime.batch.environment import BatchEnvironment
from agent_runtime.batch.heartbeat import Heartbeat
from agent_runtime.batch.journal.records import Execution, ExecutionStatus, TaskRow
from agent_runtime.batch.journal.writer import TaskOutcome, retrying
from agent_runtime.batch.prefetcher import Prefetcher
from agent_runtime.batch.result import TaskResult
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.task_runner import TaskRunner
from agent_runtime.batch.worker_pool import WorkerPool
from agent_runtime.errors import ExecutionLost

LOG = logging.getLogger("agent_runtime.batch")


class ExecutionRunner:
    """Run an execution that this process has leased, from its state in the journal.

    `max_concurrent` workers take tasks from the queue, which the prefetcher fills from the journal;
    a result becomes visible when it is stored there.
    """

    def __init__(
        self,
        environment: BatchEnvironment,
        execution: Execution,
        settings: BatchSettings,
        *,
        crashed: bool = False,
    ) -> None:
        self.active = ActiveExecution(
            environment, execution, settings, self._on_persisted, crashed=crashed
        )
        self.task_runner = TaskRunner(self.active, self)
        self.worker_pool = WorkerPool(self.active, self, self.task_runner, self._on_helper_done)
        self.prefetcher = Prefetcher(self.active, self, self.task_runner, self.worker_pool)
        self.heartbeat = Heartbeat(self.active, self, self.worker_pool.abandon)
        self._end_requested = asyncio.Event()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._main_task: asyncio.Task[None] | None = None
        self._writer_task: asyncio.Task[None] | None = None
        self._end_status: tuple[ExecutionStatus, str] | None = None
        self._state_lock = asyncio.Lock()
        self.loaded = asyncio.Event()
        """Set when it is known what there is to do, or that it ends."""
        self._started = False
        self.error: BaseException | None = None

    # -- from outside

    def start(self) -> None:
        """Begin to run it."""
        self._main_task = asyncio.create_task(self._run(), name=f"batch {self.active.execution.id}")
        self._main_task.add_done_callback(lambda _: self.notify())

    async def wait_idle(self) -> None:
        """Wait until it is over, or paused."""
        while not self.ended and not self.is_idle:
            self._idle.clear()
            await self._idle.wait()
        if self.ended and self.error is not None:
            raise self.error

    @property
    def is_idle(self) -> bool:
        """Return whether it is paused, no task runs and all results are stored."""
        paused = (
            self.active.execution.status in ("paused", "awaiting_approval")
            and not self._end_requested.is_set()
        )
        return self._started and paused and not self.active.running and not self.active.writer.busy

    def on_ended(self, call: Callable[[], Any]) -> None:
        """Call `call` when this process no longer runs it."""
        if self._main_task is not None:
            self._main_task.add_done_callback(lambda _: call())

    @property
    def ending(self) -> bool:
        """Return whether it has been requested to end."""
        return self._end_requested.is_set()

    @property
    def ended(self) -> bool:
        """Return whether this process no longer runs it."""
        return self._main_task is not None and self._main_task.done()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change; take it before you look."""
        return self._changed

    def notify(self) -> None:
        """Wake everything that waits for a change."""
        changed = self._changed
        self._changed = asyncio.Event()
        changed.set()
        if self.ended or self.active.queue.paused:
            self._idle.set()
            if self.is_idle:
                self.active.progress.stop_clock()

    async def pause(self, reason: str = "asked", status: ExecutionStatus = "paused") -> None:
        """Pause: start no further task; running ones continue."""
        self.active.queue.pause()
        async with self._state_lock:
            if (
                self.active.execution.status in ("running", "paused")
                and self.active.execution.status != status
            ):
                await self._set_status(status, reason)

    async def resume(self) -> None:
        """Resume starting tasks."""
        async with self._state_lock:
            if self.active.execution.status in ("paused", "awaiting_approval"):
                await self._set_status("running", "")
            self.active.progress.resume_clock()
            self.active.queue.resume()
        self.prefetcher.wake()

    def end(self, status: ExecutionStatus, reason: str = "") -> None:
        """End the execution after its running tasks, or after their grace.

        Only the first request counts.
        """
        if self._end_status is None:
            self._end_status = (status, reason)
        self.active.queue.pause()
        self._end_requested.set()
        self.notify()

    async def close(self) -> None:
        """Stop running it here: tasks may end within their grace.

        It can be resumed, here or elsewhere.
        """
        if not self._end_requested.is_set():
            paused = self.active.execution.status in ("paused", "awaiting_approval")
            self.end(
                *(
                    (self.active.execution.status, self.active.execution.reason)
                    if paused
                    else ("paused", "closed")
                )
            )
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until this process does not run it any more."""
        if self._main_task is not None:
            await asyncio.wait([self._main_task])

    def change_settings(self, settings: BatchSettings) -> None:
        """Use other settings from now on; the queue and the backends stay."""
        self.active.change_settings(settings)
        self.worker_pool.resize(self.active.max_concurrent)

    async def accept(self, row: TaskRow) -> None:
        """Handle a task that was accepted on its producer's reservation."""
        if row.status == "pending":
            self.prefetcher.accept(row)
            return
        self.prefetcher.on_tasks_added([row])  # it failed when it was accepted
        assert row.result is not None  # noqa: S101 - it has ended
        self._record_result(row.result)
        self.task_runner.apply_failure_policy(row.result)
        self.release_slot()
        self.notify()

    def release_slot(self) -> None:
        """Release a reservation of the queue that is not needed."""
        self.active.queue.cancel_reservation()
        self.finish_if_done()

    # -- running

    async def _run(self) -> None:
        try:
            self._writer_task = self._start_helper(self.active.writer.run())
            await self.prefetcher.load()
            self.active.progress.start_clock()
            self.loaded.set()
            await self._set_status("running", "")
            self._started = True
            if self.active.queue.paused and not self.ending:
                await self._set_status("paused", "asked")  # before its start
            helpers = [
                self._start_helper(work) for work in (self.heartbeat.run(), self.prefetcher.run())
            ]
            self.worker_pool.resize(self.active.max_concurrent)
            self.finish_if_done()
            await self._end_requested.wait()
            await self._shutdown(helpers)
        except Exception as error:  # noqa: BLE001 - kept for whoever waits
            self.fail(error)
        finally:
            await self._release()

    def _start_helper(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_helper_done)
        return task

    def _on_helper_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End it because of an error that is not a task's; `wait` raises it."""
        self.error = self.error or error
        LOG.error(
            "the execution %s stops: %s: %s", self.active.execution.id, type(error).__name__, error
        )
        self.end("paused", type(error).__name__)

    def _on_persisted(self, outcomes: Sequence[TaskOutcome]) -> None:
        """Handle stored outcomes: report results, or queue tasks again."""
        for outcome in outcomes:
            if outcome.again is not None:
                self.prefetcher.requeue(outcome.again)
            if (result := outcome.result) is not None:
                self.prefetcher.on_task_ended(result.position)
                self._record_result(result)
        self.prefetcher.wake()
        self.finish_if_done()
        self.notify()

    def finish_if_done(self) -> None:
        """End, when every task has."""
        if self.active.open_tasks > 0:
            return
        if self.active.execution.input_closed:
            self.end("completed")
        elif self.active.producer_failed:
            self.end("paused", self.active.producer_failed)

    def _record_result(self, result: TaskResult) -> None:
        self.active.progress.add(result)
        self.active.environment.result_counts[result.status] += 1
        data = {
            "execution_id": self.active.execution.id,
            "task_id": result.task_id,
            "status": result.status,
        }
        error = (
            {} if result.error is None else {"error": result.error.code, "kind": result.error.kind}
        )
        self.active.publish(
            "batch.task",
            {**data, "attempts": result.attempts, "duration_s": result.duration_s, **error},
        )

    async def _set_status(
        self, status: ExecutionStatus, reason: str, *, release: bool = False
    ) -> None:
        previous_status = self.active.execution.status
        self.active.execution.status = status
        self.active.execution.reason = reason
        self.active.execution.progress = self.active.progress.to_dict(len(self.active.running))
        if release:
            await self.active.environment.journal.save(self.active.execution, release=True)
        else:
            await retrying(lambda: self.active.environment.journal.save(self.active.execution))
        data = {
            "execution_id": self.active.execution.id,
            "status": status,
            "before": previous_status,
            **({"reason": reason} if reason else {}),
        }
        self.active.publish("batch.execution", data)
        self.notify()

    # -- the end

    async def _shutdown(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        status = self._end_status[0] if self._end_status else "completed"
        immediately = self.active.settings.fail_fast and status == "failed"
        self.active.queue.close()
        await self.worker_pool.shutdown(
            0.0
            if immediately or isinstance(self.error, ExecutionLost)
            else self.active.settings.grace
        )
        for task in helpers:
            task.cancel()
        await asyncio.wait(helpers)

    async def _release(self) -> None:
        self.active.queue.close()
        if self._writer_task is not None:
            self.active.writer.close()
            await asyncio.wait([self._writer_task])
        self.active.progress.stop_clock()
        status, reason = self._end_status or (
            "paused",
            "error" if self.error is not None else "closed",
        )
        if (
            self._started
            and not self.active.open_tasks
            and self.active.execution.input_closed
            and status == "paused"
        ):
            status = "completed"
            reason = ""
        if status in ("completed", "failed", "cancelled"):
            self.active.execution.ended_at = time.time()
        try:
            await self._set_status(status, reason, release=True)
        except Exception as error:  # noqa: BLE001 - the journal lists it as running, so it can be resumed
            self.error = self.error or error
        finally:
            self.loaded.set()
            for slot in self.active.environment.load_balancer.backend_slots:
                slot.backend.forget(self.active.execution.id)
            self.notify()
