"""Open the checkpointer at an address."""

from __future__ import annotations

from typing import Any

from agent_runtime.checkpoints.backends.backend import CheckpointBackend
from agent_runtime.checkpoints.checkpointer import Checkpointer, MemoryCheckpointer
from agent_runtime.storage import StoreUrl
from agent_runtime.storage.store_plugins import open_plugin


def open_checkpointer(url: str, **settings: Any) -> Checkpointer:
    """Open a checkpointer at an address (memory, SQLite, Redis, or of a package).

    Raises ConfigurationError, StoreError.
    """
    backend: CheckpointBackend | None = open_plugin("sessions", url, CheckpointBackend)
    if backend is not None:
        return Checkpointer(backend, **settings)
    address = StoreUrl.parse(url, "the sessions")
    if address.kind == "memory":
        return MemoryCheckpointer(**settings)
    if address.kind == "redis":
        from agent_runtime.checkpoints.backends.redis import RedisCheckpointBackend

        return Checkpointer(RedisCheckpointBackend(address), **settings)
    from agent_runtime.checkpoints.backends.sqlite import SqliteCheckpointBackend

    return Checkpointer(SqliteCheckpointBackend(address.target), **settings)
