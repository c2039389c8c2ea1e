"""ParallelAgentExecutor: thousands of agent tasks, and nothing lost to a crash."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.batch.backends import AsyncioBackend, Backend, ProcessBackend
from agent_runtime.batch.execution import ExecutionRun, Shop
from agent_runtime.batch.intake import Intake, mapping_of, read_source, source_of
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.records import Execution
from agent_runtime.batch.owner import LEASE_S, is_dead, owner_name
from agent_runtime.batch.result import UNSUCCESSFUL
from agent_runtime.batch.scheduling import Scheduler
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format
from agent_runtime.batch.task import AnyTask
from agent_runtime.batch.views import POLL_S, ExecutionViews
from agent_runtime.errors import ConfigurationError, ExecutionBusy, InputInvalid
from agent_runtime.event_bus.dead_letters import DeadLetters, MemoryDeadLetters
from agent_runtime.redaction import SECRETS

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import Principal

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ParallelAgentExecutor(ExecutionViews):
    """Runs batches of agent tasks, many at once, from a journal that survives this process.

    Each task is one call of its agent, through every layer that the factory gives it. `async with` opens the backends;
    leaving it stops what still runs, within its grace: the journal knows how to go on.

    Args:
        factory: makes the agents.
        settings: for executions that do not say otherwise.
        journal: where everything is kept: in memory by default; `open_journal("sqlite:FILE")` survives a crash.
        backends: where tasks run; by default the one that the settings name. They are opened and closed here.
        dead_letters: where tasks go that end their workers again and again.
        principal, credentials: who calls; credentials are never written down.
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
        self.factory, self.settings = factory, settings or BatchSettings()
        self.journal = journal or MemoryJournal()
        self._dead = dead_letters or MemoryDeadLetters()
        self._backends = list(backends) or [self._backend()]
        scheduler = Scheduler(self._backends, self.settings.scheduling)
        self._shop = Shop(factory, self.journal, scheduler, self._dead, owner_name(), principal, credentials)
        self._runs: dict[str, ExecutionRun] = {}
        self._feeding: dict[str, asyncio.Task[None]] = {}
        self._intakes: dict[str, Intake] = {}
        self._open = False

    def _backend(self) -> Backend:
        if self.settings.backend == "process":
            return ProcessBackend(self.factory, self.settings.pool, dead_letters=self._dead)
        return AsyncioBackend(self.factory)

    async def __aenter__(self) -> Self:
        for backend in self._backends:
            await backend.open()
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._feeding.values():
            task.cancel()
        await asyncio.gather(*self._feeding.values(), return_exceptions=True)
        await asyncio.gather(*(run.close() for run in self._runs.values()), return_exceptions=True)
        for backend in self._backends:
            await backend.aclose()

    # -- submitting ----------------------------------------------------------------------------------------

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
        """Accept tasks and begin to run them; returns the execution's id.

        Tasks are a list, a JSONL, CSV or YAML file, or an async iterator. Of the first two every task is in the journal
        when this returns; from an async iterator they are taken as the queue has room for them. An item that cannot be
        a task becomes a failed one. `mapping` makes tasks of a file's rows, see InputMapping; `notes` are kept with
        the execution (JSON).

        Raises InputInvalid for no task at all or an id that is taken, ConfigurationError for an agent that cannot be
        made or a budget without a ledger, QueueFull never.
        """
        changes = {"max_concurrent": max_concurrent, "max_cost_usd": max_cost_usd}
        settings = self.settings.with_changes(**{k: v for k, v in changes.items() if v is not None})
        execution = Execution(execution_id or f"b{uuid.uuid4().hex[:12]}", settings.given(), name=name, agent=agent)
        if not _ID.fullmatch(execution.id):
            raise InputInvalid("an execution's id is 1 to 64 ASCII letters, digits, _ and -", "execution_id")
        execution.source = source_of(tasks, file_format, mapping) | {"notes": dict(notes or {})}
        if not self._open:
            raise ConfigurationError("the executor is not open: `async with ParallelAgentExecutor(...) as executor:`")
        if not await self.journal.create(execution):
            raise InputInvalid(f"there is an execution '{execution.id}' already: resume it, or give another id")
        try:
            await self._lease(execution)
            intake = self._intake(execution, settings)
            if not isinstance(tasks, AsyncIterable):
                rows = read_source(execution.source) if isinstance(tasks, str | Path) else iter(tasks)
                await intake.accept_all(rows)
                execution.sealed = True
            await self.journal.save(execution)
        except BaseException:
            await self.journal.delete(execution.id)
            raise
        self._start(execution, settings)
        if isinstance(tasks, AsyncIterable):
            self._feeding[execution.id] = asyncio.create_task(self._feed(execution.id, aiter(tasks)))
        return execution.id

    def _intake(self, execution: Execution, settings: BatchSettings) -> Intake:
        mapping = mapping_of(execution, self.factory)
        scheduler = self._shop.scheduler
        made = Intake(self.journal, scheduler, settings, execution.id, agent=execution.agent, mapping=mapping)
        self._intakes[execution.id] = made
        return made

    async def submit_task(self, execution_id: str, task: AnyTask, *, wait: bool = True) -> None:
        """Add a task to an execution that takes more (`submit_batch_tasks` of an async iterator that has not ended).

        Waits while the queue is full; with `wait=False` it raises QueueFull instead. When it returns the task is in the
        journal. Raises InputInvalid when the execution is not run here or takes no more.
        """
        run = self._runs.get(execution_id)
        if run is None or run.execution.sealed or run.ended:
            raise InputInvalid(f"the execution '{execution_id}' takes no more tasks here")
        if wait:
            await run.queue.promise()
        else:
            run.queue.promise_now()
        try:
            (row,) = await self._intakes[execution_id].accept([task])
        except BaseException:
            run.queue.forgo()
            raise
        await run.take_in(row)

    async def _feed(self, execution_id: str, tasks: AsyncIterator[AnyTask]) -> None:
        run = self._runs[execution_id]
        try:
            async for task in tasks:
                await self.submit_task(execution_id, task)
        except Exception as error:  # noqa: BLE001 - the producer's own
            run.producer_failed = SECRETS.text(f"the producer failed: {type(error).__name__}: {error}")[:200]
            run.check_end()
        else:
            run.execution.sealed = True
            await self.journal.save(run.execution)
            run.check_end()
            run.feeder.look()

    # -- running -------------------------------------------------------------------------------------------

    async def _lease(self, execution: Execution) -> None:
        force = bool(execution.owner) and is_dead(execution.owner)
        now_s, owner = time.time(), self._shop.owner
        token = await self.journal.lease(execution.id, owner, now_s, now_s + LEASE_S, force=force)
        execution.token, execution.owner = token, owner

    def _start(self, execution: Execution, settings: BatchSettings) -> ExecutionRun:
        run = self._runs[execution.id] = ExecutionRun(self._shop, execution, settings)
        run.start()
        return run

    async def resume_execution(
        self, execution_id: str, *, max_cost_usd: float | None = None, approve: bool = False, **changes: Any
    ) -> None:
        """Go on with an execution that is paused, or whose process is gone: what has ended is not run again.

        `max_cost_usd` is its new budget, in all; `approve` goes on although the forecast is above the budget; further
        settings replace those that it was submitted with. Raises ExecutionNotFound, ExecutionBusy while another
        process runs it, ConfigurationError.
        """
        if max_cost_usd is not None:
            changes["max_cost_usd"] = max_cost_usd
        if (run := self._running(execution_id)) is not None:
            run.execution.approved |= approve
            run.change_settings(run.settings.with_changes(**changes))
            await run.go_on()
            return
        execution = await self.journal.get(execution_id)
        settings = BatchSettings.parse(execution.settings).with_changes(**changes)
        await self._lease(execution)
        execution.settings, execution.ended_s = settings.given(), None
        execution.approved |= approve
        await self._accept_rest(execution, settings)
        await self.journal.want(execution_id, "")
        self._start(execution, settings)

    async def _accept_rest(self, execution: Execution, settings: BatchSettings) -> None:
        """Of a file whose tasks were being accepted when the process ended, take the others too."""
        if not execution.sealed and execution.source.get("path", "-") != "-":
            intake = self._intake(execution, settings)
            intake.seq = sum((await self.journal.counts(execution.id)).values())
            rest = list(islice(read_source(execution.source), intake.seq, None))
            if rest or not intake.seq:
                await intake.accept_all(rest)
        execution.sealed = True

    async def rerun_failed(self, execution_id: str, **changes: Any) -> int:
        """Run again what failed, was left out or put aside, of an execution that is not running; returns how many.

        Results of what succeeded stay. Raises as `resume_execution`.
        """
        if self._running(execution_id) is not None:
            raise ExecutionBusy(execution_id, "this process")
        execution = await self.journal.get(execution_id)
        await self._lease(execution)
        count = await self.journal.reset(execution_id, execution.token, UNSUCCESSFUL)
        await self.journal.save(execution, release=True)
        await self.resume_execution(execution_id, **changes)
        return count

    async def pause_execution(self, execution_id: str) -> None:
        """Begin no new task until it is resumed; those that run go on. Another process is asked to."""
        if (run := self._running(execution_id)) is not None:
            await run.pause()
        else:
            await self.journal.want(execution_id, "pause")

    async def suspend_execution(self, execution_id: str) -> None:
        """Stop running an execution here, when its tasks have ended or after their grace; anybody may resume it.

        Raises InputInvalid when it is not run here.
        """
        await self._run_here(execution_id).close()

    async def cancel_execution(self, execution_id: str, *, within_s: float = 60.0) -> dict[str, Any]:
        """Begin no new task at once, let running ones end within their grace, stop the others; returns the status.

        Results of what finished stay. Another process that runs it is asked to, and waited for `within_s` seconds.
        """
        if (run := self._running(execution_id)) is not None:
            run.end("cancelled", "asked")
            await run.closed()
            return await self.get_execution_status(execution_id)
        execution = await self.journal.get(execution_id)
        if execution.over:
            return await self.get_execution_status(execution_id)
        try:
            await self._lease(execution)
        except ExecutionBusy:
            await self.journal.want(execution_id, "cancel")
            until_s = time.monotonic() + within_s
            while not (await self.journal.get(execution_id)).over and time.monotonic() < until_s:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S / 2)
        else:
            execution.state, execution.why, execution.ended_s = "cancelled", "asked", time.time()
            await self.journal.save(execution, release=True)
        return await self.get_execution_status(execution_id)

    def configure_parallel_settings(self, execution_id: str | None = None, **changes: Any) -> BatchSettings:
        """Change the settings: of executions submitted from now on, or of one that runs here; returns them.

        Of one that runs `max_concurrent`, time limits, retries and what is done about errors change at once; its queue
        and its backends stay as they are. Raises ConfigurationError.
        """
        if execution_id is None:
            self.settings = self.settings.with_changes(**changes)
            return self.settings
        run = self._run_here(execution_id)
        run.change_settings(run.settings.with_changes(**changes))
        return run.settings
