"""Open the journal at an address."""

from __future__ import annotations

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.storage import StoreUrl
from agent_runtime.storage.store_plugins import open_plugin


def open_journal(url: str) -> Journal:
    """Open the journal at an address (memory, SQLite, Redis, or of a package).

    Raises ConfigurationError, StoreError.
    """
    journal: Journal | None = open_plugin("batches", url, Journal)
    if journal is not None:
        return journal
    address = StoreUrl.parse(url, "the journal of batches")
    if address.kind == "memory":
        return MemoryJournal()
    if address.kind == "sqlite":
        from agent_runtime.batch.journal.sqlite import SqliteJournal

        return SqliteJournal(address.target)
    from agent_runtime.batch.journal.redis import RedisJournal

    return RedisJournal(address)
