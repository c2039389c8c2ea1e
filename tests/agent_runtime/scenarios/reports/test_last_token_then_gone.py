"""openai-agents-python #1658, #2426: a reader goes away on the last word, or while a tool runs."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agent_runtime import AgentContext, AgentExecutor, SessionManager, SessionMiddleware, gated
from agent_runtime.testing import ScriptedChatModel, say


def executor(name: str, tool: Any) -> AgentExecutor:
    """A graph of one's own that calls the tool once, for the message "book"."""

    def script(messages: list[BaseMessage]) -> Any:
        asks = messages[-1].type == "human" and "book" in messages[-1].text
        return say("", (name, {"seat": "1A"})) if asks else say("All is done now.")

    manager = SessionManager()
    graph = create_agent(
        gated(ScriptedChatModel(script=script)), [tool], checkpointer=manager.checkpointer
    )
    return AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])


async def test_a_reader_that_leaves_on_the_last_word_leaves_a_whole_conversation() -> None:
    seats: list[str] = []

    def book(seat: str) -> str:
        """Book a seat."""
        seats.append(seat)
        return "booked"

    agent = executor("book", book)
    async with agent.execute_stream(AgentContext("book 1A", session_id="s")) as stream:
        async for text in stream:
            if "now." in text:
                break
    after = await agent.execute(AgentContext("thanks", session_id="s"))
    asked = {
        call["id"]
        for each in after.messages
        if isinstance(each, AIMessage)
        for call in each.tool_calls
    }
    answers = [each for each in after.messages if isinstance(each, ToolMessage)]
    assert {each.tool_call_id for each in answers} == asked
    assert [each.content for each in answers] == ["booked"]
    assert seats == ["1A"]


async def test_a_tool_that_was_cancelled_is_not_known_and_not_started_again_unasked() -> None:
    entered = asyncio.Event()
    starts: list[str] = []

    async def book(seat: str) -> str:
        """Book a seat, slowly."""
        starts.append(seat)
        entered.set()
        await asyncio.Event().wait()
        return "booked"

    agent = executor("book", book)
    for session_id in ("by a message", "by itself"):
        entered.clear()
        context = AgentContext("book 1A", session_id=session_id.replace(" ", "-"))
        task = asyncio.create_task(agent.execute(context))
        await entered.wait()
        task.cancel()
        await asyncio.wait([task])
    after = await agent.execute(AgentContext("hello", session_id="by-a-message"))
    [answer] = [each for each in after.messages if isinstance(each, ToolMessage)]
    assert "not known" in answer.text
    again = await agent.execute(AgentContext(None, session_id="by-itself"))
    assert again.status == "interrupted"
    assert len(starts) == 2
