"""langgraph #6718 and many like it: an agent with `response_format=Model` and a checkpointer simply works."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from pydantic import BaseModel

from agent_runtime import AgentContext, AgentExecutor, SessionManager, SessionMiddleware, gated
from agent_runtime.errors import StateNotSerializable
from agent_runtime.testing import ScriptedChatModel, say


class Weather(BaseModel):
    city: str
    degrees: float


def executor(manager: SessionManager) -> AgentExecutor:
    model = ScriptedChatModel(script=lambda messages: say("", ("Weather", {"city": "Oslo", "degrees": 3})))
    graph = create_agent(gated(model), response_format=ToolStrategy(Weather), checkpointer=manager.checkpointer)
    return AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])


@pytest.mark.xfail(raises=StateNotSerializable, reason="the class is not on the allow-list of what is stored")
async def test_each_turn_has_its_object(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path}/s.db"
    async with SessionManager.from_url(address) as manager:
        first = await executor(manager).execute(AgentContext("weather?", session_id="s"))
    assert first.structured_response == Weather(city="Oslo", degrees=3)
    async with SessionManager.from_url(address) as manager:
        second = await executor(manager).execute(AgentContext("again?", session_id="s"))
        async with executor(manager).execute_stream(AgentContext("and again?", session_id="s")) as stream:
            async for _ in stream:
                pass
    assert isinstance(second.structured_response, Weather)
    assert isinstance(stream.result.structured_response, Weather)
