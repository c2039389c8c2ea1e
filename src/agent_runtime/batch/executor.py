"""ParallelAgentExecutor: thousands of agent tasks, and nothing lost to a crash."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

from agent_runtime.batch.ingestion import check_task, read_source
from agent_runtime.batch.journal.records import Execution
from agent_runtime.batch.prefetcher import needs_approval
from agent_runtime.batch.queries import POLL_INTERVAL_S
from agent_runtime.batch.result import UNSUCCESSFUL_STATUSES
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.submission import ExecutionSubmission
from agent_runtime.errors import ApprovalRequired, ConfigurationError, ExecutionBusy, InputInvalid


class ParallelAgentExecutor(ExecutionSubmission):
    """Run batches of agent tasks concurrently, from a journal that survives this process.

    Each task is one call of its agent through every layer of the factory. `async with` opens the
    backends; leaving it stops running tasks within their grace, and the journal allows resuming.

    Args:
        factory: builds the agents.
        settings: the defaults of executions.
        journal: stores everything: in memory by default; `open_journal("sqlite:FILE")` survives a
            crash.
        backends: run the tasks; by default the one that the settings name. They are opened and
            closed here.
        dead_letters: receives tasks that repeatedly end their workers.
        principal, credentials: the caller; credentials are never stored.
    """

    async def resume_execution(
        self,
        execution_id: str,
        *,
        max_cost_usd: float | None = None,
        approve: bool = False,
        **changes: Any,
    ) -> None:
        """Resume an execution that is paused, or whose process has ended.

        Tasks that have ended are not run again. `max_cost_usd` is its new total budget; `approve`
        accepts a forecast above the budget; further settings replace the submitted ones. Raises
        ExecutionNotFound, ExecutionBusy while another process runs it, ConfigurationError.
        """
        if max_cost_usd is not None:
            changes["max_cost_usd"] = max_cost_usd
        if (runner := self._active_runner(execution_id)) is not None and runner.ending:
            await (
                runner.wait_closed()
            )  # It is being cancelled, for example: resuming starts another run of it.
            runner = None
        if runner is not None:
            runner.active.execution.approved |= approve
            settings = runner.active.settings.with_changes(**changes)
            _require_approval(runner.active.execution, settings)
            await self._check_budget(
                runner.active.execution, settings, runner.active.progress.cost_usd
            )
            runner.change_settings(settings)
            await runner.resume()
            return
        execution = await self.journal.get(execution_id)
        settings = BatchSettings.parse(execution.settings).with_changes(**changes)
        pending_request = execution.requested
        execution.approved |= approve
        _require_approval(execution, settings)
        await self._check_budget(
            execution, settings, Decimal(execution.progress.get("cost_usd", "0"))
        )
        # its owner has not released it
        crashed = execution.owner not in ("", self._environment.owner)
        self._check_open()
        await self._lease(execution)
        try:
            execution.settings = settings.explicit_settings()
            execution.ended_at = None
            await self._ingest_remaining(execution, settings)
            await self.journal.ack_request(execution_id, pending_request)
            self._check_open()  # it may have been closed meanwhile
        except BaseException:
            await self.journal.save(execution, release=True)
            raise
        self._start(execution, settings, crashed=crashed)

    async def _check_budget(
        self, execution: Execution, settings: BatchSettings, spent_usd: Decimal
    ) -> None:
        """Check that a ledger is there for a budget that is set later.

        Subtract earlier spending.
        """
        if settings.max_cost_usd is None or execution.settings.get("max_cost_usd") is not None:
            return
        for agent in await self.journal.agents(execution.id):
            for row in await self.journal.rows(execution.id, "pending", 1, agent=agent):
                await check_task(
                    self._environment.load_balancer, row.to_task(), execution.id, budget=True
                )
        execution.source["unbudgeted_usd"] = format(spent_usd, "f")

    async def _ingest_remaining(self, execution: Execution, settings: BatchSettings) -> None:
        """Accept the remaining tasks of a file that was being read when the process ended."""
        if not execution.input_closed and execution.source.get("path", "-") != "-":
            await self._create_ingestor(execution, settings).accept_all(
                read_source(execution.source), skip_journaled=True
            )
        elif not execution.input_closed:
            execution.source["cut"] = True  # the rest of stdin or of a list is lost
        execution.input_closed = True

    async def rerun_failed(self, execution_id: str, **changes: Any) -> int:
        """Run failed, skipped and poisoned tasks of an execution again; return how many.

        The execution must not be running. Successful results stay. Raises as `resume_execution`.
        """
        if self._active_runner(execution_id) is not None:
            raise ExecutionBusy(execution_id, "this process")
        execution = await self.journal.get(execution_id)
        settings = BatchSettings.parse(execution.settings).with_changes(
            **changes
        )  # before anything is changed
        _require_approval(execution, settings)
        await self._lease(execution)
        count = await self.journal.reset(execution_id, execution.token, UNSUCCESSFUL_STATUSES)
        execution.progress = {**execution.progress, "retries": 0}
        execution.status = "paused"
        await self.journal.save(execution, release=True)
        await self.resume_execution(execution_id, **changes)
        return count

    async def pause_execution(self, execution_id: str) -> None:
        """Start no new task until resumed; running ones finish. Works across processes."""
        if (runner := self._active_runner(execution_id)) is not None:
            await runner.pause()
        else:
            if (await self.journal.get(execution_id)).is_final:
                raise InputInvalid(f"the execution '{execution_id}' is over")
            await self.journal.request(execution_id, "pause")

    async def suspend_execution(self, execution_id: str) -> None:
        """Stop running an execution here, when its tasks have ended or after their grace.

        Anybody may resume it.

        Raises InputInvalid when it is not run here.
        """
        await self._require_runner(execution_id).close()

    async def cancel_execution(
        self, execution_id: str, *, within_s: float = 60.0
    ) -> dict[str, Any]:
        """Cancel an execution and return its status.

        No further task starts; running ones may finish within their grace, and finished results
        stay. When another process runs it, the request is sent there and awaited for `within_s`
        seconds.
        """
        if (runner := self._active_runner(execution_id)) is not None:
            runner.end("cancelled", "asked")
            await runner.wait_closed()
            return await self.get_execution_status(execution_id)
        execution = await self.journal.get(execution_id)
        if execution.is_final:
            return await self.get_execution_status(execution_id)
        try:
            await self._lease(execution)
        except ExecutionBusy:
            await self.journal.request(execution_id, "cancel")
            deadline = time.monotonic() + within_s
            while (  # noqa: ASYNC110
                not (await self.journal.get(execution_id)).is_final and time.monotonic() < deadline
            ):
                await asyncio.sleep(POLL_INTERVAL_S / 2)
        else:
            execution.status = "cancelled"
            execution.reason = "asked"
            execution.ended_at = time.time()
            execution.progress = {**execution.progress, "running": 0}
            await self.journal.save(execution, release=True)
        return await self.get_execution_status(execution_id)

    def configure_parallel_settings(
        self, execution_id: str | None = None, **changes: Any
    ) -> BatchSettings:
        """Change the defaults of later executions, or the settings of one that runs here.

        Return them.

        In a running one `max_concurrent`, time limits, retries and the error strategy change at
        once; its queue and its backends stay as they are. Raises ConfigurationError.
        """
        if execution_id is None:
            self.settings = self.settings.with_changes(**changes)
            return self.settings
        runner = self._require_runner(execution_id)
        if "max_cost_usd" in changes and runner.active.settings.max_cost_usd is None:
            raise ConfigurationError(
                "the first budget of a batch is given to resume_execution(id, max_cost_usd=...)"
            )
        runner.change_settings(runner.active.settings.with_changes(**changes))
        return runner.active.settings


def _require_approval(execution: Execution, settings: BatchSettings) -> None:
    if needs_approval(execution, settings):
        raise ApprovalRequired(execution.id, execution.forecast or {}, settings.max_cost_usd or 0.0)
