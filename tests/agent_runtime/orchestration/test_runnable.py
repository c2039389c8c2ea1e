"""The LangChain face: LangGraph's shapes and defaults, a root run, chains, nodes, batches, sync."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.tools import ToolRuntime
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    AgentExecutor,
    AgentFailed,
    AgentResult,
    ConfigurationError,
    Handler,
    InputInvalid,
    InterruptChunk,
    LimitExceeded,
    Middleware,
    Principal,
    RunLimits,
    TextChunk,
    Timeouts,
)
from agent_runtime.orchestration.sync import LOOP_THREAD
from agent_runtime.testing import ScriptedChatModel, say


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@dataclass
class Ctx:
    user: str


def two_steps(messages: list[Any]) -> Any:
    return (
        say("it is three")
        if messages[-1].type == "tool"
        else say("let me see", ("add", {"a": 1, "b": 2}))
    )


class Count(Middleware):
    def __init__(self) -> None:
        self.calls: list[AgentContext] = []

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        self.calls.append(context)
        return await next_call(context)


@pytest.fixture
def pair(make_agent: Any) -> tuple[AgentExecutor, Any, Count]:
    """An executor, the bare graph it wraps, and its one layer."""
    layer = Count()
    agent, _ = make_agent(two_steps, [add], pipeline=[layer])
    return agent, agent.agent, layer


def shape(item: Any) -> Any:
    """What stays the same between two runs: types and texts, not ids."""
    if isinstance(item, tuple):
        return tuple(shape(i) for i in item)
    if isinstance(item, list):
        return [shape(i) for i in item]
    if isinstance(item, dict):
        return {
            k: shape(v)
            for k, v in item.items()
            if k in ("type", "data", "messages", "model", "tools", "interrupts")
        }
    return (type(item).__name__, str(item.text)) if hasattr(item, "text") else item


async def test_ainvoke_returns_what_the_agent_returns(pair: Any) -> None:
    agent, bare, layer = pair
    ours = await agent.ainvoke({"messages": "1+2"})
    theirs = await bare.ainvoke({"messages": "1+2"})
    assert shape(ours) == shape(theirs)
    ours = await agent.ainvoke({"messages": "1+2"}, stream_mode="updates")
    assert shape(ours) == shape(await bare.ainvoke({"messages": "1+2"}, stream_mode="updates"))
    ours = await agent.ainvoke({"messages": "1+2"}, version="v2")
    assert shape(ours.value) == shape((await bare.ainvoke({"messages": "1+2"}, version="v2")).value)
    assert len(layer.calls) == 3


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize(
    "mode", [None, "messages", "values", "updates", ["messages", "updates"], ["values", "custom"]]
)
async def test_astream_yields_what_the_agents_astream_yields(
    pair: Any, version: Any, subgraphs: bool, mode: Any
) -> None:
    agent, bare, layer = pair
    options: dict[str, Any] = {
        "version": version,
        "subgraphs": subgraphs,
        **({} if mode is None else {"stream_mode": mode}),
    }
    ours = [shape(p) async for p in agent.astream({"messages": "1+2"}, **options)]
    theirs = [shape(p) async for p in bare.astream({"messages": "1+2"}, **options)]
    assert ours == theirs
    assert len(layer.calls) == 1


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("mode", ["messages", "values", ["messages", "updates"]])
async def test_an_agent_nested_in_a_graph_streams_as_langgraph_streams_it(
    make_agent: Any, subgraphs: bool, mode: Any
) -> None:
    inner = make_agent(two_steps, [add])[0].agent
    bare: Any = (
        StateGraph(MessagesState).add_node("inner", inner).set_entry_point("inner").compile()
    )
    agent = AgentExecutor(bare)
    options: dict[str, Any] = {"subgraphs": subgraphs, "stream_mode": mode, "version": "v2"}
    ours = [shape(p) async for p in agent.astream({"messages": "1+2"}, **options)]
    assert ours == [shape(p) async for p in bare.astream({"messages": "1+2"}, **options)]
    async with agent.execute_stream("1+2") as stream:
        assert "".join([t async for t in stream]) == "let me seeit is three"
    assert stream.text == "it is three"


async def test_astream_closed_early_cancels_the_call(make_agent: Any, no_tasks_left: None) -> None:
    agent, _ = make_agent([say("word " * 100)], delay_s=0.001)
    parts = agent.astream({"messages": "x"}, stream_mode="messages")
    await anext(parts)
    await parts.aclose()
    assert agent.callback_handler.events("run_error")[0].data["error"] == "cancelled"
    assert agent.callback_handler.events("run_error")[0].data["usage"]["estimated"] is True


async def test_one_root_run_with_the_agent_below_it(pair: Any) -> None:
    agent, _, _ = pair
    starts: list[Any] = []

    class Tree(BaseCallbackHandler):
        run_inline = True

        def on_chain_start(
            self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, **kw: Any
        ) -> None:
            starts.append((kw.get("name"), run_id, parent_run_id, kw.get("tags")))

    await agent.ainvoke(
        {"messages": "1+2"}, {"callbacks": [Tree()], "tags": ["mine"], "metadata": {"team": "a"}}
    )
    roots = [s for s in starts if s[2] is None]
    assert len(roots) == 1
    assert starts[1][2] == roots[0][1]
    assert all("mine" in s[3] for s in starts)
    starts.clear()
    async for _ in agent.astream({"messages": "1+2"}, {"callbacks": [Tree()]}):
        pass
    assert len([s for s in starts if s[2] is None]) == 1


async def test_a_standalone_handler_in_config_hears_everything_beside_ours(pair: Any) -> None:
    agent, _, _ = pair
    theirs = AgentCallbackHandler(capture=["llm", "tool", "chain", "token"])
    await agent.ainvoke({"messages": "1+2"}, {"callbacks": [theirs]})
    summary = theirs.summary()
    assert (summary.llm_calls, summary.tool_calls, summary.errors) == (2, 1, 0)
    assert summary.input_tokens == 20
    assert summary.tools == {"add": 1}
    assert summary.runs == 1
    assert theirs.events("chain_*")
    assert agent.callback_handler.summary().llm_calls == 2


async def test_inside_a_chain_the_next_step_gets_the_final_state(pair: Any) -> None:
    agent, _, layer = pair
    prompt = ChatPromptTemplate.from_messages([("human", "{q}")])
    chain = prompt | agent | RunnableLambda(lambda s: s["messages"][-1].text)
    assert await chain.ainvoke({"q": "1+2"}) == "it is three"
    assert [p async for p in chain.astream({"q": "1+2"})] == ["it is three"]
    assert await chain.abatch([{"q": "1+2"}] * 3) == ["it is three"] * 3
    assert len(layer.calls) == 5


async def test_text_is_a_runnable_that_streams_through_a_chain(pair: Any) -> None:
    agent, _, layer = pair
    prompt = ChatPromptTemplate.from_messages([("human", "{q}")])
    chain = prompt | agent.text | RunnableLambda(str.upper)
    assert await chain.ainvoke({"q": "1+2"}) == "IT IS THREE"
    tokens = [p async for p in (prompt | agent.text).astream({"q": "1+2"})]
    assert "".join(tokens) == "let me seeit is three"
    assert len(tokens) > 2
    assert len(layer.calls) == 2


async def test_events_v2_have_one_root_and_v3_is_refused(pair: Any) -> None:
    agent, _, layer = pair
    events = [e async for e in agent.astream_events({"messages": "1+2"}, version="v2")]
    assert events[0]["event"] == "on_chain_start"
    assert sum(not e["parent_ids"] for e in events if e["event"] == "on_chain_start") == 1
    assert sum(e["event"] == "on_chat_model_stream" for e in events) >= 5
    assert len(layer.calls) == 1
    with pytest.raises(NotImplementedError, match="around the layers"):
        agent.astream_events({"messages": "x"}, version="v3")


async def test_as_a_langgraph_node_the_parent_sees_the_tokens(pair: Any) -> None:
    agent, _, layer = pair
    parent = StateGraph(MessagesState).add_node("helper", agent).set_entry_point("helper").compile()
    result = await parent.ainvoke({"messages": "1+2"})
    assert result["messages"][-1].text == "it is three"
    tokens = [
        data[0].text
        async for _, data in parent.astream(
            {"messages": "1+2"}, stream_mode="messages", subgraphs=True
        )
        if data[0].type == "AIMessageChunk"
    ]
    assert "".join(tokens) == "let me seeit is three"
    assert len(layer.calls) == 2
    assert parent.invoke({"messages": "1+2"})["messages"][-1].text == "it is three"


async def test_the_runnable_face_raises_the_original_error_with_a_note(make_agent: Any) -> None:
    agent, _ = make_agent([say(fail=KeyError("provider's own"))])
    for call in (
        agent.ainvoke({"messages": "x"}),
        anext(agent.astream({"messages": "x"})),
        agent.text.ainvoke({"messages": "x"}),
        anext(agent.text.astream({"messages": "x"})),
    ):
        with pytest.raises(KeyError, match="provider's own") as failed:
            await call
        assert any("agent_runtime: run" in note for note in failed.value.__notes__)
        assert failed.value.__cause__ is None
    inner = OSError("socket")
    outer = KeyError("outer")
    outer.__cause__ = inner
    agent, _ = make_agent([say(fail=outer)])
    with pytest.raises(KeyError) as caused:
        await agent.ainvoke({"messages": "x"})
    assert caused.value.__cause__ is inner
    with pytest.raises(KeyError):
        await asyncio.to_thread(agent.invoke, {"messages": "x"})
    agent, _ = make_agent(two_steps, [add], limits=RunLimits(model_calls=1))
    with pytest.raises(LimitExceeded):
        await agent.ainvoke({"messages": "x"})
    with pytest.raises(InputInvalid):
        await agent.ainvoke([])


async def test_thread_id_is_the_session_and_without_one_nothing_is_left_behind(
    make_agent: Any,
) -> None:
    saver = InMemorySaver()
    layer = Count()
    agent, _ = make_agent([say("one"), say("two")], graph={"checkpointer": saver}, pipeline=[layer])
    await agent.ainvoke({"messages": "a"}, {"configurable": {"thread_id": "t"}})
    state = await agent.ainvoke({"messages": "b"}, {"configurable": {"thread_id": "t"}})
    assert len(state["messages"]) == 4
    assert layer.calls[0].session_id == "t"
    before = len(list(saver.list(None)))
    await agent.ainvoke({"messages": "c"})
    await agent.execute("d")
    assert len(list(saver.list(None))) == before


async def test_the_callers_credentials_reach_the_layers_and_no_checkpoint(make_agent: Any) -> None:
    saver = InMemorySaver()
    layer = Count()
    agent, _ = make_agent([say("x")], graph={"checkpointer": saver}, pipeline=[layer])
    bound = agent.with_caller(principal=Principal("u1", "acme"), credentials="dummy-secret")
    await bound.execute(AgentContext("hello", session_id="s"))
    await bound.ainvoke({"messages": "hello"}, {"configurable": {"thread_id": "s"}})
    assert [(c.principal.id, c.credentials) for c in layer.calls if c.principal] == [
        ("u1", "dummy-secret")
    ] * 2
    assert "dummy-secret" not in repr(layer.calls)
    assert "dummy-secret" not in repr(list(saver.list(None)))
    await agent.execute("hello")
    assert layer.calls[-1].principal is None
    assert bound.callback_handler.events("run_start", user_id="u1")


async def test_runtime_context_is_passed_on(make_agent: Any) -> None:
    @tool
    async def who(runtime: ToolRuntime[Ctx]) -> str:
        """Say who."""
        return runtime.context.user

    script = lambda m: say(str(m[-1].text)) if m[-1].type == "tool" else say("", ("who", {}))  # noqa: E731
    agent, _ = make_agent(script, [who], graph={"context_schema": Ctx})
    assert (await agent.ainvoke({"messages": "x"}, context=Ctx("ada")))["messages"][
        -1
    ].text == "ada"
    assert (await agent.execute(AgentContext("x", context=Ctx("bob")))).output == "bob"


def asks(state: Any) -> Any:
    decision = interrupt({"question": "go on?"})
    return {"messages": [AIMessage(f"decided {decision}", id="final")]}


async def test_an_interrupt_is_a_result_and_resumes_by_command() -> None:
    graph = (
        StateGraph(MessagesState)
        .add_node("ask", asks)
        .set_entry_point("ask")
        .compile(checkpointer=InMemorySaver())
    )
    agent = AgentExecutor(graph)
    first = await agent.execute(AgentContext("x", session_id="s"))
    assert (first.status, first.output) == ("interrupted", "")
    assert first.interrupts[0].value == {"question": "go on?"}
    assert agent.callback_handler.events("*_error") == []
    assert len(agent.callback_handler.events("interrupt")) == 1
    second = await agent.execute(AgentContext(Command(resume="yes"), session_id="s"))
    assert (second.status, second.output) == ("completed", "decided yes")
    async with agent.execute_stream(AgentContext("x", session_id="s2")) as stream:
        chunks = [c async for c in stream.chunks()]
    assert isinstance(chunks[-1], InterruptChunk)
    assert stream.result.status == "interrupted"
    async with agent.execute_stream(AgentContext(Command(resume="no"), session_id="s2")) as stream:
        chunks = [c async for c in stream.chunks()]
    assert chunks == [TextChunk("final", "decided no")]


async def test_an_interrupt_inside_a_node_passes_the_layers_as_control_flow() -> None:
    inner = AgentExecutor(
        StateGraph(MessagesState).add_node("ask", asks).set_entry_point("ask").compile()
    )
    parent = (
        StateGraph(MessagesState)
        .add_node("n", inner)
        .set_entry_point("n")
        .compile(checkpointer=InMemorySaver())
    )
    config: Any = {"configurable": {"thread_id": "p"}}
    paused = await parent.ainvoke({"messages": "x"}, config)
    assert paused["__interrupt__"][0].value == {"question": "go on?"}
    resumed = await parent.ainvoke(Command(resume="sure"), config)
    assert resumed["messages"][-1].text == "decided sure"
    assert inner.callback_handler.events("run_error") == []


async def test_any_runnable_can_be_wrapped() -> None:
    chain = AgentExecutor(RunnableLambda(lambda x: f"<{x}>"))
    assert (await chain.execute("a")).output == "<a>"
    assert await chain.ainvoke("a") == "<a>"
    assert [p async for p in chain.astream("a")] == ["<a>"]
    async with chain.execute_stream("a") as stream:
        assert [t async for t in stream] == ["<a>"]
    assert stream.text == "<a>"
    model = AgentExecutor(ScriptedChatModel(script=[say("hello there you")]))
    result = await model.execute("a")
    assert (result.output, result.usage.model_calls, [m.type for m in result.messages]) == (
        "hello there you",
        1,
        ["ai"],
    )
    async with model.execute_stream("a") as stream:
        assert [t async for t in stream] == ["hello ", "there ", "you"]
    assert stream.text == "hello there you"
    assert "".join([p.text async for p in model.astream("a")]) == "hello there you"
    data = AgentExecutor(RunnableLambda(lambda x: {"n": 1, "é": [2]}))
    assert (await data.execute("a")).output == '{"n": 1, "é": [2]}'


async def test_a_graph_without_messages_says_what_it_takes() -> None:
    from typing import TypedDict

    class State(TypedDict):
        number: int

    graph = (
        StateGraph(State)
        .add_node("n", lambda s: {"number": s["number"] + 1})
        .set_entry_point("n")
        .compile()
    )
    agent = AgentExecutor(graph)
    assert (await agent.execute({"number": 1})).value == {"number": 2}
    with pytest.raises(InputInvalid, match="number"):
        await agent.execute("text")


def test_sync_calls_share_one_loop_thread(make_agent: Any) -> None:
    agent, _ = make_agent(two_steps, [add])
    assert agent.execute_sync("1+2").output == "it is three"
    assert agent.invoke({"messages": "1+2"})["messages"][-1].text == "it is three"
    assert [m.text for m, _ in agent.stream({"messages": "1+2"}, stream_mode="messages")][:2] == [
        "let ",
        "me ",
    ]
    assert agent.text.invoke({"messages": "1+2"}) == "it is three"
    assert "".join(agent.text.stream({"messages": "1+2"})) == "let me seeit is three"
    assert agent.batch([{"messages": "1+2"}] * 3)[2]["messages"][-1].text == "it is three"
    chain = agent | RunnableLambda(lambda s: s["messages"][-1].text)
    assert list(chain.stream({"messages": "1+2"})) == ["it is three"]
    names = [t.name for t in threading.enumerate() if t.name == "agent_runtime sync calls"]
    assert names == ["agent_runtime sync calls"]


def test_a_sync_chain_of_two_executors_streams(make_agent: Any) -> None:
    first, _ = make_agent([say("one")])
    second, _ = make_agent([say("two")])
    assert [s["messages"][-1].text for s in (first | second).stream({"messages": "x"})] == ["two"]


async def test_v2_output_and_idle_keep_langgraphs_shapes(make_agent: Any) -> None:
    agent, _ = make_agent([say("hi")], timeouts=Timeouts(idle_s=5))
    assert (await agent.ainvoke({"messages": "x"}, version="v2")).value["messages"][-1].text == "hi"
    assert list((await agent.ainvoke({"messages": "x"}, stream_mode="updates"))[0]) == ["model"]
    assert await agent.text.ainvoke({"messages": "x"}) == "hi"
    with pytest.raises(InputInvalid, match="UUID"):
        await agent.execute(AgentContext("x", run_id="my-run-1"))


def test_a_sync_stream_closed_early_cancels_the_call(make_agent: Any) -> None:
    agent, _ = make_agent([say("word " * 100)], delay_s=0.001)
    stream = agent.stream({"messages": "x"}, stream_mode="messages")
    next(stream)
    stream.close()
    assert agent.callback_handler.events("run_error")[0].data["error"] == "cancelled"


def test_a_sync_call_that_would_wait_for_itself_is_an_error(make_agent: Any) -> None:
    agent, _ = make_agent([say("x")])

    async def from_the_loop_thread() -> Any:
        return agent.execute_sync("x")

    with pytest.raises(ConfigurationError, match="wait for itself"):
        LOOP_THREAD.run(from_the_loop_thread())


def test_an_exception_in_the_waiting_thread_cancels_the_call(
    make_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = make_agent([say("x")], delay_s=30)
    waits = threading.Event.wait
    calls: list[int] = []

    def interrupted(self: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and not calls:
            calls.append(1)
            waits(self, 0.2)
            raise KeyboardInterrupt
        return waits(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        agent.execute_sync("x")
    assert agent.callback_handler.events("run_error")[0].data["error"] == "cancelled"


async def test_two_hundred_concurrent_calls_do_not_mix(make_agent: Any) -> None:
    agent, _ = make_agent(lambda m: say(f"you said {m[-1].text}"))
    results = await asyncio.gather(*(agent.execute(f"n{i}") for i in range(200)))
    assert [r.output for r in results] == [f"you said n{i}" for i in range(200)]
    assert {r.usage.model_calls for r in results} == {1}


async def test_schemas_and_drawing_are_the_agents_own(pair: Any) -> None:
    agent, bare, _ = pair
    assert agent.get_input_jsonschema() == bare.get_input_jsonschema()
    assert agent.get_output_jsonschema() == bare.get_output_jsonschema()
    assert set(agent.get_graph().nodes) == set(bare.get_graph().nodes)


async def test_messages_with_a_failing_tool_carry_the_cause(make_agent: Any) -> None:
    @tool
    def broken() -> str:
        """Break."""
        raise ZeroDivisionError("oops")

    agent, _ = make_agent([say("", ("broken", {}))], [broken])
    with pytest.raises(AgentFailed, match="ZeroDivisionError: oops") as failed:
        await agent.execute([HumanMessage("x")])
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert [e.data["error"] for e in agent.callback_handler.events("tool_error")] == [
        "ZeroDivisionError"
    ]


async def test_a_plain_graph_from_create_agent_streams_whole_messages_when_text_is_held(
    make_agent: Any,
) -> None:
    agent, _ = make_agent([say("one two three")], hold_text=True)
    async with agent.execute_stream("x") as stream:
        assert [t async for t in stream] == ["one two three"]
