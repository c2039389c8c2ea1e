"""langgraph #5932, #5010, supervisor-py #226.

Every stream mode gives through the layers what the graph alone gives.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState

from agent_runtime import AgentExecutor, gated
from agent_runtime.testing import ScriptedChatModel, say

MODES: list[Any] = [
    "values", "updates", "messages", "custom", "tasks", "checkpoints", ["messages"], ["messages",
    "updates"],
    ["values", "custom", "messages"], ["updates", "tasks", "debug"],
]  # fmt: skip
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CHANGING = [
    (re.compile(r"0x[0-9a-f]+"), ""),
    (UUID, "ID"),
    (re.compile(r"call_\d+_"), "call_"),
    (re.compile(r"'(?:timestamp|ts|langsmith_\w+|run_id|ls_integration)': [^,}]+"), ""),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]+"), "T"),
    (re.compile(r"'metadata': \{[^{}]*\}|lc_run--ID|'callbacks': [^,]+,"), ""),
]


def add(a: int, b: int) -> str:
    """Add."""
    get_stream_writer()({"adding": a})
    return str(a + b)


def script(messages: list[BaseMessage]) -> Any:
    asks = messages[-1].type == "human"
    return say("Let me add ", ("add", {"a": 1, "b": 2})) if asks else say("It is three.")


def build(*, is_gated: bool, is_nested: bool) -> Any:
    model = ScriptedChatModel(script=script)
    agent = create_agent(gated(model) if is_gated else model, [add], name="calc")
    if not is_nested:
        return agent

    def before(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()({"node": "before"})
        return {}

    def after(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("bye", id="bye")]}

    graph = StateGraph(MessagesState)
    graph.add_node("before", before)
    graph.add_node("calc", agent)
    graph.add_node("after", after)
    for first, second in itertools.pairwise([START, "before", "calc", "after", END]):
        graph.add_edge(first, second)
    return graph.compile()


def stable(part: Any) -> str:
    text = repr(part)
    for pattern, replacement in CHANGING:
        text = pattern.sub(replacement, text)
    return text


async def parts(runnable: Any, **how: Any) -> list[str]:
    state = {"messages": [HumanMessage("1+2", id="h")]}
    return [stable(part)[:60] async for part in runnable.astream(state, **how)]


@pytest.mark.parametrize("is_nested", [False, True], ids=["agent", "graph"])
@pytest.mark.parametrize("is_gated", [False, True], ids=["as it is", "gated"])
async def test_every_mode_version_and_depth(is_nested: bool, is_gated: bool) -> None:
    graph = build(is_gated=is_gated, is_nested=is_nested)
    agent = AgentExecutor(build(is_gated=is_gated, is_nested=is_nested), gated=is_gated)
    for mode, version, subgraphs in itertools.product(MODES, ("v1", "v2"), (False, True)):
        how = {"stream_mode": mode, "version": version, "subgraphs": subgraphs}
        assert await parts(agent, **how) == await parts(graph, **how), how
