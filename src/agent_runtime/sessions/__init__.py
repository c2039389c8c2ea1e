"""Conversations that survive: checkpointers, sessions, and the stores behind them."""

from agent_runtime.sessions.checkpointer import (
    Checkpointer,
    MemoryCheckpointer,
    RedisCheckpointer,
    SqliteCheckpointer,
)
from agent_runtime.sessions.manager import ALL_SESSIONS, SessionManager
from agent_runtime.sessions.session import Session, SessionCheckpoint, SessionPage, SessionStatus

__all__ = [
    "ALL_SESSIONS",
    "Checkpointer",
    "MemoryCheckpointer",
    "RedisCheckpointer",
    "Session",
    "SessionCheckpoint",
    "SessionManager",
    "SessionPage",
    "SessionStatus",
    "SqliteCheckpointer",
]
