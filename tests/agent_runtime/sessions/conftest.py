"""Stores for the session tests: memory, a SQLite file, and a real Valkey server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.sessions import SessionManager


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the sessions of one test are kept."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'sessions.db'}"
    return f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"


@pytest.fixture
async def manager(store_url: str) -> AsyncIterator[SessionManager]:
    """A manager on each of the stores in turn."""
    async with open_manager(store_url) as opened:
        yield opened


@asynccontextmanager
async def held_elsewhere(manager: SessionManager, session_id: str) -> AsyncIterator[None]:
    """Somebody else's turn: what a task starts inside a turn of its own belongs to that turn."""
    begun = asyncio.Event()
    over = asyncio.Event()

    async def hold() -> None:
        async with manager.turn(session_id):
            begun.set()
            await over.wait()

    holder = asyncio.create_task(hold())
    await begun.wait()
    try:
        yield
    finally:
        over.set()
        await holder


def open_manager(url: str, **settings: Any) -> SessionManager:
    """A manager on a test's store; a Redis one has keys of its own."""
    return SessionManager.from_url(url, **settings)
