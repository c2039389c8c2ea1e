"""Which events a consumer has handled, by id."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

from agent_runtime.storage import SqliteFile
from agent_runtime.storage.operations import operation
from agent_runtime.storage.sqlite_schema import StoreSchema


@runtime_checkable
class DeduplicationStore(Protocol):
    """Remembers the names of handled events for a while.

    Methods raise StoreError when the store fails.
    """

    def contains(self, consumer: str, name: str) -> Awaitable[bool]:
        """Tell whether the consumer has handled the event of this name."""

    def add(self, consumer: str, name: str) -> Awaitable[None]:
        """Record that the consumer has handled it."""

    async def aclose(self) -> None:
        """Close the store."""


class MemoryDeduplicationStore:
    """Store the last `max_ids` in this process, for repetitions after a lost connection."""

    def __init__(self, *, max_ids: int = 100_000) -> None:
        self._ids: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._max_ids = max_ids

    async def contains(self, consumer: str, name: str) -> bool:
        """Tell whether the consumer has handled the event of this name."""
        return (consumer, name) in self._ids

    async def add(self, consumer: str, name: str) -> None:
        """Record that the consumer has handled it."""
        self._ids[consumer, name] = None
        if len(self._ids) > self._max_ids:
            self._ids.popitem(last=False)

    async def aclose(self) -> None:
        """Do nothing: there is no resource to close."""


class SqliteDeduplicationStore(SqliteFile):
    """Store ids in a SQLite file for `retention_s` seconds: they survive a killed process."""

    SCHEMA = StoreSchema(
        "seen_ids",
        """
    CREATE TABLE IF NOT EXISTS seen_ids (
      consumer TEXT NOT NULL, id TEXT NOT NULL, at_s REAL NOT NULL, PRIMARY KEY (consumer,
          id)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS seen_ids_at ON seen_ids (at_s);
    """,
    )

    def __init__(self, path: str, *, retention_s: float = 7 * 86400.0) -> None:
        super().__init__(path)
        self._retention_s = retention_s

    @operation
    def contains(self, consumer: str, name: str) -> bool:
        """Tell whether the consumer has handled the event of this name."""
        sql = "SELECT 1 FROM seen_ids WHERE consumer = ? AND id = ?"
        return self._db.execute(sql, [consumer, name]).fetchone() is not None

    @operation
    def add(self, consumer: str, name: str) -> None:
        """Record that the consumer has handled it."""
        now = time.time()
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO seen_ids VALUES (?, ?, ?)", [consumer, name, now])
            # A few with each write, which keeps every deletion short.
            db.execute(
                "DELETE FROM seen_ids WHERE (consumer, id) IN "
                "(SELECT consumer, id FROM seen_ids WHERE at_s < ? ORDER BY at_s LIMIT 10)",
                [self._deletion_time() - self._retention_s],
            )
