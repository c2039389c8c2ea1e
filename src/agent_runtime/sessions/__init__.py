"""Conversations that survive: checkpointers, sessions, and the stores behind them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runtime.sessions.checkpointer import (
        Checkpointer,
        MemoryCheckpointer,
        RedisCheckpointer,
        SqliteCheckpointer,
    )
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.sessions.redis_store import RedisStore
    from agent_runtime.sessions.session import ALL_SESSIONS, Session, SessionCheckpoint, SessionPage, SessionStatus

# Loaded at first use: a program without Redis does not pay for its client.
_HOME = {
    "Checkpointer": "checkpointer",
    "MemoryCheckpointer": "checkpointer",
    "RedisCheckpointer": "checkpointer",
    "SqliteCheckpointer": "checkpointer",
    "ALL_SESSIONS": "session",
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent_runtime.sessions' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"agent_runtime.sessions.{_HOME[name]}"), name)
    globals()[name] = value
    return value
