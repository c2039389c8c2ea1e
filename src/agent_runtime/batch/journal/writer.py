"""Batch the updates of an execution's tasks, to write many in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import TaskRow, TaskUpdate
from agent_runtime.errors import StoreError

T = TypeVar("T")
RETRIES_S = (0.05, 0.2, 1.0, 3.0)
"""Seconds before each further attempt at a failed write."""
BATCH_WINDOW_S = 0.003
"""Seconds a write waits for others to join it: a transaction costs more than its contents."""
MAX_BACKLOG = 256
"""So many outcomes may wait to be written; then workers wait too."""


async def retrying(call: Callable[[], Awaitable[T]]) -> T:
    """Call an idempotent operation, retried for a few seconds while it raises StoreError."""
    for wait_s in RETRIES_S:
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(wait_s)
    return await call()


class TaskOutcome:
    """Hold a task's update, and the action after it is stored.

    Report its result, or queue it again.
    """

    __slots__ = ("again", "change", "result")

    def __init__(self, update: TaskUpdate, requeue_row: TaskRow | None = None) -> None:
        self.change = update
        self.result = update.result
        self.again = requeue_row

    @property
    def is_reportable(self) -> bool:
        """Return whether it is more than the start of a task."""
        return self.result is not None or self.again is not None


class JournalWriter:
    """Write outcomes in the order of their arrival and report each one that is stored.

    A failing store is retried for a few seconds; then `run` raises its StoreError, and unwritten
    outcomes are lost here: the journal still lists those tasks as running.
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
        """Return whether the journal is lost when the process ends."""

    def enqueue(self, outcome: TaskOutcome | Callable[[], TaskOutcome]) -> None:
        """Write an outcome soon, or build it first, so that a worker's next task need not wait."""
        self._pending.append(outcome)
        self._idle.clear()
        self._wakeup.set()

    @property
    def busy(self) -> bool:
        """Return whether an outcome is not stored yet."""
        return not self._idle.is_set()

    @property
    def backlogged(self) -> bool:
        """Return whether too many outcomes wait to start further tasks."""
        return len(self._pending) >= MAX_BACKLOG

    async def flush(self) -> None:
        """Wait until all enqueued outcomes are stored; raises the error of `run`."""
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
