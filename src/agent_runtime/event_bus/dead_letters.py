"""Store dead letters: failed events and tasks, to inspect, retry or delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from typing_extensions import override

from agent_runtime.event_bus.dead_letter import DeadLetter
from agent_runtime.storage import SqliteFile, StoreUrl
from agent_runtime.storage.sqlite_schema import StoreSchema


@runtime_checkable
class DeadLetters(Protocol):
    """Store dead letters. Methods raise StoreError when the store fails."""

    async def add(self, letter: DeadLetter) -> None:
        """Keep a letter. Adding one with a known id changes nothing."""

    async def list(self, queue: str | None = None, *, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest letters first, of one queue or of all."""

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return the letter, or None."""

    async def remove(self, letter_id: str) -> bool:
        """Throw it away; False when it is not there."""

    async def count(self, queue: str | None = None) -> int:
        """Return how many letters there are."""

    async def aclose(self) -> None:
        """Close the store."""


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
    async def add(self, letter: DeadLetter) -> None:
        text = json.dumps(letter.to_dict(), ensure_ascii=True)
        await self.acall("insert", letter.id, letter.queue, text)

    @override
    async def list(self, queue: str | None = None, *, limit: int = 100) -> Sequence[DeadLetter]:
        rows = await self.acall("select", queue, limit)
        return [DeadLetter.from_dict(json.loads(text)) for (text,) in rows]

    @override
    async def get(self, letter_id: str) -> DeadLetter | None:
        record = await self.acall("find", letter_id)
        return None if record is None else DeadLetter.from_dict(json.loads(record[0]))

    @override
    async def remove(self, letter_id: str) -> bool:
        removed: bool = await self.acall("delete", letter_id)
        return removed

    @override
    async def count(self, queue: str | None = None) -> int:
        counted: int = await self.acall("count", queue)
        return counted

    def _insert(self, letter_id: str, queue: str, text: str) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO dead_letters (id, queue, letter) VALUES (?, ?, ?)",
            [letter_id, queue, text],
        )

    def _select(self, queue: str | None, limit: int) -> Any:
        sql = (
            "SELECT letter FROM dead_letters WHERE ?1 IS NULL OR queue = ?1 ORDER BY number "
            "LIMIT ?2"
        )
        return self._db.execute(sql, [queue, limit]).fetchall()

    def _find(self, letter_id: str) -> Any:
        return self._db.execute(
            "SELECT letter FROM dead_letters WHERE id = ?", [letter_id]
        ).fetchone()

    def _delete(self, letter_id: str) -> bool:
        return self._db.execute("DELETE FROM dead_letters WHERE id = ?", [letter_id]).rowcount == 1

    def _count(self, queue: str | None) -> int:
        sql = "SELECT count(*) FROM dead_letters WHERE ?1 IS NULL OR queue = ?1"
        letter_count: int = self._db.execute(sql, [queue]).fetchone()[0]
        return letter_count


def open_dead_letters(url: str) -> DeadLetters:
    """Open dead letters at an address (`StoreUrl`: memory, SQLite, Redis).

    Raises ConfigurationError, StoreError.
    """
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
