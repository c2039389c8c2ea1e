"""A cancel that a library swallows, as `asyncio.wait_for` of Python 3.11 may, still ends what costs
money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from agent_runtime import AgentExecutor, gated
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.testing import ScriptedChatModel, say

WORDS = 500


class Deaf(BaseChatModel):
    """Streams words and swallows each cancel that arrives while it waits for the next one."""

    sent: list[int]

    @property
    def _llm_type(self) -> str:
        return "deaf"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise AssertionError("only streamed")

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(WORDS):
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                self.sent.append(-1)
            self.sent.append(number)
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))


def agent_of(node: Any, *, is_gated: bool) -> AgentExecutor:
    graph = StateGraph(MessagesState)
    graph.add_node("only", node)
    graph.add_edge(START, "only")
    return AgentExecutor(graph.compile(), gated=is_gated)


@pytest.mark.parametrize("is_gated", [True, False], ids=["gated", "callbacks"])
async def test_a_stream_that_is_left_is_not_read_to_its_end(
    is_gated: bool, no_tasks_left: None
) -> None:
    plain = Deaf(sent=[])
    model = gated(plain) if is_gated else plain

    async def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async with agent_of(node, is_gated=is_gated).execute_stream("hi") as stream:
        async for _ in stream:
            break
    after = model.sent[model.sent.index(-1) :]
    assert len(after) == 2  # the cancel, and the one word that came with it
    assert stream.context.usage.model_calls == 1
    assert stream.context.usage.estimated is True


async def test_a_deadline_inside_a_node_ends_the_stream_too() -> None:
    model = gated(Deaf(sent=[]))

    async def node(state: MessagesState) -> dict[str, Any]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                async for _ in model.astream(state["messages"]):
                    pass
        return {"messages": [await gated(ScriptedChatModel(script=[say("instead")])).ainvoke("hi")]}

    result = await agent_of(node, is_gated=True).execute("hi")
    assert result.output == "instead"  # the deadline took its own cancel back, so the call goes on
    assert model.sent[-2] == -1


@pytest.mark.parametrize("kind", ["model", "tool"])
@pytest.mark.parametrize("is_gated", [True, False], ids=["gated", "callbacks"])
async def test_a_cancelled_call_begins_nothing_more(
    kind: str, is_gated: bool, no_tasks_left: None
) -> None:
    waiting = asyncio.Event()
    begun: list[str] = []
    plain_model = ScriptedChatModel(script=[say("late")])
    model = gated(plain_model) if is_gated else plain_model

    @tool
    async def book() -> str:
        """Book a seat."""
        begun.append("tool")
        return "booked"

    booking = gated_tool(book) if is_gated else book

    async def node(state: MessagesState) -> dict[str, Any]:
        waiting.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            begun.append("swallowed")
        if kind == "tool":
            await booking.ainvoke({})
            return {}
        return {"messages": [await model.ainvoke(state["messages"])]}

    call = asyncio.create_task(agent_of(node, is_gated=is_gated).execute("hi"))
    await waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert begun == ["swallowed"]
    assert plain_model.calls == model.calls == 0
