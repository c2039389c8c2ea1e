"""Open managers of sessions, and agents that use tools in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import tool

from agent_runtime import (
    AgentContext,
    AgentFactory,
    AgentTemplate,
    SessionManager,
)
from agent_runtime.testing import ScriptedChatModel, say


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


EFFECTS: list[str] = []


@tool
async def pay(amount: int) -> str:
    """Pay an amount."""
    EFFECTS.append(f"pay {amount}")
    return f"paid {amount}"


def pays_first(messages: list[Any]) -> Any:
    """Pays once after each human message, then says what happened."""
    if isinstance(messages[-1], ToolMessage):
        return say(f"done: {messages[-1].text}")
    return say("", ("pay", {"amount": 10 * sum(m.type == "human" for m in messages)}))


def make(manager: SessionManager, script: Any, *tools: Any, **spec: Any) -> Any:
    EFFECTS.clear()
    factory = AgentFactory(session_manager=manager)
    factory.register_model("script", ScriptedChatModel(script=script))
    for each in tools:
        factory.register_tool(each.name, each)
    template = AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "t"},
            "spec": {"model": "script", "tools": [t.name for t in tools], **spec},
        }
    )
    factory.register_template(template)
    return factory.create_from_template("t")


def in_session(text: Any, session_id: str = "s1", **given: Any) -> AgentContext:
    return AgentContext(text, session_id=session_id, **given)
