"""From a journal's address to the journal."""

from __future__ import annotations

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.storage import StoreUrl


def open_journal(url: str) -> Journal:
    """Open the journal at an address (`StoreUrl`: memory, SQLite, Redis).

    Raises ConfigurationError, StoreError.
    """
    address = StoreUrl.parse(url, "the journal of batches")
    if address.kind == "memory":
        return MemoryJournal()
    if address.kind == "sqlite":
        from agent_runtime.batch.journal.sqlite import SqliteJournal

        return SqliteJournal(address.target)
    from agent_runtime.batch.journal.redis import RedisJournal

    return RedisJournal(address)
