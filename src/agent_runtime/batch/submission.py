"""Accept tasks and start executions."""

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
from agent_runtime.batch.environment import BatchEnvironment
from agent_runtime.batch.ingestion import (
    TaskIngestor,
    describe_source,
    input_mapping_for,
    read_source,
)
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.owned import OwnedJournal
from agent_runtime.batch.journal.records import Execution, execution_document
from agent_runtime.batch.lease_times import LEASE_S
from agent_runtime.batch.load_balancer import LoadBalancer
from agent_runtime.batch.queries import ExecutionQueries
from agent_runtime.batch.runner import ExecutionRunner
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format
from agent_runtime.batch.task import AnyTask
from agent_runtime.errors import (
    ConfigurationError,
    ExecutionLost,
    InputInvalid,
    StoreError,
)
from agent_runtime.errors.user_code import as_user_exception, error_text
from agent_runtime.event_bus.dead_letter import DeadLetters
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.storage.process_identity import is_process_dead, process_identity

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import Principal

MAX_ENDED_RUNNERS = 100
_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ExecutionSubmission(ExecutionQueries):
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
        self._caller_rules = CallerRules(factory, None if is_operator else principal)
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
        self._runners: dict[str, ExecutionRunner] = {}
        self._producer_tasks: dict[str, asyncio.Task[None]] = {}
        self._ingestors: dict[str, TaskIngestor] = {}
        self._is_open = False

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
        self._is_open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._producer_tasks.values():
            task.cancel()
        await asyncio.gather(*self._producer_tasks.values(), return_exceptions=True)
        self._is_open = False
        await asyncio.gather(
            *(runner.close() for runner in self._runners.values()), return_exceptions=True
        )
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
        requested_id = execution_id or f"b{uuid.uuid4().hex[:12]}"
        if not _ID_PATTERN.fullmatch(requested_id):
            raise InputInvalid(
                "an execution's id is 1 to 64 ASCII letters, digits, _ and -", "execution_id"
            )
        journal_id = (
            self.journal.qualified_id(requested_id)
            if isinstance(self.journal, OwnedJournal)
            else requested_id
        )
        execution = Execution(journal_id, settings.explicit_settings(), name=name, agent=agent)
        self._caller_rules.check_source(tasks, agent)
        execution.source = describe_source(tasks, file_format, mapping) | {
            "notes": dict(notes or {})
        }
        try:
            execution_document(execution)
        except (TypeError, ValueError) as error:
            raise InputInvalid(f"an execution's notes are JSON: {error}", "notes") from None
        self._check_open()
        if not await self.journal.create(execution):
            raise InputInvalid(
                f"there is an execution '{execution.id}' already: resume it, or give another id"
            )
        try:
            await self._lease(execution)
            ingestor = self._create_ingestor(execution, settings)
            if not isinstance(tasks, AsyncIterable):
                items = (
                    read_source(execution.source) if isinstance(tasks, str | Path) else iter(tasks)
                )
                await ingestor.accept_all(items)
                execution.input_closed = True
            await self.journal.save(execution)
            self._check_open()
        except ExecutionLost:  # it is another process's now
            raise
        except BaseException:
            await self.journal.delete(execution.id)
            self._forget(execution.id)
            raise
        runner = self._start(execution, settings)
        if isinstance(tasks, AsyncIterable):
            producer_task = self._producer_tasks[execution.id] = asyncio.create_task(
                self._consume_producer(runner, aiter(tasks))
            )
            runner.on_ended(producer_task.cancel)
        return execution.id

    def _check_open(self) -> None:
        if not self._is_open:
            raise ConfigurationError(
                "the executor is not open: `async with ParallelAgentExecutor(...) as executor:`"
            )

    def _forget(self, execution_id: str) -> None:
        for slot in self._environment.load_balancer.backend_slots:
            slot.backend.forget(execution_id)
        for registry in (self._runners, self._ingestors, self._producer_tasks):
            registry.pop(execution_id, None)

    def _create_ingestor(self, execution: Execution, settings: BatchSettings) -> TaskIngestor:
        mapping = input_mapping_for(execution, self.factory)
        ingestor = TaskIngestor(
            self.journal,
            self._environment.load_balancer,
            settings,
            execution,
            mapping,
            self._caller_rules,
        )
        self._ingestors[execution.id] = ingestor
        return ingestor

    async def submit_task(self, execution_id: str, task: AnyTask, *, wait: bool = True) -> None:
        """Add a task to an execution whose input is open.

        Waits while the queue is full, or raises QueueFull with `wait=False`. When it returns the
        task is in the journal. Raises InputInvalid when the execution is not run here or its input
        is closed.
        """
        runner = self._accepting_runner(execution_id)
        await runner.loaded.wait()
        if wait:
            await runner.active.queue.reserve()
        else:
            runner.active.queue.reserve_nowait()
        # A cancelled caller cannot know whether the journal has the task, so it is accepted.
        await asyncio.shield(asyncio.ensure_future(self._accept_reserved(runner, task)))

    async def _accept_reserved(self, runner: ExecutionRunner, task: AnyTask) -> None:
        try:
            self._accepting_runner(
                runner.active.execution.id
            )  # it may have ended while it waited for room
            (row,) = await self._ingestors[runner.active.execution.id].accept([task])
        except BaseException as error:
            if isinstance(
                error, StoreError
            ):  # unknown whether it is in the journal: a resume will see
                runner.fail(error)
            runner.release_slot()
            raise
        await runner.accept(row)

    def _accepting_runner(self, execution_id: str) -> ExecutionRunner:
        runner = self._runners.get(execution_id)
        if runner is None or runner.active.execution.input_closed or runner.ending:
            raise InputInvalid(f"the execution '{execution_id}' takes no more tasks here")
        return runner

    async def _consume_producer(
        self, runner: ExecutionRunner, tasks: AsyncIterator[AnyTask]
    ) -> None:
        try:
            async for task in tasks:
                await self.submit_task(runner.active.execution.id, task)
            runner.active.execution.input_closed = True
            await self.journal.save(runner.active.execution)
        except StoreError as error:
            runner.fail(error)
        except BaseException as error:  # noqa: BLE001 - the producer's own
            failure = as_user_exception(error)
            text = f"the producer failed: {type(failure).__name__}: {error_text(failure)}"
            runner.active.producer_failed = SECRETS.text(text)[:200]
        finally:
            if isinstance(tasks, AsyncGenerator):
                await tasks.aclose()
        runner.finish_if_done()
        runner.prefetcher.wake()

    # -- running

    async def _lease(self, execution: Execution) -> None:
        # This process has given it up without being able to record that, so anyone may take it.
        is_abandoned_here = (
            execution.owner == self._environment.owner and self._active_runner(execution.id) is None
        )
        dead_owner = (
            execution.owner if is_abandoned_here or is_process_dead(execution.owner) else ""
        )
        owner = self._environment.owner
        execution.token = await self.journal.lease(execution.id, owner, LEASE_S, dead=dead_owner)
        execution.owner = owner

    def _start(
        self, execution: Execution, settings: BatchSettings, *, crashed: bool = False
    ) -> ExecutionRunner:
        ended_ids = [ended_id for ended_id, runner in self._runners.items() if runner.ended]
        for ended_id in ended_ids[
            : max(0, len(ended_ids) - MAX_ENDED_RUNNERS)
        ]:  # the journal knows them
            self._forget(ended_id)
        runner = self._runners[execution.id] = ExecutionRunner(
            self._environment, execution, settings, crashed=crashed
        )
        runner.start()
        return runner
