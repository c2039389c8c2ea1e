"""Gathers what becomes of an execution's tasks.

One trip to the journal for all that has happened meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import TaskRow, TaskUpdate
from agent_runtime.errors import StoreError

T = TypeVar("T")
RETRIES_S = (0.05, 0.2, 1.0, 3.0)
"""How long to wait before writing again what a store did not take."""
BATCH_WINDOW_S = 0.003
"""What is to be written waits so long for others to come along.

A trip to a store costs more than what it carries.
"""
MAX_BACKLOG = 256
"""So many outcomes may wait to be written; then workers wait too."""


async def retrying(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns; asked again for a few seconds while it raises StoreError.

    For what may be repeated.
    """
    for wait_s in RETRIES_S:
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(wait_s)
    return await call()


class TaskOutcome:
    """What is to be written of a task, and done when it is.

    Its result told, or the task queued again.
    """

    __slots__ = ("again", "change", "result")

    def __init__(self, update: TaskUpdate, requeue_row: TaskRow | None = None) -> None:
        self.change = update
        self.result = update.result
        self.again = requeue_row

    @property
    def is_reportable(self) -> bool:
        """Whether it is more than that the task runs."""
        return self.result is not None or self.again is not None


class JournalWriter:
    """Writes outcomes in the order of their arrival and reports each one that is stored.

    A store that fails is asked again for a few seconds; then `run` raises its StoreError, and what
    was not written is lost here: the journal says that those tasks run.
    """

    def __init__(
        self,
        journal: Journal,
        execution_id: str,
        token: int,
        on_persisted: Callable[[Sequence[TaskOutcome]], None],
    ) -> None:
        self._journal = journal
        self._execution_id = execution_id
        self._token = token
        self._on_persisted = on_persisted
        self._pending: list[TaskOutcome | Callable[[], TaskOutcome]] = []
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._error = cast("Exception | None", None)
        self.ephemeral = journal.ephemeral
        """Whether what is written is gone with the process."""

    def enqueue(self, outcome: TaskOutcome | Callable[[], TaskOutcome]) -> None:
        """Write it soon. What makes an outcome is called then.

        A worker's next task need not wait for it.
        """
        self._pending.append(outcome)
        self._idle.clear()
        self._wakeup.set()

    @property
    def busy(self) -> bool:
        """Whether something is not kept yet."""
        return not self._idle.is_set()

    @property
    def backlogged(self) -> bool:
        """Whether so much waits to be written that no more should be begun."""
        return len(self._pending) >= MAX_BACKLOG

    async def flush(self) -> None:
        """Wait until everything that was put is kept; raises what `run` has raised."""
        await self._idle.wait()
        if self._error is not None:
            raise self._error

    async def run(self) -> None:
        """Write until `close`; raises ExecutionLost, StoreError."""
        try:
            await self._run()
        except Exception as error:
            self._error = error
            self._idle.set()
            raise

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            if not self._closing:
                await asyncio.sleep(BATCH_WINDOW_S)
            while self._pending:
                pending_outcomes = self._pending
                self._pending = []
                outcomes = [
                    outcome if isinstance(outcome, TaskOutcome) else outcome()
                    for outcome in pending_outcomes
                ]
                await self._write([outcome.change for outcome in outcomes])
                if not self._pending:
                    self._idle.set()
                if reportable := [outcome for outcome in outcomes if outcome.is_reportable]:
                    self._on_persisted(reportable)
            if self._closing:
                return

    async def _write(self, changes: Sequence[TaskUpdate]) -> None:
        await retrying(lambda: self._journal.write(self._execution_id, self._token, changes))

    def close(self) -> None:
        """End `run` when everything is written."""
        self._closing = True
        self._wakeup.set()
