"""From the journal to the queue: what is left to be done, a window of it at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_runtime.batch.forecast import make_forecast, pilot_places
from agent_runtime.batch.journal.records import Execution, Kept, TaskRow
from agent_runtime.batch.journal.writer import insisted
from agent_runtime.batch.result import UNSUCCESSFUL
from agent_runtime.batch.settings import BatchSettings, PilotSettings
from agent_runtime.errors import AgentRuntimeError

if TYPE_CHECKING:
    from agent_runtime.batch.runner import ExecutionRun

PAGE = 500
FIRST = 4
"""So many tasks for each worker are read before any runs."""


class Feeder:
    """Keeps an execution's queue filled.

    `known` are the places of the tasks that are here: in the queue, waiting for their next attempt,
    or running. All others that have not ended stand in the journal only, so that a batch of any
    size takes the same memory.
    """

    def __init__(self, run: ExecutionRun) -> None:
        self._run = run
        self.known: set[int] = set()
        self._look = asyncio.Event()
        self._last: list[TaskRow] = []
        """Tasks that failed for good and are tried once more when all others have ended."""
        self._pilot: set[int] = set()
        self._agents: Sequence[str] = ()
        self._dry: set[str] = set()
        """Agents of which no further task stands in the journal."""
        self._ended = set[int]()
        self._asking = False
        """Tasks that have ended while the journal was asked: its answer may not know it."""

    # -- what is there
    # -------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read how far the execution is.

        What was running when its last process ended has to be run again.
        """
        run = self._run
        journal = self._run.shop.journal
        name = self._run.execution.id
        async for kept in all_results(run):
            run.tally.add(kept.result)
        counts = await insisted(lambda: journal.counts(name))
        run.tally.total = run.retries.tasks = sum(counts.values())
        run.tally.retries = run.retries.used = int(run.execution.progress.get("retries", 0))
        while rows := await insisted(lambda: journal.rows(name, "running", PAGE)):
            for row in rows:
                lost = (
                    await run.tasks.lost(row, run.settings.max_lost)
                    if run.crashed
                    else run.tasks.left(row)
                )
                run.writer.put(lost)
            await run.writer.written()
        if run.crashed:
            run.crew.careful = 2 * run.limit
        self._know(await insisted(lambda: journal.agents(name)))
        self._plan_pilot()

    def _plan_pilot(self) -> None:
        run = self._run
        wanted = run.settings.pilot
        if wanted is None and run.settings.max_cost_usd is not None and run.settings.approval:
            wanted = PilotSettings()
        if wanted is None or run.execution.forecast is not None or run.execution.approved:
            return
        places = pilot_places(run.tally.total, wanted.share, wanted.at_least)
        if run.execution.sealed and run.tally.total > 2 * len(
            places
        ):  # else it is the whole, nearly
            self._pilot = set(places)

    def added(self, rows: Sequence[TaskRow]) -> None:
        """Tasks were accepted, and are here already."""
        self._run.tally.total += len(rows)
        self._run.retries.tasks = self._run.tally.total
        if new := {row.agent for row in rows}.difference(self._agents):
            self._know(sorted({*self._agents, *new}))
            self._dry |= new

    def _know(self, agents: Sequence[str]) -> None:
        """These are the agents.

        One that is named by its file has the limit of its template's name, too.
        """
        self._agents = agents
        run = self._run
        for agent in agents if run.settings.limits else ():
            with suppress(AgentRuntimeError):  # its tasks will tell
                name = run.shop.factory.get_template(agent).metadata.name
                if (most := run.settings.limits.get(name)) is not None:
                    run.queue.limit(agent, most)

    def take_in(self, row: TaskRow) -> None:
        """A task that was accepted while its producer held a place in the queue."""
        self.known.add(row.seq)
        self.added([row])
        self._run.queue.put(row)

    def ended(self, seq: int) -> None:
        """A task has its result in the journal."""
        self.known.discard(seq)
        if self._asking:
            self._ended.add(seq)

    # -- feeding
    # -------------------------------------------------------------------------------------------

    @property
    def _share(self) -> int:
        """How many tasks of each agent are kept in the queue.

        One whose tasks must wait leaves room for the others.
        """
        return max(1, self._run.settings.queue.size // max(1, len(self._agents)))

    def _hungry(self) -> list[str]:
        queue = self._run.queue
        most = self._share // 2
        return [
            agent for agent in self._agents if agent not in self._dry and queue.depth(agent) <= most
        ]

    def look(self) -> None:
        """See whether there is something to be done."""
        if self._pilot or self._last or len(self._dry) < len(self._agents):
            self._look.set()

    def later(self, row: TaskRow) -> None:
        """A task is to be run again: now, after its wait, or at the very end."""
        self.known.add(row.seq)
        wait_s = row.not_before_s - time.time()
        if (
            self._run.settings.fallback_strategy == "retry"
            and row.attempts >= self._run.settings.retry.attempts
        ):
            self._last.append(row)
            self.look()
        elif wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._run.queue.put_back, row)
        else:
            self._run.queue.put_back(row)

    async def run(self) -> None:
        """Feed until cancelled."""
        if self._pilot:
            for row in await self._run.shop.journal.places(
                self._run.execution.id, sorted(self._pilot)
            ):
                if row.status == "pending":
                    self.later(row)
            while await self._pilot_runs():
                await self._looked()
            await self._tell_forecast()
            self._pilot = set()
        while True:
            await self._feed()
            await self._looked()

    async def _looked(self) -> None:
        await self._look.wait()
        self._look.clear()

    async def _pilot_runs(self) -> bool:
        return bool((self._pilot & self.known).difference(row.seq for row in self._last))

    async def _feed(self) -> None:
        run = self._run
        share = self._share
        for agent in self._hungry():
            known = len(self.known)
            wanted = share - run.queue.depth(agent)
            if (
                not known and run.settings.queue.order == "fifo"
            ):  # the first ones run while the others are read
                wanted = min(wanted, FIRST * run.limit)
                self._look.set()
            self._ended.clear()
            found = await self._pending(agent, known + wanted)
            rows = [
                row for row in found if row.seq not in self.known and row.seq not in self._ended
            ]
            if len(found) < known + wanted:
                self._dry.add(agent)  # that was all
            # The newest first is the last in, first out of a queue whose end is taken from.
            for row in (
                rows[:wanted] if run.settings.queue.order == "fifo" else reversed(rows[:wanted])
            ):
                self.later(row)
            if len(rows) > wanted:
                self._dry.discard(agent)
        if (
            self._last
            and (run.execution.sealed or run.producer_failed)
            and run.open == len(self._last)
        ):
            last = self._last
            self._last = []
            for row in last:
                run.queue.put_back(row)

    async def _pending(self, agent: str, count: int) -> Sequence[TaskRow]:
        self._asking = True
        try:
            journal = self._run.shop.journal
            name = self._run.execution.id
            return await insisted(lambda: journal.rows(name, "pending", count, agent=agent))
        finally:
            self._asking = False

    # -- the pilot
    # -----------------------------------------------------------------------------------------

    async def _tell_forecast(self) -> None:
        """What the whole will cost, told from the pilot; above the budget somebody is asked."""
        run = self._run
        settings = self._run.settings
        results = [kept.result async for kept in all_results(run)]
        refused = [
            each.error is not None and each.error.kind == "input_invalid" for each in results
        ]
        found = [each for each, not_run in zip(results, refused, strict=True) if not not_run]
        made = make_forecast(
            [each.cost for each in found],
            [
                each.usage.get("input_tokens", 0) + each.usage.get("output_tokens", 0)
                for each in found
            ],
            [each.duration_s for each in found],
            tasks=run.tally.total - sum(refused),
            concurrent=run.limit,
            confidence=(settings.pilot or PilotSettings()).confidence,
            unsuccessful=sum(each.status in UNSUCCESSFUL for each in found),
        )
        run.execution.forecast = made.to_dict()
        await run.shop.journal.save(run.execution)
        run.publish(
            "batch.forecast", {"execution_id": run.execution.id, "forecast": made.to_dict()}
        )
        if needs_approval(run.execution, settings):
            await run.pause("approval", "awaiting_approval")


def needs_approval(execution: Execution, settings: BatchSettings) -> bool:
    """Whether somebody has to say that an execution may go on: its forecast is above its budget."""
    limit = settings.max_cost_usd
    made = execution.forecast
    if limit is None or made is None or execution.approved or not settings.approval:
        return False
    return made["cost_usd"] is None or made["cost_usd"] > limit


async def all_results(run: ExecutionRun) -> AsyncIterator[Kept]:
    """Every result of an execution, in the order in which they came."""
    after = 0
    while page := await run.shop.journal.results(run.execution.id, after, PAGE):
        for kept in page:
            yield kept
        after = page[-1].number
