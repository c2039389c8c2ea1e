"""From a session store's address to its checkpointer."""

from __future__ import annotations

from typing import Any

from agent_runtime.checkpoints.checkpointer import Checkpointer, MemoryCheckpointer
from agent_runtime.storage import StoreUrl


def open_checkpointer(url: str, **settings: Any) -> Checkpointer:
    """Open a checkpointer at an address (`StoreUrl`: memory, SQLite, Redis).

    Raises ConfigurationError, StoreError.
    """
    address = StoreUrl.parse(url, "the sessions")
    if address.kind == "memory":
        return MemoryCheckpointer(**settings)
    if address.kind == "redis":
        from agent_runtime.checkpoints.backends.redis import RedisCheckpointBackend

        return Checkpointer(RedisCheckpointBackend(address), **settings)
    from agent_runtime.checkpoints.backends.sqlite import SqliteCheckpointBackend

    return Checkpointer(SqliteCheckpointBackend(address.target), **settings)
