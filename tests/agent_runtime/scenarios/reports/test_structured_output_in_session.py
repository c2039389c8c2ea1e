"""langgraph #6718 and many like it.

An agent with `response_format=Model` and a checkpointer simply works.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from agent_runtime import AgentContext, AgentExecutor, SessionManager, SessionMiddleware, gated
from agent_runtime.testing import ScriptedChatModel, say


class Sky(Enum):
    CLEAR = "clear"


@dataclass
class Wind:
    speed: float


class Place(BaseModel):
    name: str


class Weather(BaseModel):
    city: str
    degrees: float
    sky: Sky | None = None
    places: list[Place] = []
    wind: Wind | None = None


def executor(manager: SessionManager) -> AgentExecutor:
    model = ScriptedChatModel(
        script=lambda messages: say("", ("Weather", {"city": "Oslo", "degrees": 3}))
    )
    graph = create_agent(
        gated(model), response_format=ToolStrategy(Weather), checkpointer=manager.checkpointer
    )
    return AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])


async def test_each_turn_has_its_object(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path}/s.db"
    async with SessionManager.from_url(address) as manager:
        first = await executor(manager).execute(AgentContext("weather?", session_id="s"))
    assert first.structured_response == Weather(city="Oslo", degrees=3)
    async with SessionManager.from_url(address) as manager:
        second = await executor(manager).execute(AgentContext("again?", session_id="s"))
        async with executor(manager).execute_stream(
            AgentContext("and again?", session_id="s")
        ) as stream:
            async for _ in stream:
                pass
    assert isinstance(second.structured_response, Weather)
    assert isinstance(stream.result.structured_response, Weather)


NESTED = {
    "city": "Oslo",
    "degrees": 3,
    "sky": "clear",
    "places": [{"name": "x"}],
    "wind": {"speed": 1.5},
}


@pytest.mark.parametrize(
    "response_format", [Weather, ToolStrategy(Weather), ToolStrategy(Place | Weather)]
)
async def test_what_an_object_is_made_of_is_stored_too_and_its_session_can_be_shown(
    response_format: Any,
) -> None:
    manager = SessionManager()
    model = ScriptedChatModel(script=lambda messages: say("", ("Weather", NESTED)))
    graph = create_agent(
        gated(model), response_format=response_format, checkpointer=manager.checkpointer
    )
    agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])
    result = await agent.execute(AgentContext("weather?", session_id="s"))
    assert result.structured_response == Weather.model_validate(NESTED)
    checkpoint = await manager.checkpoints.get("s")
    assert checkpoint is not None
    assert checkpoint.values["structured_response"] == Weather.model_validate(NESTED)


async def test_an_agent_inside_a_graph_is_seen() -> None:
    manager = SessionManager()
    model = ScriptedChatModel(script=lambda messages: say("", ("Weather", NESTED)))
    inner = create_agent(gated(model), response_format=ToolStrategy(Weather))
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner)
    outer.add_edge(START, "inner")
    agent = AgentExecutor(
        outer.compile(checkpointer=manager.checkpointer),
        gated=True,
        pipeline=[SessionMiddleware(manager)],
    )
    assert (await agent.execute(AgentContext("weather?", session_id="s"))).status == "completed"
