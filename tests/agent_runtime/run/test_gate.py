"""The gate.

Every model and tool call is seen, limits refuse before the call, usage is right whatever happens.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelRetryMiddleware,
    SummarizationMiddleware,
    ToolErrorMiddleware,
)
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from tests.support.calls import run_call

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFailed,
    Budget,
    CallTimeout,
    ConfigurationError,
    CostTrackingMiddleware,
    LimitExceeded,
    MemoryLedger,
    Principal,
    RunLimits,
    Timeouts,
    ToolLoop,
    gated,
)
from agent_runtime.budgets.prices import PRICES
from agent_runtime.factory.build_tools import agent_tool
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.run.request import _request_conditions
from agent_runtime.testing import ScriptedChatModel, say


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def looping(messages: list[Any]) -> Any:
    return say("again", ("add", {"a": len(messages), "b": 1}))


async def test_a_model_hidden_in_a_tool_is_counted_once(make_agent: Any) -> None:
    hidden = ScriptedChatModel(script=[say("inner", usage=(100, 50))])

    @tool
    async def ask() -> str:
        """Ask a model that the factory has never seen."""
        return str((await hidden.ainvoke("q")).text)

    @tool
    def ask_sync() -> str:
        """The same from a sync tool, in a thread."""
        return str(hidden.invoke("q").text)

    for inner in (ask, ask_sync):
        agent, _ = make_agent([say("", (inner.name, {})), say("ok")], [inner])
        usage = (await agent.execute("x")).usage
        assert (usage.model_calls, usage.input_tokens, usage.output_tokens) == (3, 120, 60)


async def test_a_gated_model_hidden_in_a_tool_is_counted_once(make_agent: Any) -> None:
    hidden = gated(ScriptedChatModel(script=[say("inner", usage=(100, 50))]))

    @tool
    async def ask() -> str:
        """Ask a gated model."""
        return str((await hidden.ainvoke("q")).text)

    agent, _ = make_agent([say("", ("ask", {})), say("ok")], [ask])
    assert (await agent.execute("x")).usage.model_calls == 3


async def test_a_model_hidden_in_middleware_is_counted(make_agent: Any) -> None:
    summarizer = gated(ScriptedChatModel(script=[say("a summary", usage=(70, 7))]))
    middleware = [
        SummarizationMiddleware(summarizer, trigger=("messages", 3), keep=("messages", 1))
    ]
    agent, _ = make_agent([say("ok")], graph={"middleware": middleware})
    messages = [("human", "a"), ("ai", "b"), ("human", "c"), ("ai", "d"), ("human", "e")]
    async with agent.execute_stream(messages) as stream:
        texts = [t async for t in stream]
    assert stream.result.usage.model_calls == 2
    assert stream.result.usage.input_tokens == 80
    assert texts == ["ok"]  # the summary's tokens are not the answer's


async def test_a_foreign_agent_is_counted_through_callbacks() -> None:
    model = ScriptedChatModel(script=[say("", ("add", {"a": 1, "b": 2})), say("three")])
    agent = AgentExecutor(create_agent(model, [add]))
    result = await agent.execute("x")
    assert (result.usage.model_calls, result.usage.tool_calls, result.usage.total_tokens) == (
        2,
        1,
        30,
    )
    kinds = [e.type for e in agent.callback_handler.events()]
    assert kinds.count("llm_start") == kinds.count("llm_end") == 2
    assert kinds.count("tool_start") == kinds.count("tool_end") == 1


async def test_a_foreign_graph_with_a_gated_model_and_tool_is_counted_once() -> None:
    model = gated(ScriptedChatModel(script=[say("", ("add", {"a": 1, "b": 2})), say("three")]))
    result = await AgentExecutor(create_agent(model, [gated_tool(add)])).execute("x")
    assert (result.usage.model_calls, result.usage.tool_calls) == (2, 1)


@pytest.mark.parametrize("foreign", [False, True])
async def test_model_calls_are_refused_before_the_call_and_the_run_can_be_resumed(
    foreign: bool,
) -> None:
    model = ScriptedChatModel(script=[say("", ("add", {"a": 1, "b": 2})), say("three")])
    saver = InMemorySaver()
    graph = create_agent(
        model if foreign else gated(model),
        [add if foreign else gated_tool(add)],
        checkpointer=saver,
    )
    agent = AgentExecutor(graph, gated=not foreign, limits=RunLimits(model_calls=1))
    with pytest.raises(LimitExceeded) as refused:
        await agent.execute(AgentContext("x", session_id="s"))
    assert (refused.value.limit, refused.value.maximum) == ("model_calls", 1)
    assert refused.value.usage.model_calls == 1
    assert model.calls == 1
    resumed = await AgentExecutor(graph, gated=not foreign).execute(
        AgentContext(None, session_id="s")
    )
    assert resumed.output == "three"
    assert [m.type for m in resumed.messages] == ["human", "ai", "tool", "ai"]


async def test_a_token_limit_refuses_the_next_call(make_agent: Any) -> None:
    agent, model = make_agent(looping, [add], limits=RunLimits(tokens=30))
    with pytest.raises(LimitExceeded, match="tokens"):
        await agent.execute("x")
    assert model.calls == 2


async def test_a_tool_call_limit_refuses_before_the_tool_runs(make_agent: Any) -> None:
    agent, _ = make_agent(looping, [add], limits=RunLimits(tool_calls=2))
    with pytest.raises(LimitExceeded, match="tool_calls") as refused:
        await agent.execute("x")
    assert refused.value.usage.tool_calls == 2


async def test_the_same_tool_call_again_and_again_is_a_loop(make_agent: Any) -> None:
    agent, _ = make_agent(
        lambda _: say("", ("add", {"a": 1, "b": 1})), [add], limits=RunLimits(tool_loop=3)
    )
    with pytest.raises(ToolLoop, match="'add' with the same arguments") as refused:
        await agent.execute("x")
    assert refused.value.code == "tool_loop"
    assert refused.value.usage.tool_calls == 3


async def test_tools_that_start_at_once_in_threads_do_not_slip_past_the_limit(
    make_agent: Any,
) -> None:
    ran: list[int] = []

    @tool
    def work(n: int) -> str:
        """Work in a thread."""
        ran.append(n)
        return "done"

    calls = [("work", {"n": n}) for n in range(60)]
    agent, _ = make_agent([say("", *calls), say("ok")], [work], limits=RunLimits(tool_calls=25))
    with pytest.raises(LimitExceeded):
        await agent.execute("x")
    assert len(ran) <= 25
    agent, _ = make_agent([say("", *calls), say("ok")], [work])
    assert (await agent.execute("x")).usage.tool_calls == 60


async def test_an_inner_agent_is_called_by_the_outer_ones_caller(make_agent: Any) -> None:
    inner, _ = make_agent([say("inside")], name="inner")
    agent, _ = make_agent([say("", ("inner", {"request": "q"})), say("ok")], [agent_tool(inner)])
    await agent.with_caller(principal=Principal("ada")).execute("x")
    assert {e.user_id for e in inner.callback_handler.events()} == {"ada"}


async def test_max_steps_is_a_limit_not_a_recursion_error(make_agent: Any) -> None:
    agent, _ = make_agent(looping, [add], limits=RunLimits(max_steps=6))
    with pytest.raises(LimitExceeded, match="max_steps"):
        await agent.execute("x")


async def test_nothing_inside_the_agent_can_cure_a_refusal(
    make_agent: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @tool
    async def swallow() -> str:
        """Swallow whatever a hidden model raises."""
        try:
            await hidden.ainvoke("q")
        except Exception:  # noqa: BLE001 - that is the point
            return "never mind"
        return "?"

    hidden = ScriptedChatModel(script=[say("inner")])
    middleware = [
        ModelRetryMiddleware(initial_delay=0.001),
        ToolErrorMiddleware(lambda e, r: "cured"),
    ]
    script = [say("", ("swallow", {})), say("fine")]
    agent, model = make_agent(
        script, [swallow], limits=RunLimits(model_calls=1), graph={"middleware": middleware}
    )
    with pytest.raises(LimitExceeded):
        await agent.execute("x")
    assert (model.calls, hidden.calls) == (1, 0)
    assert not [
        r for r in caplog.records if r.name.startswith("langchain")
    ]  # no word of a handler's mistake


async def test_an_agent_used_as_a_tool_counts_towards_the_run_around_it(make_agent: Any) -> None:
    inner, inner_model = make_agent([say("from inside", usage=(100, 10))], name="inner")
    agent, _ = make_agent([say("", ("inner", {"request": "q"})), say("ok")], [agent_tool(inner)])
    result = await agent.execute("x")
    assert (result.usage.model_calls, result.usage.input_tokens) == (3, 120)
    assert result.messages[2].content == "from inside"
    async with agent.execute_stream("x") as stream:  # the script's last answer again: no tool call
        assert [t async for t in stream] == ["ok"]
    assert inner_model.calls == 1


async def test_the_outer_runs_limit_stops_the_inner_agent_too(make_agent: Any) -> None:
    inner, inner_model = make_agent(looping, [add], name="inner")
    agent, _ = make_agent(
        [say("", ("inner", {"request": "q"})), say("ok")],
        [agent_tool(inner)],
        limits=RunLimits(model_calls=3),
    )
    with pytest.raises(LimitExceeded) as refused:
        await agent.execute("x")
    assert refused.value.usage.model_calls == 3
    assert inner_model.calls == 2


async def test_an_inner_agents_own_limit_is_an_error_message_to_the_outer_model(
    make_agent: Any,
) -> None:
    inner, _ = make_agent(looping, [add], name="inner", limits=RunLimits(model_calls=1))
    agent, _ = make_agent([say("", ("inner", {"request": "q"})), say("ok")], [agent_tool(inner)])
    result = await agent.execute("x")
    assert result.output == "ok"
    assert "limit_exceeded" in str(result.messages[2].content)


async def test_the_inner_agents_tokens_do_not_reach_the_outer_reader(make_agent: Any) -> None:
    inner, _ = make_agent([say("secret inner words")], name="inner")
    agent, _ = make_agent([say("", ("inner", {"request": "q"})), say("ok")], [agent_tool(inner)])
    async with agent.execute_stream("x") as stream:
        assert [t async for t in stream] == ["ok"]


@pytest.mark.parametrize("foreign", [False, True])
async def test_usage_of_an_aborted_stream_is_estimated(foreign: bool, no_tasks_left: None) -> None:
    model = ScriptedChatModel(script=[say("word " * 200)], delay_s=0.001)
    agent = AgentExecutor(create_agent(model if foreign else gated(model)), gated=not foreign)
    async with agent.execute_stream("a question of some length") as stream:
        count = 0
        async for _ in stream:
            count += 1
            if count == 10:
                break
    usage = stream.context.usage
    assert usage.estimated is True
    assert usage.input_tokens >= 5
    assert 8 <= usage.output_tokens < 100
    assert usage.model_calls == 1


async def test_a_stream_that_langchain_leaves_suspended_is_closed_and_settled_at_once() -> None:
    """Cancelled while a handler has the token, the model's generator stays suspended until it is
    collected."""
    closed: list[str] = []
    holding = asyncio.Event()

    class Source(ScriptedChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            try:
                async for chunk in super()._astream(*args, **kwargs):
                    yield chunk
            finally:
                closed.append("closed")

    class Hold(AsyncCallbackHandler):
        async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            holding.set()
            await asyncio.sleep(30)

    keep: list[Any] = []
    agent = AgentExecutor(create_agent(gated(Source(script=[say("one two three")]))), gated=True)
    context = AgentContext("x", config={"callbacks": [Hold()]})
    try:
        async with agent.execute_stream(context):
            await asyncio.wait_for(holding.wait(), 10)
            keep += [o for o in gc.get_objects() if inspect.isasyncgen(o)]  # as a traceback does
        assert closed == ["closed"]
        assert (context.usage.estimated, context.usage.output_tokens) == (True, 1)
    finally:
        keep.clear()


async def test_a_provider_that_sends_no_usage_is_estimated(make_agent: Any) -> None:
    agent, _ = make_agent([say("some words here", usage=None)])
    usage = (await agent.execute("a question")).usage
    assert usage.estimated is True
    assert usage.output_tokens == 4
    async with agent.execute_stream("a question") as stream:
        _ = [t async for t in stream]
    assert stream.result.usage.estimated is True


async def test_usage_is_right_on_failure(make_agent: Any) -> None:
    agent, _ = make_agent([say("", ("add", {"a": 1, "b": 2})), say(fail=ValueError("boom"))], [add])
    with pytest.raises(AgentFailed) as failed:
        await agent.execute("x")
    assert failed.value.usage.model_calls == 2
    assert failed.value.usage.total_tokens == 15
    assert failed.value.cost_usd == 0


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_slow_model_call_times_out_and_is_settled(
    make_agent: Any, streaming: bool, no_tasks_left: None
) -> None:
    agent, _ = make_agent(
        [say("one two three " * 100)],
        delay_s=0.02,
        timeouts=Timeouts(model_call_s=0.1),
        pipeline=[],
    )
    if not streaming:
        agent, _ = make_agent(
            [say("x")], delay_s=5, timeouts=Timeouts(model_call_s=0.05), pipeline=[]
        )
    with pytest.raises(CallTimeout) as timeout:
        await run_call(agent, "x", streaming=streaming)
    assert timeout.value.scope == "model_call"
    assert timeout.value.usage.estimated is True


async def test_a_slow_reader_is_not_a_slow_model(make_agent: Any) -> None:
    agent, _ = make_agent(
        [say("a b c d e f g h i j k l m n o p q r s t u v w x y z")],
        timeouts=Timeouts(model_call_s=0.3, idle_s=0.3),
    )
    async with agent.execute_stream("x") as stream:
        async for _ in stream:
            await asyncio.sleep(0.03)
    assert stream.result.status == "completed"


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_agent_that_says_nothing_for_too_long_is_idle(
    make_agent: Any, streaming: bool, no_tasks_left: None
) -> None:
    @tool
    async def hang() -> str:
        """Hang."""
        await asyncio.sleep(30)
        return ""

    agent, _ = make_agent(
        [say("wait", ("hang", {})), say("x")], [hang], timeouts=Timeouts(idle_s=0.1), pipeline=[]
    )
    with pytest.raises(CallTimeout) as timeout:
        await run_call(agent, "x", streaming=streaming)
    assert timeout.value.scope == "idle"


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_run_timeout_covers_everything(
    make_agent: Any, streaming: bool, no_tasks_left: None
) -> None:
    script, delay_s = ("x y z " * 100, 0.02) if streaming else ("x", 5)
    agent, _ = make_agent([say(script)], delay_s=delay_s, timeouts=Timeouts(run_s=0.1))
    with pytest.raises(CallTimeout) as timeout:
        await run_call(agent, "x", streaming=streaming)
    assert timeout.value.scope == "run"
    assert timeout.value.usage.estimated is True


async def test_a_model_call_timeout_needs_gated_models() -> None:
    graph = StateGraph(MessagesState).add_node("n", lambda s: s).set_entry_point("n").compile()
    with pytest.raises(ConfigurationError, match="gated"):
        AgentExecutor(graph, timeouts=Timeouts(model_call_s=1))


@pytest.mark.parametrize("foreign", [False, True])
async def test_threads_of_sync_tools_that_outlive_a_cancel_are_counted_and_reported(
    foreign: bool,
) -> None:
    release = threading.Event()

    @tool
    def block() -> str:
        """Block a thread."""
        release.wait(10)
        return "late"

    model = ScriptedChatModel(script=[say("", ("block", {})), say("x")])
    graph = create_agent(
        model if foreign else gated(model), [block if foreign else gated_tool(block)]
    )
    agent = AgentExecutor(graph, gated=not foreign, timeouts=Timeouts(run_s=0.1), pipeline=[])
    with pytest.raises(CallTimeout) as timeout:
        await agent.execute("x")
    release.set()
    assert timeout.value.usage.sync_threads_left == 1
    assert [e.data["count"] for e in agent.callback_handler.events("tool_thread_left")] == [1]
    await (
        asyncio.get_running_loop().shutdown_default_executor()
    )  # let the thread end before the loop does


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_blocking_model_call_in_a_sync_tool_times_out_and_its_thread_is_counted(
    make_agent: Any, streaming: bool
) -> None:
    release = threading.Event()

    class Blocking(ScriptedChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            release.wait(10)
            return super()._generate(*args, **kwargs)

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for index, piece in enumerate(super()._stream(*args, **kwargs)):
                if index == 1:
                    release.wait(10)
                yield piece

    hidden = gated(Blocking(script=[say("too late")]))

    @tool
    def ask() -> str:
        """Ask, blocking the tool's thread."""
        return (
            "".join(str(c.text) for c in hidden.stream("q"))
            if streaming
            else str(hidden.invoke("q").text)
        )

    agent, _ = make_agent(
        [say("", ("ask", {})), say("ok")], [ask], timeouts=Timeouts(model_call_s=0.1), pipeline=[]
    )
    with pytest.raises(CallTimeout) as timeout:
        await agent.execute("x")
    release.set()
    assert timeout.value.scope == "model_call"
    assert (timeout.value.usage.estimated, timeout.value.usage.sync_threads_left) == (True, 1)


