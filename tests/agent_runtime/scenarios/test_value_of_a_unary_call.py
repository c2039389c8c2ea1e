"""The value of a unary call is what the graph itself returns, interrupts included."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, Field

from agent_runtime import AgentContext, AgentExecutor


class Typed(TypedDict):
    steps: Annotated[list[str], operator.add]


class Checked(BaseModel):
    steps: Annotated[list[str], operator.add] = Field(default_factory=list)


@dataclasses.dataclass
class Plain:
    steps: Annotated[list[str], operator.add] = dataclasses.field(default_factory=list)


def ask(question: str) -> Any:
    def node(state: Any) -> dict[str, Any]:
        return {"steps": [interrupt(question)]}

    return node


def step(name: str) -> Any:
    return lambda state: {"steps": [name]}


def straight(schema: Any) -> Any:
    graph = StateGraph(schema)
    graph.add_node("a", step("a"))
    graph.add_node("b", step("b"))
    return graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", END)


def asking(schema: Any) -> Any:
    graph = StateGraph(schema)
    graph.add_node("a", step("a"))
    graph.add_node("left", ask("left?"))
    graph.add_node("right", ask("right?"))
    return graph.add_edge(START, "a").add_edge("a", "left").add_edge("a", "right")


def nested(schema: Any) -> Any:
    inner: Any = asking(schema).compile()
    return StateGraph(schema).add_node("inner", inner).add_edge(START, "inner")


@entrypoint(checkpointer=InMemorySaver())
async def function(given: dict[str, Any]) -> list[str]:
    return [*given["steps"], interrupt("go on?")]


def compiled(make: Any, schema: Any, **settings: Any) -> Any:
    return make(schema).compile(checkpointer=InMemorySaver(), **settings)


GRAPHS: dict[str, Callable[[], Any]] = {
    f"{make.__name__}-{schema.__name__}": partial(compiled, make, schema)
    for make in (straight, asking, nested)
    for schema in (Typed, Checked, Plain)
}
GRAPHS["stops-before"] = lambda: compiled(straight, Typed, interrupt_before=["b"])
GRAPHS["function"] = lambda: function


def shown(value: Any) -> Any:
    """Return a value with its interrupts by what they ask: their ids are of their thread."""
    if isinstance(value, dict) and "__interrupt__" in value:
        return {**value, "__interrupt__": asked(value["__interrupt__"])}
    return value


def asked(interrupts: Any) -> list[str]:
    """Return what interrupts ask, sorted: nodes of one step end in any order."""
    return sorted(each.value for each in interrupts)


@pytest.mark.parametrize("name", GRAPHS)
async def test_it_is_what_the_graph_returns(name: str) -> None:
    graph = GRAPHS[name]()
    own = await graph.ainvoke({"steps": ["0"]}, {"configurable": {"thread_id": "own"}})
    result = await AgentExecutor(graph).execute(AgentContext({"steps": ["0"]}, session_id="ours"))
    assert type(result.value) is type(own)
    assert shown(result.value) == shown(own)
    assert asked(result.interrupts) == (shown(own)["__interrupt__"] if result.interrupts else [])


@pytest.mark.parametrize("name", GRAPHS)
async def test_version_2_has_the_state_of_the_schemas_class(name: str) -> None:
    graph = GRAPHS[name]()
    own = await graph.ainvoke(
        {"steps": ["0"]}, {"configurable": {"thread_id": "own2"}}, version="v2"
    )
    agent = AgentExecutor(graph)
    context = AgentContext({"steps": ["0"]}, session_id="ours2", options={"version": "v2"})
    value = (await agent.execute(context)).value
    assert (value.value, asked(value.interrupts)) == (own.value, asked(own.interrupts))

    how: dict[str, Any] = {"stream_mode": ["values", "checkpoints"], "version": "v2"}
    parts = [
        [
            each
            async for each in runnable.astream(
                {"steps": ["0"]}, {"configurable": {"thread_id": thread}}, **how
            )
        ]
        for runnable, thread in ((graph, "own3"), (agent, "ours3"))
    ]
    states = [[each["data"] for each in of if each["type"] == "values"] for of in parts]
    saved = [
        [each["data"]["values"] for each in of if each["type"] == "checkpoints"] for of in parts
    ]
    assert states[0] == states[1]
    assert saved[0] == saved[1]


async def test_output_keys_of_a_caller_hold() -> None:
    graph = compiled(asking, Typed)
    own = await graph.ainvoke(
        {"steps": ["0"]}, {"configurable": {"thread_id": "own"}}, output_keys="steps"
    )
    context = AgentContext({"steps": ["0"]}, session_id="ours", options={"output_keys": "steps"})
    assert shown((await AgentExecutor(graph).execute(context)).value) == shown(own)
