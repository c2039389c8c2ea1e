"""How tasks come to an executor, and executions begin."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.auth.caller_names import DEFAULT_TENANT
from agent_runtime.auth.identities import OPERATOR
from agent_runtime.batch.backends import AsyncioBackend, Backend, ProcessBackend
from agent_runtime.batch.caller_rules import CallerRules
from agent_runtime.batch.environment import Shop
from agent_runtime.batch.ingestion import Intake, mapping_of, read_source, source_of
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.owned import OwnedJournal
from agent_runtime.batch.journal.records import Execution, document
from agent_runtime.batch.lease_times import LEASE_S
from agent_runtime.batch.load_balancer import Scheduler
from agent_runtime.batch.queries import ExecutionViews
from agent_runtime.batch.runner import ExecutionRun
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format
from agent_runtime.batch.task import AnyTask
from agent_runtime.errors import (
    ConfigurationError,
    ExecutionLost,
    InputInvalid,
    StoreError,
)
from agent_runtime.errors.user_code import contained, error_text
from agent_runtime.event_bus.dead_letters import DeadLetters, MemoryDeadLetters
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.storage.process_identity import is_process_dead, process_identity

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import Principal

MAX_REMEMBERED = 100
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ExecutionSubmission(ExecutionViews):
    """The half of ParallelAgentExecutor that accepts."""

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
        # Who runs commands is the application itself; its name is given out to nobody.
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
        self._rules = CallerRules(factory, None if is_operator else principal)
        self._dead = dead_letters or MemoryDeadLetters()
        self._backends = list(backends) or [self._backend()]
        scheduler = Scheduler(self._backends, self.settings.scheduling)
        self._shop = Shop(
            factory, self.journal, scheduler, self._dead, process_identity(), principal, credentials
        )
        self._runs: dict[str, ExecutionRun] = {}
        self._feeding: dict[str, asyncio.Task[None]] = {}
        self._intakes: dict[str, Intake] = {}
        self._open = False

    def _backend(self) -> Backend:
        if self.settings.backend == "process":
            return ProcessBackend(self.factory, self.settings.pool, dead_letters=self._dead)
        return AsyncioBackend(self.factory)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            for backend in self._backends:
                await backend.open()
                opened.push_async_callback(backend.aclose)
            self._closing = opened.pop_all()
        self._open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._feeding.values():
            task.cancel()
        await asyncio.gather(*self._feeding.values(), return_exceptions=True)
        self._open = False
        await asyncio.gather(*(run.close() for run in self._runs.values()), return_exceptions=True)
        await self._closing.aclose()

    # -- submitting
    # ----------------------------------------------------------------------------------------

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
        """Accept tasks and begin to run them.

        Returns the execution's id, which begins with a principal's tenant.

        Tasks are a list, a JSONL, CSV or YAML file, or an async iterator. Of the first two every
        task is in the journal when this returns; from an async iterator they are taken as the queue
        has room for them. An item that cannot be a task becomes a failed one. `mapping` makes tasks
        of a file's rows, see InputMapping; `notes` are kept with the execution (JSON).

        Raises InputInvalid for no task at all or an id that is taken, ConfigurationError for an
        agent that cannot be made or a budget without a ledger, QueueFull never.
        """
        changes = {"max_concurrent": max_concurrent, "max_cost_usd": max_cost_usd}
        settings = self.settings.with_changes(**{k: v for k, v in changes.items() if v is not None})
        chosen = execution_id or f"b{uuid.uuid4().hex[:12]}"
        if not _ID.fullmatch(chosen):
            raise InputInvalid(
                "an execution's id is 1 to 64 ASCII letters, digits, _ and -", "execution_id"
            )
        own_id = self.journal.id_of(chosen) if isinstance(self.journal, OwnedJournal) else chosen
        execution = Execution(own_id, settings.given(), name=name, agent=agent)
        self._rules.check_source(tasks, agent)
        execution.source = source_of(tasks, file_format, mapping) | {"notes": dict(notes or {})}
        try:
            document(execution)
        except (TypeError, ValueError) as error:
            raise InputInvalid(f"an execution's notes are JSON: {error}", "notes") from None
        self._check_open()
        if not await self.journal.create(execution):
            raise InputInvalid(
                f"there is an execution '{execution.id}' already: resume it, or give another id"
            )
        try:
            await self._lease(execution)
            intake = self._intake(execution, settings)
            if not isinstance(tasks, AsyncIterable):
                rows = (
                    read_source(execution.source) if isinstance(tasks, str | Path) else iter(tasks)
                )
                await intake.accept_all(rows)
                execution.sealed = True
            await self.journal.save(execution)
            self._check_open()
        except ExecutionLost:  # it is another process's now
            raise
        except BaseException:
            await self.journal.delete(execution.id)
            self._forget(execution.id)
            raise
        run = self._start(execution, settings)
        if isinstance(tasks, AsyncIterable):
            feeding = self._feeding[execution.id] = asyncio.create_task(
                self._feed(run, aiter(tasks))
            )
            run.when_over(feeding.cancel)
        return execution.id

    def _check_open(self) -> None:
        if not self._open:
            raise ConfigurationError(
                "the executor is not open: `async with ParallelAgentExecutor(...) as executor:`"
            )

    def _forget(self, execution_id: str) -> None:
        for seat in self._shop.scheduler.seats:
            seat.backend.forget(execution_id)
        for kept in (self._runs, self._intakes, self._feeding):
            kept.pop(execution_id, None)

    def _intake(self, execution: Execution, settings: BatchSettings) -> Intake:
        mapping = mapping_of(execution, self.factory)
        made = Intake(self.journal, self._shop.scheduler, settings, execution, mapping, self._rules)
        self._intakes[execution.id] = made
        return made

    async def submit_task(self, execution_id: str, task: AnyTask, *, wait: bool = True) -> None:
        """Add a task to an execution whose input is still open.

        Waits while the queue is full; with `wait=False` it raises QueueFull instead. When it
        returns the task is in the journal. Raises InputInvalid when the execution is not run here
        or takes no more.
        """
        run = self._taking(execution_id)
        await run.loaded.wait()
        if wait:
            await run.queue.promise()
        else:
            run.queue.promise_now()
        # A caller who goes away does not know whether the journal has it: then it is accepted.
        await asyncio.shield(asyncio.ensure_future(self._accepted(run, task)))

    async def _accepted(self, run: ExecutionRun, task: AnyTask) -> None:
        try:
            self._taking(run.execution.id)  # it may have ended while it waited for room
            (row,) = await self._intakes[run.execution.id].accept([task])
        except BaseException as error:
            if isinstance(
                error, StoreError
            ):  # nobody knows whether it is in the journal: a resume will see
                run.failed(error)
            run.forgo()
            raise
        await run.take_in(row)

    def _taking(self, execution_id: str) -> ExecutionRun:
        run = self._runs.get(execution_id)
        if run is None or run.execution.sealed or run.ending:
            raise InputInvalid(f"the execution '{execution_id}' takes no more tasks here")
        return run

    async def _feed(self, run: ExecutionRun, tasks: AsyncIterator[AnyTask]) -> None:
        try:
            async for task in tasks:
                await self.submit_task(run.execution.id, task)
            run.execution.sealed = True
            await self.journal.save(run.execution)
        except StoreError as error:
            run.failed(error)
        except BaseException as error:  # noqa: BLE001 - the producer's own
            failure = contained(error)
            text = f"the producer failed: {type(failure).__name__}: {error_text(failure)}"
            run.producer_failed = SECRETS.text(text)[:200]
        finally:
            if isinstance(tasks, AsyncGenerator):
                await tasks.aclose()
        run.check_end()
        run.feeder.look()

    # -- running
    # -------------------------------------------------------------------------------------------

    async def _lease(self, execution: Execution) -> None:
        # One that this process has given up without being able to say so is nobody's.
        here = execution.owner == self._shop.owner and self._running(execution.id) is None
        dead = execution.owner if here or is_process_dead(execution.owner) else ""
        owner = self._shop.owner
        execution.token = await self.journal.lease(execution.id, owner, LEASE_S, dead=dead)
        execution.owner = owner

    def _start(
        self, execution: Execution, settings: BatchSettings, *, crashed: bool = False
    ) -> ExecutionRun:
        over = [name for name, run in self._runs.items() if run.ended]
        for name in over[: max(0, len(over) - MAX_REMEMBERED)]:  # the journal knows them
            self._forget(name)
        run = self._runs[execution.id] = ExecutionRun(
            self._shop, execution, settings, crashed=crashed
        )
        run.start()
        return run
