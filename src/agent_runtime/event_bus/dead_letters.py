"""Store dead letters: failed events and tasks, to inspect, retry or delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from typing_extensions import override

from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.storage import SqliteFile, StoreUrl
from agent_runtime.storage.operations import operation
from agent_runtime.storage.sqlite_schema import StoreSchema
from agent_runtime.storage.store_plugins import open_plugin


class MemoryDeadLetters(DeadLetters):
    """In this process. Beyond `max_letters` the oldest go, counted in `dropped`."""

    def __init__(self, *, max_letters: int = 10_000) -> None:
        self._letters: dict[str, DeadLetter] = {}
        self._max_letters = max_letters
        self.dropped = 0

    @override
    async def add(self, letter: DeadLetter) -> None:
        self._letters.setdefault(letter.id, letter)
        if len(self._letters) > self._max_letters:
            del self._letters[next(iter(self._letters))]
            self.dropped += 1

    @override
    async def list(self, queue: str | None = None, *, limit: int = 100) -> Sequence[DeadLetter]:
        return [letter for letter in self._letters.values() if queue in (None, letter.queue)][
            :limit
        ]

    @override
    async def get(self, letter_id: str) -> DeadLetter | None:
        return self._letters.get(letter_id)

    @override
    async def remove(self, letter_id: str) -> bool:
        return self._letters.pop(letter_id, None) is not None

    @override
    async def count(self, queue: str | None = None) -> int:
        return len(await self.list(queue, limit=len(self._letters)))

    @override
    async def aclose(self) -> None: ...


class SqliteDeadLetters(SqliteFile, DeadLetters):
    """In a SQLite file, for the processes of one machine; it may be the event log's own."""

    SCHEMA = StoreSchema(
        "dead_letters",
        """
    CREATE TABLE IF NOT EXISTS dead_letters (
      number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL,
          letter TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS dead_letters_queue ON dead_letters (queue, number);
    """,
    )

    @override
    @operation
    def add(self, letter: DeadLetter) -> None:
        text = json.dumps(letter.to_dict(), ensure_ascii=True)
        self._db.execute(
            "INSERT OR IGNORE INTO dead_letters (id, queue, letter) VALUES (?, ?, ?)",
            [letter.id, letter.queue, text],
        )

    @override
    @operation
    def list(self, queue: str | None = None, *, limit: int = 100) -> Sequence[DeadLetter]:
        sql = (
            "SELECT letter FROM dead_letters WHERE ?1 IS NULL OR queue = ?1 ORDER BY number "
            "LIMIT ?2"
        )
        rows = self._db.execute(sql, [queue, limit])
        return [DeadLetter.from_dict(json.loads(text)) for (text,) in rows]

    @override
    @operation
    def get(self, letter_id: str) -> DeadLetter | None:
        sql = "SELECT letter FROM dead_letters WHERE id = ?"
        record = self._db.execute(sql, [letter_id]).fetchone()
        return None if record is None else DeadLetter.from_dict(json.loads(record[0]))

    @override
    @operation
    def remove(self, letter_id: str) -> bool:
        return self._db.execute("DELETE FROM dead_letters WHERE id = ?", [letter_id]).rowcount == 1

    @override
    @operation
    def count(self, queue: str | None = None) -> int:
        sql = "SELECT count(*) FROM dead_letters WHERE ?1 IS NULL OR queue = ?1"
        letter_count: int = self._db.execute(sql, [queue]).fetchone()[0]
        return letter_count


def open_dead_letters(url: str) -> DeadLetters:
    """Open dead letters at an address (`StoreUrl`: memory, SQLite, Redis).

    Raises ConfigurationError, StoreError.
    """
    letters: DeadLetters | None = open_plugin("dead_letters", url, DeadLetters)
    if letters is not None:
        return letters
    address = StoreUrl.parse(url, "the dead letters")
    if address.kind == "memory":
        return MemoryDeadLetters()
    if address.kind == "sqlite":
        return SqliteDeadLetters(address.target)
    from agent_runtime.event_bus.redis_dead_letters import RedisDeadLetters

    return RedisDeadLetters(address)


async def add_shielded(letters: DeadLetters, letter: DeadLetter) -> None:
    """Add a letter even if the caller is being cancelled: it is the last trace of a failure."""
    await asyncio.shield(letters.add(letter))
