"""Threads of LangGraph's own savers, moved checkpoint by checkpoint, as its migration test does."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from agent_runtime.sessions import MemoryCheckpointer
from agent_runtime.testing import ScriptedChatModel, say

CONFIG: Any = {"configurable": {"thread_id": "1"}}


async def moved() -> tuple[Any, Any]:
    """Return a graph on our saver, and the state of a thread that was begun on LangGraph's."""
    old = InMemorySaver()
    new = MemoryCheckpointer()
    model = ScriptedChatModel(script=[say("one"), say("two")])
    await create_agent(model, checkpointer=old).ainvoke({"messages": "a"}, CONFIG)
    for each in reversed([each async for each in old.alist(CONFIG)]):
        parent: Any = each.parent_config or {
            "configurable": {"thread_id": "1", "checkpoint_ns": ""}
        }
        stored = await new.aput(
            parent, each.checkpoint, each.metadata, each.checkpoint["channel_versions"]
        )
        for task, channel, value in each.pending_writes or []:
            await new.aput_writes(stored, [(channel, value)], task)
    graph = create_agent(model, checkpointer=new)
    return graph, await graph.aget_state(CONFIG)


async def test_its_messages_are_there() -> None:
    _, state = await moved()
    assert [message.text for message in state.values["messages"]] == ["a", "one"]


async def test_it_goes_on() -> None:
    graph, _ = await moved()
    after = await graph.ainvoke({"messages": "b"}, CONFIG)
    assert [message.text for message in after["messages"]] == ["a", "one", "b", "two"]