@pytest.mark.parametrize("wrong", [RunLimits, Timeouts])
def test_limits_and_timeouts_must_be_positive(wrong: Any) -> None:
    name = wrong.__slots__[0]
    with pytest.raises(ConfigurationError, match=name):
        wrong(**{name: 0})


async def test_a_model_that_streams_by_its_other_methods_is_counted_once() -> None:
    class Roundabout(ScriptedChatModel):
        async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            await self._agenerate(messages)  # as some providers do
            async for chunk in super()._astream(messages, *args, **kwargs):
                await self._agenerate(messages)
                yield chunk

    agent = AgentExecutor(create_agent(gated(Roundabout(script=[say("one two")]))), gated=True)
    async with agent.execute_stream("x") as stream:
        _ = [t async for t in stream]
    assert (stream.result.usage.model_calls, stream.result.usage.total_tokens) == (1, 15)


async def test_a_model_called_between_the_tokens_of_another_is_counted() -> None:
    outer, inner = (gated(ScriptedChatModel(script=[say("one two")])) for _ in range(2))

    async def node(state: MessagesState) -> Any:
        async for _ in outer.astream("x"):
            answer = await inner.ainvoke("y")
        return {"messages": [answer]}

    graph = StateGraph(MessagesState).add_node("n", node).set_entry_point("n").compile()
    assert (await AgentExecutor(graph, gated=True).execute("x")).usage.model_calls == 4


