"""deer-flow #1809, deepagents #2984.

Progress that a sub-agent's tool writes reaches the reader of the stream.
"""

from __future__ import annotations

from typing import Any

from langgraph.config import get_stream_writer
from tests.support.providers import template

from agent_runtime import AgentExecutor, AgentFactory, CustomChunk
from agent_runtime.testing import ScriptedChatModel, say


def dig(topic: str) -> str:
    """Research a topic."""
    get_stream_writer()({"progress": topic})
    return "found"


def agent() -> AgentExecutor:
    factory = AgentFactory()
    task = {"description": "dig deep", "subagent_type": "researcher"}
    boss = [say("", ("dig", {"topic": "own"})), say("", ("task", task)), say("done")]
    researcher = [say("", ("dig", {"topic": "sub"})), say("sub done")]
    factory.register_tool("dig", dig)
    factory.register_model("boss", ScriptedChatModel(script=boss))
    factory.register_model("researcher", ScriptedChatModel(script=researcher))
    subagent = {
        "name": "researcher",
        "description": "Researches topics.",
        "system_prompt": "You research.",
        "tools": ["dig"],
        "model": "researcher",
    }
    return factory.create_agent(template(model="boss", tools=["dig"], subagents=[subagent]))


async def progress() -> list[Any]:
    async with agent().execute_stream("go") as stream:
        return [chunk.data async for chunk in stream.chunks() if isinstance(chunk, CustomChunk)]


async def test_the_agent_s_own_tool() -> None:
    assert {"progress": "own"} in await progress()


async def test_the_sub_agent_s_tool() -> None:
    assert (await progress()).count({"progress": "sub"}) == 1


async def test_the_sub_agent_s_tool_for_a_reader_of_subgraphs() -> None:
    parts = [
        part
        async for part in agent().astream({"messages": "go"}, stream_mode="custom", subgraphs=True)
    ]
    assert [part[1] for part in parts].count({"progress": "sub"}) == 1
