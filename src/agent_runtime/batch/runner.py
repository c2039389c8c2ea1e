"""One execution while this process runs it: its queue, its workers, and the journal they write."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from agent_runtime.batch.attempt import Attempt
from agent_runtime.batch.environment import Shop, account_of
from agent_runtime.batch.error_handling import RetryBudget
from agent_runtime.batch.heartbeat import Keeper
from agent_runtime.batch.journal.records import Execution, ExecutionState, TaskRow
from agent_runtime.batch.journal.writer import JournalWriter, Outcome, insisted
from agent_runtime.batch.prefetcher import Feeder
from agent_runtime.batch.progress import Tally
from agent_runtime.batch.queue import TaskQueue
from agent_runtime.batch.result import TaskResult
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.task_runner import TaskRun
from agent_runtime.batch.worker_pool import Crew
from agent_runtime.errors import ExecutionLost
from agent_runtime.event_bus import Event

LOG = logging.getLogger("agent_runtime.batch")


class ExecutionRun:
    """Runs an execution whose lease this process has, from where the journal says it is.

    Workers (`max_concurrent` of them) take tasks from the queue, which the feeder fills from the
    journal; a result is seen only when it is kept there.
    """

    def __init__(
        self, shop: Shop, execution: Execution, settings: BatchSettings, *, crashed: bool = False
    ) -> None:
        self.shop = shop
        self.execution = execution
        self.settings = settings
        queue = settings.queue
        self.queue: TaskQueue[TaskRow] = TaskQueue(
            queue.size, queue.order, queue.aging, settings.limits
        )
        self.writer = JournalWriter(shop.journal, execution.id, execution.token, self._kept)
        self.tally = Tally(float(execution.progress.get("active_s", 0.0)))
        self.retries = RetryBudget(settings.retry.budget)
        self.running: dict[int, Attempt] = {}
        self.feeder = Feeder(self)
        self.keeper = Keeper(self)
        self.tasks = TaskRun(self)
        self.account = account_of(execution, settings)
        self.limit = settings.max_concurrent
        self.crew = Crew(self, self._helper_ended)
        self._over = asyncio.Event()
        self._news = asyncio.Event()
        self._rest = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._ending: tuple[ExecutionState, str] | None = None
        self._turn = asyncio.Lock()
        self.loaded = asyncio.Event()
        """Set when it is known what there is to do, or that it ends."""
        self._begun = False
        self.crashed = crashed
        self.producer_failed = ""
        self.error: BaseException | None = None

    # -- from outside
    # --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run it."""
        self._main = asyncio.create_task(self._run(), name=f"batch {self.execution.id}")
        self._main.add_done_callback(lambda _: self.tell())

    @property
    def open(self) -> int:
        """How many tasks have not ended, with those that are being accepted."""
        return self.tally.total - self.tally.ended + self.queue.promised

    async def rested(self) -> None:
        """Wait until it is over, or paused."""
        while not self.ended and not self.resting:
            self._rest.clear()
            await self._rest.wait()
        if self.ended and self.error is not None:
            raise self.error

    @property
    def resting(self) -> bool:
        """Whether it is paused, none of its tasks runs any more, and all that has ended is kept."""
        paused = self.execution.state in ("paused", "awaiting_approval") and not self._over.is_set()
        return self._begun and paused and not self.running and not self.writer.busy

    def when_over(self, call: Callable[[], Any]) -> None:
        """Have something called when this process does not run it any more."""
        if self._main is not None:
            self._main.add_done_callback(lambda _: call())

    @property
    def ending(self) -> bool:
        """Whether it has been told to end."""
        return self._over.is_set()

    @property
    def ended(self) -> bool:
        """Whether this process does not run it any more."""
        return self._main is not None and self._main.done()

    @property
    def news_to_come(self) -> asyncio.Event:
        """Set at the next change; take it before you look."""
        return self._news

    def tell(self) -> None:
        """Something has changed."""
        news = self._news
        self._news = asyncio.Event()
        news.set()
        if self.ended or self.queue.held:
            self._rest.set()
            if self.resting:
                self.tally.stop_clock()

    async def pause(self, why: str = "asked", state: ExecutionState = "paused") -> None:
        """Begin no new task; those that run go on."""
        self.queue.hold()
        async with self._turn:
            if self.execution.state in ("running", "paused") and self.execution.state != state:
                await self._become(state, why)

    async def go_on(self) -> None:
        """Begin tasks again."""
        async with self._turn:
            if self.execution.state in ("paused", "awaiting_approval"):
                await self._become("running", "")
            self.tally.go_on()
            self.queue.release()
        self.feeder.look()

    def end(self, state: ExecutionState, why: str = "") -> None:
        """Begin no new task, and end when those that run have, or after their grace.

        The first to say so counts.
        """
        if self._ending is None:
            self._ending = (state, why)
        self.queue.hold()
        self._over.set()
        self.tell()

    async def close(self) -> None:
        """Stop running it here: tasks may end within their grace.

        It can be gone on with, here or elsewhere.
        """
        if not self._over.is_set():
            paused = self.execution.state in ("paused", "awaiting_approval")
            self.end(
                *((self.execution.state, self.execution.why) if paused else ("paused", "closed"))
            )
        await self.closed()

    async def closed(self) -> None:
        """Wait until this process does not run it any more."""
        if self._main is not None:
            await asyncio.wait([self._main])

    def change_settings(self, settings: BatchSettings) -> None:
        """Use other settings from now on; the queue and the backends stay."""
        self.settings = settings
        self.execution.settings = settings.given()
        self.account = account_of(self.execution, settings)
        self.retries.share = settings.retry.budget
        self.limit = settings.max_concurrent
        self.crew.staff(self.limit)

    async def take_in(self, row: TaskRow) -> None:
        """A task was accepted whose producer held a place in the queue."""
        if row.status == "pending":
            self.feeder.take_in(row)
            return
        self.feeder.added([row])  # it failed when it was accepted
        assert row.result is not None  # noqa: S101 - it has ended
        self._count(row.result)
        self.tasks.consequences(row.result)
        self.forgo()
        self.tell()

    def forgo(self) -> None:
        """A place in the queue that was promised is not needed."""
        self.queue.forgo()
        self.check_end()

    # -- running
    # -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            self._writing = self._helper(self.writer.run())
            await self.feeder.load()
            self.tally.start_clock()
            self.loaded.set()
            await self._become("running", "")
            self._begun = True
            if self.queue.held and not self.ending:
                await self._become("paused", "asked")  # before it had begun
            helpers = [self._helper(work) for work in (self.keeper.run(), self.feeder.run())]
            self.crew.staff(self.limit)
            self.check_end()
            await self._over.wait()
            await self._wind_up(helpers)
        except Exception as error:  # noqa: BLE001 - kept for whoever waits
            self.failed(error)
        finally:
            await self._release()

    def _helper(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._helper_ended)
        return task

    def _helper_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """End it because of an error that is not a task's; `wait` raises it."""
        self.error = self.error or error
        LOG.error("the execution %s stops: %s: %s", self.execution.id, type(error).__name__, error)
        self.end("paused", type(error).__name__)

    def _kept(self, outcomes: Sequence[Outcome]) -> None:
        """What became of tasks is kept: tell of it, or queue them again."""
        for outcome in outcomes:
            if outcome.again is not None:
                self.feeder.later(outcome.again)
            if (result := outcome.result) is not None:
                self.feeder.ended(result.position)
                self._count(result)
        self.feeder.look()
        self.check_end()
        self.tell()

    def check_end(self) -> None:
        """End, when every task has."""
        if self.open > 0:
            return
        if self.execution.sealed:
            self.end("completed")
        elif self.producer_failed:
            self.end("paused", self.producer_failed)

    def _count(self, result: TaskResult) -> None:
        self.tally.add(result)
        self.shop.ended[result.status] += 1
        data = {
            "execution_id": self.execution.id,
            "task_id": result.task_id,
            "status": result.status,
        }
        error = (
            {} if result.error is None else {"error": result.error.code, "kind": result.error.kind}
        )
        self.publish(
            "batch.task",
            {**data, "attempts": result.attempts, "duration_s": result.duration_s, **error},
        )

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Say something on the factory's bus."""
        self.shop.factory.event_bus.publish(Event(kind, data))

    async def _become(self, state: ExecutionState, why: str, *, release: bool = False) -> None:
        before = self.execution.state
        self.execution.state = state
        self.execution.why = why
        self.execution.progress = self.tally.to_dict(len(self.running))
        if release:
            await self.shop.journal.save(self.execution, release=True)
        else:
            await insisted(lambda: self.shop.journal.save(self.execution))
        data = {
            "execution_id": self.execution.id,
            "state": state,
            "before": before,
            **({"why": why} if why else {}),
        }
        self.publish("batch.execution", data)
        self.tell()

    # -- the end
    # -------------------------------------------------------------------------------------------

    async def _wind_up(self, helpers: Sequence[asyncio.Task[None]]) -> None:
        state = self._ending[0] if self._ending else "completed"
        at_once = self.settings.fail_fast and state == "failed"
        self.queue.close()
        await self.crew.wind_up(
            0.0 if at_once or isinstance(self.error, ExecutionLost) else self.settings.grace
        )
        for task in helpers:
            task.cancel()
        await asyncio.wait(helpers)

    async def _release(self) -> None:
        self.queue.close()
        if self._writing is not None:
            self.writer.close()
            await asyncio.wait([self._writing])
        self.tally.stop_clock()
        state, why = self._ending or ("paused", "error" if self.error is not None else "closed")
        if self._begun and not self.open and self.execution.sealed and state == "paused":
            state = "completed"
            why = ""
        if state in ("completed", "failed", "cancelled"):
            self.execution.ended_s = time.time()
        try:
            await self._become(state, why, release=True)
        except Exception as error:  # noqa: BLE001 - the journal says that it runs: whoever resumes it sees what is left
            self.error = self.error or error
        finally:
            self.loaded.set()
            for seat in self.shop.scheduler.seats:
                seat.backend.forget(self.execution.id)
            self.tell()

    def figures(self) -> str:
        """The figures as the journal has them."""
        self.tally.mark()
        return json.dumps(self.tally.to_dict(len(self.running)))