@pytest.mark.parametrize("foreign", [False, True])
async def test_a_cut_while_tool_arguments_stream_is_not_free(foreign: bool) -> None:
    class Cut(ScriptedChatModel):
        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            for i in range(20):
                call = tool_call_chunk(
                    name="add" if i == 0 else None, args='{"a": 1', id="c", index=0
                )
                yield ChatGenerationChunk(
                    message=AIMessageChunk(content="", tool_call_chunks=[call])
                )
            raise ConnectionResetError

    model = Cut(script=[say("x")])
    agent = AgentExecutor(
        create_agent(model if foreign else gated(model)), gated=not foreign, pipeline=[]
    )
    with pytest.raises(AgentFailed) as failed:
        async with agent.execute_stream("a question") as stream:
            _ = [t async for t in stream]
    assert failed.value.usage.estimated is True
    assert failed.value.usage.output_tokens >= 30


async def test_an_inner_agents_unusable_input_is_the_tools_error(make_agent: Any) -> None:
    inner, _ = make_agent([say("inside")], name="inner")
    agent, _ = make_agent([say("", ("inner", {"request": " "})), say("ok")], [agent_tool(inner)])
    assert "input is empty" in str((await agent.execute("x")).messages[2].content)


async def test_threads_of_an_inner_agents_tool_are_reported_by_the_outer_run(
    make_agent: Any,
) -> None:
    release = threading.Event()

    @tool
    def block() -> str:
        """Block a thread."""
        release.wait(10)
        return "late"

    inner, _ = make_agent([say("", ("block", {})), say("x")], [block], name="inner")
    script = [say("", ("inner", {"request": "q"})), say("x")]
    agent, _ = make_agent(script, [agent_tool(inner)], timeouts=Timeouts(run_s=0.2), pipeline=[])
    with pytest.raises(CallTimeout) as timeout:
        await agent.execute("x")
    release.set()
    assert timeout.value.usage.sync_threads_left == 1


