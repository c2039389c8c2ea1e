"""Save LangGraph's checkpoints: append, seal and verify them on any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.checkpoints.checkpointer import (
        Checkpointer,
        MemoryCheckpointer,
        RedisCheckpointer,
        SqliteCheckpointer,
    )
    from agent_runtime.checkpoints.redis_store import RedisStore

# Loaded at first use: a program without Redis does not pay for its client.
_EXPORTS = {
    "Checkpointer": "agent_runtime.checkpoints.checkpointer",
    "MemoryCheckpointer": "agent_runtime.checkpoints.checkpointer",
    "RedisCheckpointer": "agent_runtime.checkpoints.checkpointer",
    "RedisStore": "agent_runtime.checkpoints.redis_store",
    "SqliteCheckpointer": "agent_runtime.checkpoints.checkpointer",
}

__all__ = [
    "Checkpointer",
    "MemoryCheckpointer",
    "RedisCheckpointer",
    "RedisStore",
    "SqliteCheckpointer",
]

__getattr__ = lazy_exports(__name__, _EXPORTS)
