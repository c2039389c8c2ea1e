"""Gathers what becomes of an execution's tasks.

One trip to the journal for all that has happened meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import Change, TaskRow
from agent_runtime.errors import StoreError

T = TypeVar("T")
RETRIES_S = (0.05, 0.2, 1.0, 3.0)
"""How long to wait before writing again what a store did not take."""
GATHER_S = 0.003
"""What is to be written waits so long for others to come along.

A trip to a store costs more than what it carries.
"""
BEHIND = 256
"""So many outcomes may wait to be written; then workers wait too."""


async def insisted(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns; asked again for a few seconds while it raises StoreError.

    For what may be repeated.
    """
    for wait_s in RETRIES_S:
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(wait_s)
    return await call()


class Outcome:
    """What is to be written of a task, and done when it is.

    Its result told, or the task queued again.
    """

    __slots__ = ("again", "change", "result")

    def __init__(self, change: Change, again: TaskRow | None = None) -> None:
        self.change = change
        self.result = change.result
        self.again = again

    @property
    def news(self) -> bool:
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
        on_kept: Callable[[Sequence[Outcome]], None],
    ) -> None:
        self._journal = journal
        self._execution_id = execution_id
        self._token = token
        self._on_kept = on_kept
        self._waiting: list[Outcome | Callable[[], Outcome]] = []
        self._came = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._error = cast("Exception | None", None)
        self.volatile = journal.volatile
        """Whether what is written is gone with the process."""

    def put(self, outcome: Outcome | Callable[[], Outcome]) -> None:
        """Write it soon. What makes an outcome is called then.

        A worker's next task need not wait for it.
        """
        self._waiting.append(outcome)
        self._idle.clear()
        self._came.set()

    @property
    def busy(self) -> bool:
        """Whether something is not kept yet."""
        return not self._idle.is_set()

    @property
    def behind(self) -> bool:
        """Whether so much waits to be written that no more should be begun."""
        return len(self._waiting) >= BEHIND

    async def written(self) -> None:
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
            await self._came.wait()
            self._came.clear()
            if not self._closing:
                await asyncio.sleep(GATHER_S)
            while self._waiting:
                given = self._waiting
                self._waiting = []
                outcomes = [each if isinstance(each, Outcome) else each() for each in given]
                await self._write([each.change for each in outcomes])
                if not self._waiting:
                    self._idle.set()
                if news := [each for each in outcomes if each.news]:
                    self._on_kept(news)
            if self._closing:
                return

    async def _write(self, changes: Sequence[Change]) -> None:
        await insisted(lambda: self._journal.write(self._execution_id, self._token, changes))

    def close(self) -> None:
        """End `run` when everything is written."""
        self._closing = True
        self._came.set()