def test_contradicting_usage_makes_the_cost_unknown_and_loses_nothing() -> None:
    details: Any = {"cache_read": 100}
    usage = UsageMetadata(
        input_tokens=5, output_tokens=1, total_tokens=6, input_token_details=details
    )
    price = PRICES.price("openai", "gpt-4o")
    assert price is not None
    assert price.cost_usd(usage) is None
    plain = UsageMetadata(input_tokens=5, output_tokens=1, total_tokens=6)
    assert PRICES.price("ollama", "deepseek-r1") is None
    assert price.cost_usd(plain)


async def test_outside_a_run_gated_models_and_tools_are_themselves() -> None:
    model = gated(ScriptedChatModel(script=[say("hello there")]))
    assert (await model.ainvoke("x")).text == "hello there"
    assert model.invoke("x").text == "hello there"
    assert [c.text async for c in model.astream("x")][:2] == ["hello ", "there"]
    assert [c.text for c in model.stream("x")][:2] == ["hello ", "there"]
    assert await gated_tool(add).ainvoke({"a": 1, "b": 2}) == 3
    assert gated_tool(add).invoke({"a": 1, "b": 2}) == 3


def test_gating_keeps_the_class_and_does_not_stack() -> None:
    model = ScriptedChatModel(script=[say("x")])
    copy = gated(model)
    assert isinstance(copy, ScriptedChatModel)
    assert type(copy).__name__ == "ScriptedChatModel"
    assert type(model) is ScriptedChatModel
    assert gated(copy) is copy
    assert gated_tool(gated_tool(add)).name == "add"


