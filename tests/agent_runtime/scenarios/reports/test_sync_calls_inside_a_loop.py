"""langgraph #7857, open-notebook #519.

Sync calls of savers, graphs and agents inside a running loop do not hang.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage

from agent_runtime import AgentExecutor, ConfigurationError, gated
from agent_runtime.sessions import MemoryCheckpointer, SqliteCheckpointer
from agent_runtime.testing import ScriptedChatModel, say

INNER = AgentExecutor(
    create_agent(gated(ScriptedChatModel(script=lambda messages: say("inner says hi")))), gated=True
)


def add(a: int, b: int) -> str:
    """Add."""
    return str(a + b)


def ask() -> str:
    """Ask the other agent by its sync face."""
    return INNER.execute_sync("hi").output


async def ask_inside() -> str:
    """Ask the other agent by its sync face, on the loop's own thread."""
    return INNER.execute_sync("hi").output


def calling(name: str, **args: Any) -> ScriptedChatModel:
    """Call a tool once, then say "3"."""

    def script(messages: list[BaseMessage]) -> Any:
        return say("", (name, args)) if messages[-1].type == "human" else say("3")

    return ScriptedChatModel(script=script)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_graph_and_its_saver(store: str, tmp_path: Path) -> None:
    async with SqliteCheckpointer.from_conn_string(str(tmp_path / "s.db")) as sqlite:
        saver = sqlite if store == "sqlite" else MemoryCheckpointer()
        graph = create_agent(gated(calling("add", a=1, b=2)), [add], checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "1"}}
        answer = graph.invoke({"messages": "x"}, config)
        assert answer["messages"][-1].text == "3"
        state = graph.get_state(config)
        assert len(state.values["messages"]) == 4
        assert (await graph.aget_state(config)).values == state.values


async def test_an_agent() -> None:
    agent = AgentExecutor(create_agent(gated(calling("add", a=1, b=2)), [add]), gated=True)
    assert agent.invoke({"messages": "x"})["messages"][-1].text == "3"
    assert agent.execute_sync("x").output == "3"
    assert list(agent.stream({"messages": "x"}, stream_mode="values"))


@pytest.mark.parametrize("tool", [ask, ask_inside], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("face", ["async", "sync"])
async def test_a_tool_that_asks_another_agent(tool: Any, face: str) -> None:
    outer = AgentExecutor(create_agent(gated(calling(tool.__name__)), [tool]), gated=True)
    if (face, tool) == (
        "sync",
        ask_inside,
    ):  # the tool blocks the loop that its answer would have to come from
        with pytest.raises(ConfigurationError, match="use await"):
            await asyncio.to_thread(outer.execute_sync, "go")
        return
    result = await (
        outer.execute("go") if face == "async" else asyncio.to_thread(outer.execute_sync, "go")
    )
    assert result.messages[2].content == "inner says hi"
    assert result.usage.model_calls == 3
