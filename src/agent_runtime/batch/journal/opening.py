"""A journal by its address."""

from __future__ import annotations

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.errors import ConfigurationError


def open_journal(url: str) -> Journal:
    """The journal at `memory:`, `sqlite:FILE` or `redis://...`; raises ConfigurationError, StoreUnavailable."""
    if url == "memory:":
        return MemoryJournal()
    if url.startswith("sqlite:"):
        from agent_runtime.batch.journal.sqlite import SqliteJournal

        return SqliteJournal(url.removeprefix("sqlite:"))
    if url.startswith(("redis:", "rediss:", "unix:")):
        from agent_runtime.batch.journal.redis import RedisJournal

        return RedisJournal.from_url(url)
    raise ConfigurationError(f"a journal is at memory:, sqlite:FILE or redis://..., not at '{url.partition(':')[0]}:'")