class ManyAnswers(ScriptedChatModel):
    """A model that bills every one of `n` answers."""

    n: int = 1
    max_tokens: int | None = None
    seen_limits: list[Any] = []  # noqa: RUF012 - pydantic copies it

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        self.seen_limits.append(kwargs["max_tokens"])
        return await super()._agenerate(messages, stop, run_manager, **kwargs)


async def test_a_reservation_is_for_all_the_answers_that_are_asked_for() -> None:
    graph = create_agent(gated(model := ManyAnswers(script=[say("yes")], n=4)), [])
    budgets = CostTrackingMiddleware(MemoryLedger(), [Budget("global", tokens=4_100)])
    await AgentExecutor(graph, gated=True, pipeline=[budgets]).execute("hello")
    [limit] = model.seen_limits
    assert 900 < limit < 1_025


def test_the_speed_in_a_model_s_own_arguments_is_part_of_its_price() -> None:
    class Fast(ScriptedChatModel):
        model_kwargs: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it

    model = Fast(script=[], model_kwargs={"speed": "fast"})
    assert _request_conditions(model, {}) == (("speed", "fast"),)
    assert _request_conditions(model, {"speed": "standard"}) == (("speed", "standard"),)


class FieldLimited(ScriptedChatModel):
    """A model whose output is limited by a field, as ChatOllama's.

    As an argument the limit is an error there.
    """

    num_predict: int | None = None
    options_seen: list[Any] = []  # noqa: RUF012 - pydantic copies it

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        assert "num_predict" not in kwargs
        self.options_seen.append((self.num_predict, kwargs.pop("options", None)))
        return await super()._agenerate(messages, stop, run_manager, **kwargs)


@pytest.mark.parametrize("options", [None, {"num_predict": 50, "seed": 1}])
async def test_a_budget_limits_a_model_by_its_field_or_its_options(
    options: dict[str, int] | None,
) -> None:
    model = FieldLimited(script=lambda messages: say("yes"))
    asked = gated(model)
    bound = asked if options is None else asked.bind(options=options)

    async def ask(state: MessagesState) -> Any:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
    budgets = CostTrackingMiddleware(MemoryLedger(), [Budget("global", tokens=10_000)])
    await AgentExecutor(graph, gated=True, pipeline=[budgets]).execute("hello")
    [(field, seen)] = model.options_seen
    if options is None:
        assert field is not None
        assert 0 < field < 10_000
    else:
        assert (field, seen) == (None, {"num_predict": 50, "seed": 1})
    assert asked.num_predict is None
