"""The ring of events: what is kept, found, counted, and shown."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.language_models import FakeListLLM
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    CallbackEvent,
    ConfigurationError,
    Principal,
)
from agent_runtime.testing import ScriptedChatModel, say


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TWO_STEPS = [say("", ("add", {"a": 1, "b": 2})), say("it is three")]


async def test_events_are_found_by_type_time_run_session_and_user(make_agent: Any) -> None:
    handler = AgentCallbackHandler()
    agent, _ = make_agent(
        TWO_STEPS, [add], callback_handler=handler, graph={"checkpointer": InMemorySaver()}
    )
    first = await agent.execute(AgentContext("x", session_id="s1", principal=Principal("ada")))
    middle = time.time()
    second = await agent.execute(AgentContext("y", session_id="s2", principal=Principal("bob")))
    assert {e.run_id for e in handler.events()} == {first.run_id, second.run_id}
    assert {e.session_id for e in handler.events(run_id=first.run_id)} == {"s1"}
    assert {e.run_id for e in handler.events(user_id="bob")} == {second.run_id}
    assert {e.run_id for e in handler.events(session_id="s1")} == {first.run_id}
    assert {e.run_id for e in handler.events(since=middle)} == {second.run_id}
    assert {e.run_id for e in handler.events(until=middle)} == {first.run_id}
    assert [e.name for e in handler.events("tool_*")] == ["add", "add"]
    ends = handler.events("llm_end", run_id=first.run_id)
    assert all(e.duration_s is not None and e.duration_s >= 0 for e in ends)
    assert {e.call_id for e in handler.events("llm_start")} == {
        e.call_id for e in handler.events("llm_end")
    }


async def test_summary_and_to_dict(make_agent: Any) -> None:
    agent, _ = make_agent(TWO_STEPS, [add])
    result = await agent.execute("x")
    summary = agent.callback_handler.summary(result.run_id)
    assert (summary.runs, summary.llm_calls, summary.tool_calls, summary.errors) == (1, 2, 1, 0)
    assert (summary.input_tokens, summary.output_tokens, summary.tools) == (20, 10, {"add": 1})
    shown = json.loads(json.dumps(agent.callback_handler.to_dict()))
    assert (shown["recorded"], shown["dropped"], len(shown["events"])) == (8, 0, 8)
    agent.callback_handler.clear()
    assert agent.callback_handler.events() == []


async def test_content_is_kept_only_when_asked(make_agent: Any) -> None:
    agent, _ = make_agent([say("", ("add", {"a": 4711, "b": 2})), say("answer-text")], [add])
    await agent.execute("question-text")
    assert not any(
        word in repr(agent.callback_handler.events())
        for word in ("4711", "question-text", "answer-text")
    )
    handler = AgentCallbackHandler(content=True)
    agent, _ = make_agent(
        [say("", ("add", {"a": 4711, "b": 2})), say("answer-text")], [add], callback_handler=handler
    )
    await agent.execute("question-text")
    assert all(word in repr(handler.events()) for word in ("4711", "question-text", "answer-text"))


async def test_tokens_go_to_on_token_and_into_the_ring_when_asked(make_agent: Any) -> None:
    printed: list[str] = []
    handler = AgentCallbackHandler(on_token=printed.append, capture=["token"])
    agent, _ = make_agent([say("one two three")], callback_handler=handler)
    async with agent.execute_stream("x") as stream:
        _ = [t async for t in stream]
    assert (
        printed
        == ["one ", "two ", "three"]
        == [e.data["text"] for e in handler.events("llm_new_token")]
    )
    assert {e.type for e in handler.events()} == {"llm_new_token"}


def test_the_ring_keeps_the_newest_and_counts_the_rest() -> None:
    handler = AgentCallbackHandler(max_events=3)
    for i in range(5):
        handler.record(CallbackEvent("llm_start", str(i)))
    assert [e.run_id for e in handler.events()] == ["2", "3", "4"]
    assert (handler.recorded, handler.dropped) == (5, 2)


@given(
    st.lists(
        st.sampled_from(
            ["llm_start", "tool_end", "chain_start", "llm_new_token", "interrupt", "resume"]
        )
    )
)
def test_only_captured_families_are_kept(kinds: list[str]) -> None:
    handler = AgentCallbackHandler(max_events=1000, capture=["llm", "interrupt"])
    for kind in kinds:
        handler.record(CallbackEvent(kind, "r"))
    assert [e.type for e in handler.events()] == [
        k for k in kinds if k in ("llm_start", "interrupt", "resume")
    ]


@pytest.mark.parametrize("wrong", [{"max_events": 0}, {"capture": ["everything"]}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AgentCallbackHandler(**wrong)


async def test_alone_it_works_in_any_langchain_call() -> None:
    handler = AgentCallbackHandler(
        capture=["llm", "tool", "chain", "token", "interrupt"], content=True
    )
    graph = create_agent(ScriptedChatModel(script=TWO_STEPS), [add])
    await graph.ainvoke({"messages": "x"}, {"callbacks": [handler], "metadata": {"user_id": "ada"}})
    graph.invoke({"messages": "x"}, {"callbacks": [handler]})
    kinds = [e.type for e in handler.events()]
    assert kinds.count("llm_start") == kinds.count("llm_end") == 3
    assert kinds.count("chain_start") == kinds.count("chain_end")
    assert handler.events("tool_end")[0].duration_s is not None
    assert len({e.run_id for e in handler.events()}) == 2
    assert handler.events(user_id="ada")
    FakeListLLM(responses=["plain"]).invoke("x", {"callbacks": [handler]})
    assert handler.events("llm_end")[-1].data == {"message": None}


async def test_alone_it_hears_errors_interrupts_and_resumes() -> None:
    @tool
    def broken() -> str:
        """Break."""
        raise ZeroDivisionError

    handler = AgentCallbackHandler(capture=["llm", "tool", "chain", "interrupt"])
    with pytest.raises(ZeroDivisionError):
        model = ScriptedChatModel(script=[say("", ("broken", {}))])
        await create_agent(model, [broken]).ainvoke({"messages": "x"}, {"callbacks": [handler]})
    with pytest.raises(ValueError, match="boom"):
        await ScriptedChatModel(script=[say(fail=ValueError("boom"))]).ainvoke(
            "x", {"callbacks": [handler]}
        )
    assert {e.type for e in handler.events("*_error")} == {"tool_error", "chain_error", "llm_error"}

    def ask(state: Any) -> Any:
        interrupt("?")
        return {}

    saver = InMemorySaver()
    graph = (
        StateGraph(MessagesState)
        .add_node("ask", ask)
        .set_entry_point("ask")
        .compile(checkpointer=saver)
    )
    config: Any = {"configurable": {"thread_id": "t"}, "callbacks": [handler]}
    await graph.ainvoke({"messages": "x"}, config)
    await graph.ainvoke(Command(resume=1), config)
    assert [e.type for e in handler.events() if e.type in ("interrupt", "resume")] == [
        "interrupt",
        "resume",
    ]
