"""Store conversations: sessions, their checkpoints, and LangGraph savers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports
from agent_runtime.types import ALL_SESSIONS

if TYPE_CHECKING:
    from agent_runtime.checkpoints.checkpointer import (
        Checkpointer,
        MemoryCheckpointer,
        RedisCheckpointer,
        SqliteCheckpointer,
    )
    from agent_runtime.checkpoints.redis_store import RedisStore
    from agent_runtime.sessions.checkpoints import SessionCheckpoints
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.sessions.session import (
        Session,
        SessionCheckpoint,
        SessionPage,
        SessionStatus,
    )

# Loaded at first use: a program without Redis does not pay for its client.
_EXPORTS = {
    "Checkpointer": "agent_runtime.checkpoints.checkpointer",
    "MemoryCheckpointer": "agent_runtime.checkpoints.checkpointer",
    "RedisCheckpointer": "agent_runtime.checkpoints.checkpointer",
    "SqliteCheckpointer": "agent_runtime.checkpoints.checkpointer",
    "SessionCheckpoints": "agent_runtime.sessions.checkpoints",
    "SessionManager": "agent_runtime.sessions.manager",
    "RedisStore": "agent_runtime.checkpoints.redis_store",
    "Session": "agent_runtime.sessions.session",
    "SessionCheckpoint": "agent_runtime.sessions.session",
    "SessionPage": "agent_runtime.sessions.session",
    "SessionStatus": "agent_runtime.sessions.session",
}

__all__ = [
    "ALL_SESSIONS",
    "Checkpointer",
    "MemoryCheckpointer",
    "RedisCheckpointer",
    "RedisStore",
    "Session",
    "SessionCheckpoint",
    "SessionCheckpoints",
    "SessionManager",
    "SessionPage",
    "SessionStatus",
    "SqliteCheckpointer",
]


__getattr__ = lazy_exports(__name__, _EXPORTS)
