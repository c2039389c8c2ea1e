"""Read-only queries: live state of executions here, journal state of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from agent_runtime.batch.aggregation import aggregate_results, reduce_results
from agent_runtime.batch.report import BatchReport, make_report
from agent_runtime.batch.result import ENDED, TaskResult
from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.storage.process_identity import is_process_dead

if TYPE_CHECKING:
    from agent_runtime.batch.environment import Shop
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.batch.journal.records import Execution
    from agent_runtime.batch.runner import ExecutionRun
    from agent_runtime.orchestration.executor import AgentExecutor

PAGE = 500
POLL_S = 0.5


class ExecutionViews:
    """Reads a journal; `runs` are the executions that this process runs."""

    journal: Journal
    _runs: dict[str, ExecutionRun]
    _shop: Shop

    def _running(self, execution_id: str) -> ExecutionRun | None:
        run = self._runs.get(execution_id)
        return None if run is None or run.ended else run

    async def wait(self, execution_id: str) -> dict[str, Any]:
        """Wait until the execution is over, paused or lost; returns its status.

        Raises what ended its runner.
        """
        if (run := self._runs.get(execution_id)) is not None:
            await run.rested()
        while (status := await self.get_execution_status(execution_id))["state"] in (  # noqa: ASYNC110
            "running",
            "pending",
        ):
            await asyncio.sleep(POLL_S)  # another process runs it
        return status

    def _run_here(self, execution_id: str) -> ExecutionRun:
        if (run := self._running(execution_id)) is None:
            raise InputInvalid(f"the execution '{execution_id}' is not run here")
        return run

    def live_runs(self) -> list[ExecutionRun]:
        """The executions that this process runs now."""
        return [run for run in self._runs.values() if not run.ended]

    def ended_here(self) -> Counter[str]:
        """Results that were kept here, by status, and `retries`.

        Of all executions, also of those that are over.
        """
        return Counter(self._shop.ended)

    async def get_execution_status(self, execution_id: str) -> dict[str, Any]:
        """How it stands, JSON-ready: state, counts, rate, ETA, cost and errors so far.

        Raises ExecutionNotFound.

        `state` is `lost` when its process is gone in the middle: resume it.
        """
        if (run := self._running(execution_id)) is not None:
            return shown(run.execution, run.tally.to_dict(len(run.running)), run.queue.depths())
        execution = await self.journal.get(execution_id)
        counts = await self.journal.counts(execution_id)
        ended: dict[str, int] = {status: counts.get(status, 0) for status in ENDED}
        total = sum(counts.values())
        figures: dict[str, Any] = {
            **execution.progress,
            **ended,
            "total": total,
            "ended": sum(ended.values()),
        }
        return shown(execution, figures)

    async def list_executions(self, limit: int = 100) -> list[dict[str, Any]]:
        """The status of the newest executions of the journal."""
        return [await self.get_execution_status(each.id) for each in await self.journal.list(limit)]

    async def get_execution_results(
        self, execution_id: str, *, ordered: bool = True
    ) -> list[TaskResult]:
        """Return the results so far, in task order or by completion. Raises ExecutionNotFound."""
        await self.journal.get(execution_id)
        by: Literal["seq", "number"] = "seq" if ordered else "number"
        found: list[TaskResult] = []
        after = 0
        while page := await self.journal.results(execution_id, after, PAGE, by=by):
            found += [kept.result for kept in page]
            after = page[-1].seq if ordered else page[-1].number
        return found

    async def stream_results(
        self, execution_id: str, *, ordered: bool = False, after: int = 0, follow: bool = True
    ) -> AsyncIterator[TaskResult]:
        """The results, each when it is kept.

        In the order of the tasks if `ordered` (a slow one holds up the others).

        Ends when the execution is over, or paused with nothing running; with `follow=False` behind
        the last that there is. `after` leaves out the first ones. Left early it disturbs nothing:
        results are in the journal. Raises ExecutionNotFound.
        """
        by: Literal["seq", "number"] = "seq" if ordered else "number"
        place = 0
        while True:
            run = self._runs.get(execution_id)
            news = None if run is None else run.news_to_come
            rests = not follow or await self._rests(execution_id, run)
            page = await self.journal.results(execution_id, place, PAGE, by=by)
            if ordered and not rests:  # up to the first that is not there yet
                page = [kept for n, kept in enumerate(page, place + 1) if kept.seq == n]
            for kept in page:
                place = kept.seq if ordered else kept.number
                if after > 0:
                    after -= 1
                else:
                    yield kept.result
            if page:
                continue
            if rests:
                return
            if news is None or run is None or run.ended:
                await asyncio.sleep(POLL_S)
            else:
                await news.wait()

    async def _rests(self, execution_id: str, run: ExecutionRun | None) -> bool:
        """Whether nothing happens any more unless somebody asks for it."""
        if run is not None and not run.ended:
            return run.resting
        return (await self.get_execution_status(execution_id))["state"] not in (
            "running",
            "pending",
        )

    async def get_performance_metrics(self, execution_id: str | None = None) -> dict[str, Any]:
        """Figures of an execution (see BatchReport), or of this executor.

        What runs, waits and is done here.
        """
        if execution_id is not None:
            return (await self.get_report(execution_id)).to_dict()
        runs = self.live_runs()
        counts = self.ended_here()
        return {
            "executions": len(runs),
            "running": sum(len(run.running) for run in runs),
            "queued": sum(len(run.queue) for run in runs),
            "open": sum(run.open for run in runs),
            "ended": sum(counts[status] for status in ENDED),
            "retries": counts["retries"],
            "tasks_per_s": round(sum(run.tally.rate for run in runs), 3),
        }

    async def get_report(self, execution_id: str) -> BatchReport:
        """The report of an execution, final when that is over. Raises ExecutionNotFound."""
        run = self._running(
            execution_id
        )  # one that has ended here another process may have gone on with
        execution = await self.journal.get(execution_id)
        figures = execution.progress if run is None else run.tally.to_dict(len(run.running))
        return await make_report(self.journal, execution if run is None else run.execution, figures)

    async def aggregate(
        self,
        execution_id: str,
        strategy: Literal["preserve", "merge", "custom", "reduce"] = "preserve",
        *,
        agent: AgentExecutor | None = None,
        **options: Any,
    ) -> Any:
        """One value of all results.

        `aggregate_results`, or `reduce` by an agent (`reduce_results`, a TaskResult).
        """
        found = await self.get_execution_results(execution_id)
        if strategy == "reduce":
            if agent is None:
                raise ConfigurationError(
                    "the strategy 'reduce' needs an agent: aggregate(id, 'reduce', agent=...)"
                )
            return await reduce_results(found, agent, **options)
        return aggregate_results(found, strategy, **options)  # it refuses what it does not know


def shown(
    execution: Execution, figures: Mapping[str, Any], queued: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """An execution as its status is told."""
    lost = execution.state in ("running", "pending") and (
        is_process_dead(execution.owner) or not execution.is_leased
    )
    return {
        "execution_id": execution.id,
        "name": execution.name,
        "agent": execution.agent,
        "state": "lost" if lost and queued is None else execution.state,
        "why": execution.why,
        "sealed": execution.sealed,
        "cut": bool(execution.source.get("cut")),
        "created_s": execution.created_s,
        "ended_s": execution.ended_s,
        "max_concurrent": execution.settings.get("max_concurrent", 10),
        "max_cost_usd": execution.settings.get("max_cost_usd"),
        "forecast": execution.forecast,
        "owner": execution.owner,
        **figures,
        **({} if queued is None else {"queued": dict(queued)}),
    }
