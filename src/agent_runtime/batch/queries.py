"""Read-only queries: live state of executions here, journal state of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from agent_runtime.batch.aggregation import aggregate_results, reduce_results
from agent_runtime.batch.execution_registry import ExecutionRegistry
from agent_runtime.batch.report import BatchReport, make_report
from agent_runtime.batch.result import FINAL_STATUSES, TaskResult
from agent_runtime.errors import ConfigurationError
from agent_runtime.storage.process_identity import is_process_dead

if TYPE_CHECKING:
    from agent_runtime.batch.journal.records import Execution
    from agent_runtime.batch.runner import ExecutionRunner
    from agent_runtime.orchestration.executor import AgentExecutor

PAGE_SIZE = 500
POLL_INTERVAL_S = 0.5


class ExecutionQueries:
    """Read the state of executions, from their runners here or from the journal."""

    def __init__(self, registry: ExecutionRegistry) -> None:
        self._registry = registry
        self._journal = registry.environment.journal

    async def wait(self, execution_id: str) -> dict[str, Any]:
        """Wait until the execution has ended, is paused or lost; return its status.

        Raises the error that ended its runner.
        """
        if (runner := self._registry.get(execution_id)) is not None:
            await runner.wait_idle()
        while (status := await self.status(execution_id))["status"] in (  # noqa: ASYNC110
            "running",
            "pending",
        ):
            await asyncio.sleep(POLL_INTERVAL_S)  # another process runs it
        return status

    def result_counts(self) -> Counter[str]:
        """Return the results stored here, by status, and `retries`, over all executions."""
        return Counter(self._registry.environment.result_counts)

    async def status(self, execution_id: str) -> dict[str, Any]:
        """Return the status, JSON-ready: counts, rate, ETA, cost and errors so far.

        Raises ExecutionNotFound. `status` is `lost` when its process ended in the middle: resume
        it.
        """
        if (runner := self._registry.active(execution_id)) is not None:
            return status_of(
                runner.active.execution,
                runner.active.progress.to_dict(len(runner.active.running)),
                runner.active.queue.depths(),
            )
        execution = await self._journal.get(execution_id)
        counts = await self._journal.counts(execution_id)
        ended: dict[str, int] = {status: counts.get(status, 0) for status in FINAL_STATUSES}
        total = sum(counts.values())
        figures: dict[str, Any] = {
            **execution.progress,
            **ended,
            "total": total,
            "ended": sum(ended.values()),
        }
        return status_of(execution, figures)

    async def statuses(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the status of the newest executions in the journal."""
        return [await self.status(execution.id) for execution in await self._journal.list(limit)]

    async def results(self, execution_id: str, *, ordered: bool = True) -> list[TaskResult]:
        """Return the results so far, in task order or by completion. Raises ExecutionNotFound."""
        await self._journal.get(execution_id)
        by: Literal["seq", "number"] = "seq" if ordered else "number"
        results: list[TaskResult] = []
        after = 0
        while page := await self._journal.results(execution_id, after, PAGE_SIZE, by=by):
            results += [stored_result.result for stored_result in page]
            after = page[-1].seq if ordered else page[-1].number
        return results

    async def stream_results(
        self, execution_id: str, *, ordered: bool = False, after: int = 0, follow: bool = True
    ) -> AsyncIterator[TaskResult]:
        """Yield each result when it is stored.

        Results come in the order of the tasks if `ordered` (a slow one delays the others). The
        stream ends when the execution has ended, or is paused with no task running; with
        `follow=False` after the last stored result. `after` skips the first ones. Leaving it early
        affects nothing: results are in the journal. Raises ExecutionNotFound.
        """
        by: Literal["seq", "number"] = "seq" if ordered else "number"
        position = 0
        while True:
            runner = self._registry.get(execution_id)
            changed = None if runner is None else runner.changed
            is_idle = not follow or await self._is_idle(execution_id, runner)
            page = await self._journal.results(execution_id, position, PAGE_SIZE, by=by)
            if ordered and not is_idle:  # up to the first that is not there yet
                page = [
                    stored_result
                    for n, stored_result in enumerate(page, position + 1)
                    if stored_result.seq == n
                ]
            for stored_result in page:
                position = stored_result.seq if ordered else stored_result.number
                if after > 0:
                    after -= 1
                else:
                    yield stored_result.result
            if page:
                continue
            if is_idle:
                return
            if changed is None or runner is None or runner.ended:
                await asyncio.sleep(POLL_INTERVAL_S)
            else:
                await changed.wait()

    async def _is_idle(self, execution_id: str, runner: ExecutionRunner | None) -> bool:
        """Return whether nothing more happens without a request."""
        if runner is not None and not runner.ended:
            return runner.is_idle
        return (await self.status(execution_id))["status"] not in (
            "running",
            "pending",
        )

    async def metrics(self, execution_id: str | None = None) -> dict[str, Any]:
        """Return the figures of an execution (a BatchReport's), or of this executor.

        Those of the executor count running, queued and ended tasks in this process.
        """
        if execution_id is not None:
            return (await self.report(execution_id)).to_dict()
        runners = self._registry.all_active()
        counts = self.result_counts()
        return {
            "executions": len(runners),
            "running": sum(len(runner.active.running) for runner in runners),
            "queued": sum(len(runner.active.queue) for runner in runners),
            "open": sum(runner.active.open_tasks for runner in runners),
            "ended": sum(counts[status] for status in FINAL_STATUSES),
            "retries": counts["retries"],
            "tasks_per_s": round(sum(runner.active.progress.rate for runner in runners), 3),
        }

    async def report(self, execution_id: str) -> BatchReport:
        """Return the report of an execution, final when it has ended. Raises ExecutionNotFound."""
        runner = self._registry.active(
            execution_id
        )  # another process may have resumed one that ended here
        execution = await self._journal.get(execution_id)
        figures = (
            execution.progress
            if runner is None
            else runner.active.progress.to_dict(len(runner.active.running))
        )
        return await make_report(
            self._journal, execution if runner is None else runner.active.execution, figures
        )

    async def aggregate(
        self,
        execution_id: str,
        strategy: Literal["preserve", "merge", "custom", "reduce"] = "preserve",
        *,
        agent: AgentExecutor | None = None,
        **options: Any,
    ) -> Any:
        """Combine all results: `aggregate_results`, or `reduce` by an agent (`reduce_results`)."""
        results = await self.results(execution_id)
        if strategy == "reduce":
            if agent is None:
                raise ConfigurationError(
                    "the strategy 'reduce' needs an agent: aggregate(id, 'reduce', agent=...)"
                )
            return await reduce_results(results, agent, **options)
        return aggregate_results(results, strategy, **options)  # raises for unknown strategies


def status_of(
    execution: Execution, figures: Mapping[str, Any], queued: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return an execution's status as a dict."""
    lost = execution.status in ("running", "pending") and (
        is_process_dead(execution.owner) or not execution.is_leased
    )
    return {
        "execution_id": execution.id,
        "name": execution.name,
        "agent": execution.agent,
        "status": "lost" if lost and queued is None else execution.status,
        "reason": execution.reason,
        "input_closed": execution.input_closed,
        "input_truncated": bool(execution.source.get("cut")),
        "created_at": execution.created_at,
        "ended_at": execution.ended_at,
        "max_concurrent": execution.settings.get("max_concurrent", 10),
        "max_cost_usd": execution.settings.get("max_cost_usd"),
        "forecast": execution.forecast,
        "owner": execution.owner,
        **figures,
        **({} if queued is None else {"queued": dict(queued)}),
    }
