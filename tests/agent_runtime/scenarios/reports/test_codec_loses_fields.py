"""langgraph #7066.

What LangGraph's own values carry survives a restart, or is refused before it is lost.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from agent_runtime.checkpoints.codec import Codec
from agent_runtime.sessions import SqliteCheckpointer

SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}}
CONFIG: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict):
    answer: Any


def graph(node: Any) -> StateGraph[Any, Any, Any, Any]:
    built: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    built.add_node("node", node)
    built.add_edge(START, "node")
    built.add_edge("node", END)
    return built


async def test_an_interrupt_says_what_it_expects(tmp_path: Path) -> None:
    def ask(state: State) -> dict[str, Any]:
        return {"answer": interrupt("how much?", response_schema=SCHEMA)}

    address = str(tmp_path / "s.db")
    async with SqliteCheckpointer.from_conn_string(address) as saver:
        live = await graph(ask).compile(checkpointer=saver).ainvoke({"answer": None}, CONFIG)
    async with SqliteCheckpointer.from_conn_string(address) as saver:
        stored = await graph(ask).compile(checkpointer=saver).aget_state(CONFIG)
    assert live["__interrupt__"][0].response_schema == SCHEMA
    assert stored.interrupts[0].response_schema == SCHEMA


def test_a_send_has_its_timeout() -> None:
    codec = Codec()
    send = Send("n", 1, timeout=5)
    assert codec.decode(codec.encode(send)).timeout == send.timeout


async def test_the_text_of_an_answer_can_be_stored(tmp_path: Path) -> None:
    async with SqliteCheckpointer.from_conn_string(str(tmp_path / "s.db")) as saver:
        built = graph(lambda state: {"answer": AIMessage("hello").text}).compile(checkpointer=saver)
        assert (await built.ainvoke({"answer": None}, CONFIG))["answer"] == "hello"


@pytest.mark.parametrize(
    "value",
    [defaultdict(list, a=[1]), OrderedDict(a=1), Counter("aab")],
    ids=["defaultdict", "OrderedDict", "Counter"],
)
def test_maps_of_the_standard_library_come_back_equal(value: Any) -> None:
    codec = Codec()
    assert codec.decode(codec.encode(value)) == value
