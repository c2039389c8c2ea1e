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
)
from pathlib import Path
from typing import Any

from agent_runtime.batch.execution_registry import ExecutionRegistry
from agent_runtime.batch.ingestion import describe_source, read_source
from agent_runtime.batch.journal.owned import OwnedJournal
from agent_runtime.batch.journal.records import Execution, execution_document
from agent_runtime.batch.runner import ExecutionRunner
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.batch.sources import Format
from agent_runtime.batch.task import AnyTask
from agent_runtime.errors import ExecutionLost, InputInvalid, StoreError
from agent_runtime.errors.user_code import as_user_exception, error_text
from agent_runtime.secrets.redaction import SECRETS

_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ExecutionSubmission:
    """Accept tasks of new executions, and further ones of those whose input is open."""

    def __init__(self, registry: ExecutionRegistry) -> None:
        self._registry = registry
        self._journal = registry.environment.journal

    async def submit(
        self,
        tasks: str | Path | Iterable[AnyTask] | AsyncIterable[AnyTask],
        settings: BatchSettings,
        *,
        agent: str = "",
        mapping: Mapping[str, str] | None = None,
        file_format: Format | None = None,
        execution_id: str | None = None,
        name: str = "",
        notes: Mapping[str, Any] | None = None,
    ) -> str:
        """Accept tasks and start to run them; return the execution's id.

        Arguments and errors are those of `ParallelAgentExecutor.submit_batch_tasks`.
        """
        requested_id = execution_id or f"b{uuid.uuid4().hex[:12]}"
        if not _ID_PATTERN.fullmatch(requested_id):
            raise InputInvalid(
                "an execution's id is 1 to 64 ASCII letters, digits, _ and -", "execution_id"
            )
        journal_id = (
            self._journal.qualified_id(requested_id)
            if isinstance(self._journal, OwnedJournal)
            else requested_id
        )
        execution = Execution(journal_id, settings.explicit_settings(), name=name, agent=agent)
        self._registry.caller_rules.check_source(tasks, agent)
        execution.source = describe_source(tasks, file_format, mapping) | {
            "notes": dict(notes or {})
        }
        try:
            execution_document(execution)
        except (TypeError, ValueError) as error:
            raise InputInvalid(f"an execution's notes are JSON: {error}", "notes") from None
        self._registry.check_open()
        if not await self._journal.create(execution):
            raise InputInvalid(
                f"there is an execution '{execution.id}' already: resume it, or give another id"
            )
        try:
            await self._registry.lease(execution)
            ingestor = self._registry.create_ingestor(execution, settings)
            if not isinstance(tasks, AsyncIterable):
                items = (
                    read_source(execution.source) if isinstance(tasks, str | Path) else iter(tasks)
                )
                await ingestor.accept_all(items)
                execution.input_closed = True
            await self._journal.save(execution)
            self._registry.check_open()
        except ExecutionLost:  # it is another process's now
            raise
        except BaseException:
            await self._journal.delete(execution.id)
            self._registry.forget(execution.id)
            raise
        runner = self._registry.start(execution, settings)
        if isinstance(tasks, AsyncIterable):
            producer_task = self._registry.producer_tasks[execution.id] = asyncio.create_task(
                self._consume_producer(runner, aiter(tasks))
            )
            runner.on_ended(producer_task.cancel)
        return execution.id

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
            (row,) = await self._registry.ingestors[runner.active.execution.id].accept([task])
        except BaseException as error:
            if isinstance(
                error, StoreError
            ):  # unknown whether it is in the journal: a resume will see
                runner.fail(error)
            runner.release_slot()
            raise
        await runner.accept(row)

    def _accepting_runner(self, execution_id: str) -> ExecutionRunner:
        runner = self._registry.get(execution_id)
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
            await self._journal.save(runner.active.execution)
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
