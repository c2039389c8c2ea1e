"""From a store's address to its checkpointer."""

from __future__ import annotations

from typing import Any

from agent_runtime.errors import ConfigurationError
from agent_runtime.sessions.checkpointer import Checkpointer, MemoryCheckpointer


def open_checkpointer(url: str, **settings: Any) -> Checkpointer:
    """The checkpointer at `memory:`, `redis://...`, `sqlite:FILE` or a file name; raises ConfigurationError."""
    if url == "memory:":
        return MemoryCheckpointer(**settings)
    if url.startswith(("redis://", "rediss://", "unix://")):
        from agent_runtime.sessions.redis_records import RedisRecords

        return Checkpointer(RedisRecords.from_url(url), **settings)
    if "://" in url:
        raise ConfigurationError(f"unknown session store '{url}': memory:, sqlite:FILE, redis://, rediss:// or unix://")
    from agent_runtime.sessions.sqlite_records import SqliteRecords

    return Checkpointer(SqliteRecords(url.removeprefix("sqlite:")), **settings)
