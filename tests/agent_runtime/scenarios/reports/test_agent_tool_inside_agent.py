"""langgraph-supervisor and adk reports: an agent as another's tool.

Its text, usage, progress and questions.
"""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langgraph.config import get_stream_writer
from tests.support.providers import template

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    CustomChunk,
    SessionManager,
    TextChunk,
)
from agent_runtime.errors import ConfigurationError
from agent_runtime.testing import ScriptedChatModel, say

HITL = {"use": "human_in_the_loop", "interrupt_on": {"pay": True}}
paid: list[int] = []


def pay(amount: int) -> str:
    """Pay."""
    paid.append(amount)
    return "paid"


def step(number: int) -> str:
    """Report a step."""
    get_stream_writer()({"step": number})
    return "ok"


def agent(tool: str, args: dict[str, Any], **inner: Any) -> AgentExecutor:
    factory = AgentFactory(session_manager=SessionManager())
    factory.register_tool("pay", pay)
    factory.register_tool("step", step)

    def inner_script(messages: list[BaseMessage]) -> Any:
        return (
            say("", (tool, args))
            if messages[-1].type == "human"
            else say("inner done", usage=(100, 1))
        )

    def outer_script(messages: list[BaseMessage]) -> Any:
        return (
            say("", ("payer", {"request": "go"}))
            if messages[-1].type == "human"
            else say("outer done")
        )

    factory.register_model("inner", ScriptedChatModel(script=inner_script))
    factory.register_model("outer", ScriptedChatModel(script=outer_script))
    factory.register_template(template("payer", model="inner", tools=[tool], **inner))
    return factory.create_agent(template("boss", model="outer", tools=[{"agent": "payer"}]))


async def streamed() -> tuple[list[Any], Any]:
    async with agent("step", {"number": 1}).execute_stream(
        AgentContext("go", session_id="s")
    ) as stream:
        chunks = [chunk async for chunk in stream.chunks()]
    return chunks, stream.result


async def test_the_text_is_the_outer_agent_s_and_the_usage_has_both() -> None:
    chunks, result = await streamed()
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk)) == "outer done"
    assert (result.usage.model_calls, result.usage.input_tokens) == (4, 130)


async def test_the_inner_tool_s_progress_reaches_the_reader() -> None:
    chunks, _ = await streamed()
    assert {"step": 1} in [chunk.data for chunk in chunks if isinstance(chunk, CustomChunk)]


async def test_an_inner_agent_that_asks_a_person_is_refused_when_it_is_made() -> None:
    """It has no session in which it could wait.

    A run that goes on without the answer would be worse.
    """
    for approvals in ({"interrupt_on": {"pay": True}}, {"middleware": [HITL]}):
        with pytest.raises(ConfigurationError, match="cannot wait for the answer"):
            agent("pay", {"amount": 5}, **approvals)
    assert paid == []
