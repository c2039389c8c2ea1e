"""ParallelAgentExecutor: thousands of agent tasks, and nothing lost to a crash."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from agent_runtime.auth.caller_names import DEFAULT_TENANT
from agent_runtime.auth.identities import OPERATOR
from agent_runtime.batch.backends import AsyncioBackend, Backend, ProcessBackend
from agent_runtime.batch.caller_rules import CallerRules
from agent_runtime.batch.environment import BatchEnvironment
from agent_runtime.batch.execution_registry import ExecutionRegistry
from agent_runtime.batch.ingestion import check_task, read_source
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.owned import OwnedJournal
from agent_runtime.batch.journal.records import Execution
from agent_runtime.batch.load_balancer import LoadBalancer
from agent_runtime.batch.prefetcher import needs_approval
from agent_runtime.batch.queries import POLL_INTERVAL_S, ExecutionQueries
from agent_runtime.batch.report import BatchReport
from agent_runtime.batch.result import UNSUCCESSFUL_STATUSES, TaskResult
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format
from agent_runtime.batch.submission import ExecutionSubmission
from agent_runtime.batch.task import AnyTask
from agent_runtime.errors import ApprovalRequired, ConfigurationError, ExecutionBusy, InputInvalid
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.storage.process_identity import process_identity

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.batch.runner import ExecutionRunner
    from agent_runtime.event_bus.dead_letter import DeadLetters
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.types import Principal


class ParallelAgentExecutor:
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

    def __init__(
        self,
        factory: AgentFactory,
        settings: BatchSettings | None = None,
        *,
        journal: Journal | None = None,
        backends: Sequence[Backend] = (),
        dead_letters: DeadLetters | None = None,
        principal: Principal | None = None,
        credentials: Any = None,
    ) -> None:
        self.factory = factory
        self.settings = settings or BatchSettings()
        self.journal = journal or MemoryJournal()
        # The application itself runs commands; its name is available to no caller.
        is_operator = (
            principal is not None
            and principal.id == OPERATOR
            and principal.tenant == DEFAULT_TENANT
        )
        if credentials is not None and principal is None:
            raise ConfigurationError(
                "credentials alone do not say whose the batches are: give the principal, too"
            )
        if principal is not None and not is_operator:
            self.journal = OwnedJournal(self.journal, principal)
        caller_rules = CallerRules(factory, None if is_operator else principal)
        self._dead_letters = dead_letters or MemoryDeadLetters()
        self._backends = list(backends) or [self._default_backend()]
        load_balancer = LoadBalancer(self._backends, self.settings.scheduling)
        self._environment = BatchEnvironment(
            factory,
            self.journal,
            load_balancer,
            self._dead_letters,
            process_identity(),
            principal,
            credentials,
        )
        self._registry = ExecutionRegistry(self._environment, caller_rules)
        self._submission = ExecutionSubmission(self._registry)
        self._queries = ExecutionQueries(self._registry)

    def _default_backend(self) -> Backend:
        if self.settings.backend == "process":
            return ProcessBackend(self.factory, self.settings.pool, dead_letters=self._dead_letters)
        return AsyncioBackend(self.factory)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exit_stack:
            for backend in self._backends:
                await backend.open()
                exit_stack.push_async_callback(backend.aclose)
            self._exit_stack = exit_stack.pop_all()
        self._registry.is_open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._registry.close()
        await self._exit_stack.aclose()

    # -- submitting

    async def submit_batch_tasks(
        self,
        tasks: str | Path | Iterable[AnyTask] | AsyncIterable[AnyTask],
        max_concurrent: int | None = None,
        *,
        agent: str = "",
        mapping: Mapping[str, str] | None = None,
        file_format: Format | None = None,
        execution_id: str | None = None,
        name: str = "",
        max_cost_usd: float | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> str:
        """Accept tasks and start to run them; return the execution's id.

        The id begins with a principal's tenant. Tasks are a list, a JSONL, CSV or YAML file, or an
        async iterator. Those of a list or a file are all in the journal when this returns; from an
        async iterator they are taken as the queue has room. An invalid item becomes a failed task.
        `mapping` builds tasks from a file's rows, as InputMapping does; `notes` are stored with the
        execution (JSON). Raises InputInvalid for an empty input or a duplicate id,
        ConfigurationError for an agent that cannot be built or a budget without a ledger, never
        QueueFull.
        """
        changes = {"max_concurrent": max_concurrent, "max_cost_usd": max_cost_usd}
        settings = self.settings.with_changes(**{k: v for k, v in changes.items() if v is not None})
        return await self._submission.submit(
            tasks,
            settings,
            agent=agent,
            mapping=mapping,
            file_format=file_format,
            execution_id=execution_id,
            name=name,
            notes=notes,
        )

    async def submit_task(self, execution_id: str, task: AnyTask, *, wait: bool = True) -> None:
        """Add a task to an execution whose input is open.

        Waits while the queue is full, or raises QueueFull with `wait=False`. When it returns the
        task is in the journal. Raises InputInvalid when the execution is not run here or its input
        is closed.
        """
        await self._submission.submit_task(execution_id, task, wait=wait)

    # -- reading

    async def wait(self, execution_id: str) -> dict[str, Any]:
        """Wait until the execution has ended, is paused or lost; return its status.

        Raises the error that ended its runner.
        """
        return await self._queries.wait(execution_id)

    def active_executions(self) -> list[ExecutionRunner]:
        """Return the executions that this process runs now."""
        return self._registry.all_active()

    def result_counts(self) -> Counter[str]:
        """Return the results stored here, by status, and `retries`, over all executions."""
        return self._queries.result_counts()

    async def get_execution_status(self, execution_id: str) -> dict[str, Any]:
        """Return the status, JSON-ready: counts, rate, ETA, cost and errors so far.

        Raises ExecutionNotFound. `status` is `lost` when its process ended in the middle: resume
        it.
        """
        return await self._queries.status(execution_id)

    async def list_executions(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the status of the newest executions in the journal."""
        return await self._queries.statuses(limit)

    async def get_execution_results(
        self, execution_id: str, *, ordered: bool = True
    ) -> list[TaskResult]:
        """Return the results so far, in task order or by completion. Raises ExecutionNotFound."""
        return await self._queries.results(execution_id, ordered=ordered)

    def stream_results(
        self, execution_id: str, *, ordered: bool = False, after: int = 0, follow: bool = True
    ) -> AsyncIterator[TaskResult]:
        """Yield each result when it is stored.

        Results come in the order of the tasks if `ordered` (a slow one delays the others). The
        stream ends when the execution has ended, or is paused with no task running; with
        `follow=False` after the last stored result. `after` skips the first ones. Leaving it early
        affects nothing: results are in the journal. Raises ExecutionNotFound.
        """
        return self._queries.stream_results(
            execution_id, ordered=ordered, after=after, follow=follow
        )

    async def get_performance_metrics(self, execution_id: str | None = None) -> dict[str, Any]:
        """Return the figures of an execution (a BatchReport's), or of this executor.

        Those of the executor count running, queued and ended tasks in this process.
        """
        return await self._queries.metrics(execution_id)

    async def get_report(self, execution_id: str) -> BatchReport:
        """Return the report of an execution, final when it has ended. Raises ExecutionNotFound."""
        return await self._queries.report(execution_id)

    async def aggregate(
        self,
        execution_id: str,
        strategy: Literal["preserve", "merge", "custom", "reduce"] = "preserve",
        *,
        agent: AgentExecutor | None = None,
        **options: Any,
    ) -> Any:
        """Combine all results: `aggregate_results`, or `reduce` by an agent (`reduce_results`)."""
        return await self._queries.aggregate(execution_id, strategy, agent=agent, **options)

    # -- controlling

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
        if (runner := self._registry.active(execution_id)) is not None and runner.ending:
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
        self._registry.check_open()
        await self._registry.lease(execution)
        try:
            execution.settings = settings.explicit_settings()
            execution.ended_at = None
            await self._ingest_remaining(execution, settings)
            await self.journal.ack_request(execution_id, pending_request)
            self._registry.check_open()  # it may have been closed meanwhile
        except BaseException:
            await self.journal.save(execution, release=True)
            raise
        self._registry.start(execution, settings, crashed=crashed)

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
            await self._registry.create_ingestor(execution, settings).accept_all(
                read_source(execution.source), skip_journaled=True
            )
        elif not execution.input_closed:
            execution.source["cut"] = True  # the rest of stdin or of a list is lost
        execution.input_closed = True

    async def rerun_failed(self, execution_id: str, **changes: Any) -> int:
        """Run failed, skipped and poisoned tasks of an execution again; return how many.

        The execution must not be running. Successful results stay. Raises as `resume_execution`.
        """
        if self._registry.active(execution_id) is not None:
            raise ExecutionBusy(execution_id, "this process")
        execution = await self.journal.get(execution_id)
        settings = BatchSettings.parse(execution.settings).with_changes(
            **changes
        )  # before anything is changed
        _require_approval(execution, settings)
        await self._registry.lease(execution)
        count = await self.journal.reset(execution_id, execution.token, UNSUCCESSFUL_STATUSES)
        execution.progress = {**execution.progress, "retries": 0}
        execution.status = "paused"
        await self.journal.save(execution, release=True)
        await self.resume_execution(execution_id, **changes)
        return count

    async def pause_execution(self, execution_id: str) -> None:
        """Start no new task until resumed; running ones finish. Works across processes."""
        if (runner := self._registry.active(execution_id)) is not None:
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
        await self._registry.require(execution_id).close()

    async def cancel_execution(
        self, execution_id: str, *, within_s: float = 60.0
    ) -> dict[str, Any]:
        """Cancel an execution and return its status.

        No further task starts; running ones may finish within their grace, and finished results
        stay. When another process runs it, the request is sent there and awaited for `within_s`
        seconds.
        """
        if (runner := self._registry.active(execution_id)) is not None:
            runner.end("cancelled", "asked")
            await runner.wait_closed()
            return await self.get_execution_status(execution_id)
        execution = await self.journal.get(execution_id)
        if execution.is_final:
            return await self.get_execution_status(execution_id)
        try:
            await self._registry.lease(execution)
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
        runner = self._registry.require(execution_id)
        if "max_cost_usd" in changes and runner.active.settings.max_cost_usd is None:
            raise ConfigurationError(
                "the first budget of a batch is given to resume_execution(id, max_cost_usd=...)"
            )
        runner.change_settings(runner.active.settings.with_changes(**changes))
        return runner.active.settings


def _require_approval(execution: Execution, settings: BatchSettings) -> None:
    if needs_approval(execution, settings):
        raise ApprovalRequired(execution.id, execution.forecast or {}, settings.max_cost_usd or 0.0)
