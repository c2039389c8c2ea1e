"""Gathers what the workers of an execution write: one trip to the journal for all who wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import Change
from agent_runtime.errors import StoreError

RETRIES_S = (0.05, 0.2, 1.0, 3.0)
"""How long to wait before writing again what a store did not take."""


class JournalWriter:
    """Writes changes in the order in which they are given; whoever gave some waits until they are kept.

    A store that fails is asked again for a few seconds; then `write` raises its StoreError.
    """

    def __init__(self, journal: Journal, execution_id: str, token: int) -> None:
        self._journal, self._execution_id, self._token = journal, execution_id, token
        self._changes: list[Change] = []
        self._kept: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def write(self, changes: Sequence[Change]) -> None:
        """Keep changes. A cancelled caller's are kept all the same. Raises ExecutionLost, StoreError."""
        if self._journal.instant:
            await self._journal.write(self._execution_id, self._token, changes)
            return
        self._changes += changes
        if self._kept is None:
            self._kept = asyncio.get_running_loop().create_future()
        kept = self._kept
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await asyncio.shield(kept)

    async def _write(self) -> None:
        while self._kept is not None:
            changes, kept = self._changes, self._kept
            self._changes, self._kept = [], None
            try:
                await self._written(changes)
            except Exception as error:  # noqa: BLE001 - carried to all who wait
                kept.set_exception(error)
                kept.exception()  # a cancelled caller does not fetch it
            else:
                kept.set_result(None)
        self._writing = None

    async def _written(self, changes: Sequence[Change]) -> None:
        for wait_s in RETRIES_S:
            try:
                await self._journal.write(self._execution_id, self._token, changes)
            except StoreError:
                await asyncio.sleep(wait_s)
            else:
                return
        await self._journal.write(self._execution_id, self._token, changes)

    async def aclose(self) -> None:
        """Wait until everything is kept, or has failed."""
        if self._writing is not None:
            with suppress(Exception):
                await self._writing
