"""Move pending tasks from the journal to the queue, one window at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_runtime.batch.forecast import make_forecast, pilot_positions
from agent_runtime.batch.journal.records import Execution, StoredResult, TaskRow
from agent_runtime.batch.journal.writer import retrying
from agent_runtime.batch.result import UNSUCCESSFUL_STATUSES
from agent_runtime.batch.settings import BatchSettings, PilotSettings
from agent_runtime.errors import AgentRuntimeError

if TYPE_CHECKING:
    from agent_runtime.batch.active_execution import ActiveExecution, ExecutionControl
    from agent_runtime.batch.task_runner import TaskRunner
    from agent_runtime.batch.worker_pool import WorkerPool

PAGE_SIZE = 500
FIRST_FETCH_PER_WORKER = 4
"""So many tasks for each worker are read before any runs."""


class Prefetcher:
    """Keep an execution's queue filled.

    `loaded_seqs` has the numbers of the tasks in memory: queued, waiting for a retry, or running.
    All others are in the journal only, so that a batch of any size takes the same memory.
    """

    def __init__(
        self,
        active: ActiveExecution,
        control: ExecutionControl,
        task_runner: TaskRunner,
        worker_pool: WorkerPool,
    ) -> None:
        self._active = active
        self._control = control
        self._task_runner = task_runner
        self._worker_pool = worker_pool
        self.loaded_seqs: set[int] = set()
        self._wakeup = asyncio.Event()
        self._final_retries: list[TaskRow] = []
        """Tasks that failed for good and are tried once more when all others have ended."""
        self._pilot_seqs: set[int] = set()
        self._agents: Sequence[str] = ()
        self._exhausted: set[str] = set()
        """Agents of which no further task stands in the journal."""
        self._ended_during_query = set[int]()
        self._querying = False
        """Tasks that have ended while the journal was asked: its answer may not know it."""

    async def load(self) -> None:
        """Load the execution's progress.

        Tasks that were running when its last process ended run again.
        """
        active = self._active
        journal = self._active.environment.journal
        execution_id = self._active.execution.id
        async for stored_result in iter_results(active):
            active.progress.add(stored_result.result)
        counts = await retrying(lambda: journal.counts(execution_id))
        active.progress.total = active.retry_budget.tasks = sum(counts.values())
        active.progress.retries = active.retry_budget.used = int(
            active.execution.progress.get("retries", 0)
        )
        while rows := await retrying(lambda: journal.rows(execution_id, "running", PAGE_SIZE)):
            for row in rows:
                outcome = (
                    await self._task_runner.record_lost(row, active.settings.max_lost)
                    if active.crashed
                    else self._task_runner.requeue_interrupted(row)
                )
                active.writer.enqueue(outcome)
            await active.writer.flush()
        if active.crashed:
            self._worker_pool.starts_to_persist = 2 * active.max_concurrent
        self._register_agents(await retrying(lambda: journal.agents(execution_id)))
        self._plan_pilot()

    def _plan_pilot(self) -> None:
        active = self._active
        pilot = active.settings.pilot
        if pilot is None and active.settings.max_cost_usd is not None and active.settings.approval:
            pilot = PilotSettings()
        if pilot is None or active.execution.forecast is not None or active.execution.approved:
            return
        positions = pilot_positions(active.progress.total, pilot.share, pilot.at_least)
        if active.execution.input_closed and active.progress.total > 2 * len(
            positions
        ):  # else it is the whole, nearly
            self._pilot_seqs = set(positions)

    def on_tasks_added(self, rows: Sequence[TaskRow]) -> None:
        """Count tasks that were accepted and are in memory."""
        self._active.progress.total += len(rows)
        self._active.retry_budget.tasks = self._active.progress.total
        if new := {row.agent for row in rows}.difference(self._agents):
            self._register_agents(sorted({*self._agents, *new}))
            self._exhausted |= new

    def _register_agents(self, agents: Sequence[str]) -> None:
        """Register the agents of the tasks.

        One named by its file also has the limit of its template's name.
        """
        self._agents = agents
        active = self._active
        for agent in agents if active.settings.limits else ():
            with suppress(AgentRuntimeError):  # its tasks will tell
                name = active.environment.factory.get_template(agent).metadata.name
                if (max_running := active.settings.limits.get(name)) is not None:
                    active.queue.set_default_limit(agent, max_running)

    def accept(self, row: TaskRow) -> None:
        """Queue an accepted task on its producer's reservation."""
        self.loaded_seqs.add(row.seq)
        self.on_tasks_added([row])
        self._active.queue.put(row)

    def on_task_ended(self, seq: int) -> None:
        """Handle a task whose result is in the journal."""
        self.loaded_seqs.discard(seq)
        if self._querying:
            self._ended_during_query.add(seq)

    # -- feeding

    @property
    def _per_agent_limit(self) -> int:
        """Return how many tasks of each agent are queued.

        A share each, so that a throttled agent leaves room for the others.
        """
        return max(1, self._active.settings.queue.size // max(1, len(self._agents)))

    def _agents_below_watermark(self) -> list[str]:
        queue = self._active.queue
        watermark = self._per_agent_limit // 2
        return [
            agent
            for agent in self._agents
            if agent not in self._exhausted and queue.depth(agent) <= watermark
        ]

    def wake(self) -> None:
        """Wake the loop if there may be work."""
        if self._pilot_seqs or self._final_retries or len(self._exhausted) < len(self._agents):
            self._wakeup.set()

    def requeue(self, row: TaskRow) -> None:
        """Queue a task again: now, after its delay, or at the very end."""
        self.loaded_seqs.add(row.seq)
        wait_s = row.not_before - time.time()
        if (
            self._active.settings.fallback_strategy == "retry"
            and row.failed_attempts >= self._active.settings.retry.attempts
        ):
            self._final_retries.append(row)
            self.wake()
        elif wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._active.queue.requeue, row)
        else:
            self._active.queue.requeue(row)

    async def run(self) -> None:
        """Fill the queue until cancelled."""
        if self._pilot_seqs:
            for row in await self._active.environment.journal.get_tasks(
                self._active.execution.id, sorted(self._pilot_seqs)
            ):
                if row.status == "pending":
                    self.requeue(row)
            while await self._is_pilot_running():
                await self._wait_for_work()
            await self._publish_forecast()
            self._pilot_seqs = set()
        while True:
            await self._fill_queue()
            await self._wait_for_work()

    async def _wait_for_work(self) -> None:
        await self._wakeup.wait()
        self._wakeup.clear()

    async def _is_pilot_running(self) -> bool:
        return bool(
            (self._pilot_seqs & self.loaded_seqs).difference(row.seq for row in self._final_retries)
        )

    async def _fill_queue(self) -> None:
        active = self._active
        per_agent_limit = self._per_agent_limit
        for agent in self._agents_below_watermark():
            loaded_count = len(self.loaded_seqs)
            shortfall = per_agent_limit - active.queue.depth(agent)
            if (
                not loaded_count and active.settings.queue.order == "fifo"
            ):  # the first ones run while the others are read
                shortfall = min(shortfall, FIRST_FETCH_PER_WORKER * active.max_concurrent)
                self._wakeup.set()
            self._ended_during_query.clear()
            pending_rows = await self._pending(agent, loaded_count + shortfall)
            rows = [
                row
                for row in pending_rows
                if row.seq not in self.loaded_seqs and row.seq not in self._ended_during_query
            ]
            if len(pending_rows) < loaded_count + shortfall:
                self._exhausted.add(agent)  # that was all
            # Reversed, because a LIFO queue takes the last one first.
            for row in (
                rows[:shortfall]
                if active.settings.queue.order == "fifo"
                else reversed(rows[:shortfall])
            ):
                self.requeue(row)
            if len(rows) > shortfall:
                self._exhausted.discard(agent)
        if (
            self._final_retries
            and (active.execution.input_closed or active.producer_failed)
            and active.open_tasks == len(self._final_retries)
        ):
            final_retries = self._final_retries
            self._final_retries = []
            for row in final_retries:
                active.queue.requeue(row)

    async def _pending(self, agent: str, count: int) -> Sequence[TaskRow]:
        self._querying = True
        try:
            journal = self._active.environment.journal
            execution_id = self._active.execution.id
            return await retrying(lambda: journal.rows(execution_id, "pending", count, agent=agent))
        finally:
            self._querying = False

    # -- the pilot

    async def _publish_forecast(self) -> None:
        """Publish the forecast from the pilot; one above the budget requires an approval."""
        active = self._active
        settings = self._active.settings
        results = [stored_result.result async for stored_result in iter_results(active)]
        is_refused = [
            result.error is not None and result.error.kind == "input_invalid" for result in results
        ]
        attempted_results = [
            result
            for result, was_refused in zip(results, is_refused, strict=True)
            if not was_refused
        ]
        forecast = make_forecast(
            [result.cost for result in attempted_results],
            [
                result.usage.get("input_tokens", 0) + result.usage.get("output_tokens", 0)
                for result in attempted_results
            ],
            [result.duration_s for result in attempted_results],
            tasks=active.progress.total - sum(is_refused),
            concurrent=active.max_concurrent,
            confidence=(settings.pilot or PilotSettings()).confidence,
            unsuccessful=sum(
                result.status in UNSUCCESSFUL_STATUSES for result in attempted_results
            ),
        )
        active.execution.forecast = forecast.to_dict()
        await active.environment.journal.save(active.execution)
        active.publish(
            "batch.forecast", {"execution_id": active.execution.id, "forecast": forecast.to_dict()}
        )
        if needs_approval(active.execution, settings):
            await self._control.pause("approval", "awaiting_approval")


def needs_approval(execution: Execution, settings: BatchSettings) -> bool:
    """Return whether the execution waits for an approval: its forecast is above its budget."""
    limit = settings.max_cost_usd
    forecast = execution.forecast
    if limit is None or forecast is None or execution.approved or not settings.approval:
        return False
    return forecast["cost_usd"] is None or forecast["cost_usd"] > limit


async def iter_results(active: ActiveExecution) -> AsyncIterator[StoredResult]:
    """Yield every result of an execution, in the order of arrival."""
    after = 0
    while page := await active.environment.journal.results(active.execution.id, after, PAGE_SIZE):
        for stored_result in page:
            yield stored_result
        after = page[-1].number
