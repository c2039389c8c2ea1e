"""adk-go #959, deepagents-docs #3724.

A call with two questions says both in its result, unary and streamed.
"""

from __future__ import annotations

import asyncio

import pytest
from langchain.agents import create_agent
from langgraph.types import interrupt

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    InterruptChunk,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.testing import ScriptedChatModel, say


def left() -> str:
    """Ask at once."""
    return str(interrupt("left?"))


async def right() -> str:
    """Ask one step of the loop later."""
    await asyncio.sleep(0)
    return str(interrupt("right?"))


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_result_has_both(streamed: bool) -> None:
    manager = SessionManager()
    model = ScriptedChatModel(script=[say("", ("left", {}), ("right", {})), say("done")])
    graph = create_agent(gated(model), [left, right], checkpointer=manager.checkpointer)
    agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])
    context = AgentContext("go", session_id="s")
    if streamed:
        async with agent.execute_stream(context) as stream:
            chunks = [chunk async for chunk in stream.chunks()]
        result = stream.result
        shown = [
            each.value
            for chunk in chunks
            if isinstance(chunk, InterruptChunk)
            for each in chunk.interrupts
        ]
        assert sorted(shown) == ["left?", "right?"]
    else:
        result = await agent.execute(context)
    assert sorted(question.value for question in result.interrupts) == ["left?", "right?"]
    assert len(result.to_dict()["interrupts"]) == 2
