"""Checkpoints: LangGraph savers that append, seal and verify, over memory, SQLite and Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.checkpoints.checkpointer import (
        Checkpointer,
        MemoryCheckpointer,
        RedisCheckpointer,
        SqliteCheckpointer,
    )
    from agent_runtime.checkpoints.redis_store import RedisStore

# Loaded at first use: a program without Redis does not pay for its client.
_HOME = {
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

__getattr__ = imported_late(__name__, _HOME)
