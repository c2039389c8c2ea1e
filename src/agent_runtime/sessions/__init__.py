"""Conversations that survive: checkpointers, sessions, and the stores behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late
from agent_runtime.types import ALL_SESSIONS

if TYPE_CHECKING:
    from agent_runtime.sessions.checkpointer import (
        Checkpointer,
        MemoryCheckpointer,
        RedisCheckpointer,
        SqliteCheckpointer,
    )
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.sessions.redis_store import RedisStore
    from agent_runtime.sessions.session import Session, SessionCheckpoint, SessionPage, SessionStatus

# Loaded at first use: a program without Redis does not pay for its client.
_HOME = {
    "Checkpointer": "checkpointer",
    "MemoryCheckpointer": "checkpointer",
    "RedisCheckpointer": "checkpointer",
    "SqliteCheckpointer": "checkpointer",
    "SessionManager": "manager",
    "RedisStore": "redis_store",
    "Session": "session",
    "SessionCheckpoint": "session",
    "SessionPage": "session",
    "SessionStatus": "session",
}

__all__ = [
    "ALL_SESSIONS",
    "Checkpointer",
    "MemoryCheckpointer",
    "RedisCheckpointer",
    "RedisStore",
    "Session",
    "SessionCheckpoint",
    "SessionManager",
    "SessionPage",
    "SessionStatus",
    "SqliteCheckpointer",
]


__getattr__ = imported_late(__name__, _HOME)
