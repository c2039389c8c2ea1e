"""The rules of the onion: order, one path, the text rule, cleanup, cancellation, usage."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from tests.support.calls import run_call

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFailed,
    AgentResult,
    CallCancelled,
    ConfigurationError,
    CustomChunk,
    Handler,
    InputInvalid,
    LoggingMiddleware,
    Middleware,
    Principal,
    StreamMisuse,
    TextChunk,
    ToolCallChunk,
    ToolResultChunk,
)
from agent_runtime.orchestration.middleware import compose
from agent_runtime.run.state import current_run
from agent_runtime.testing import RecordingSink, run_layer, say


class Trace(Middleware):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        self.log.append(f"{self.name} in")
        try:
            return await next_call(context)
        finally:
            await asyncio.sleep(0)  # cleanup that awaits must finish too
            self.log.append(f"{self.name} out")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TWO_STEPS = [say("let me see", ("add", {"a": 1, "b": 2})), say("it is three")]


async def test_first_layer_is_outermost_and_layers_wrap_unary_and_stream_alike(
    make_agent: Any,
) -> None:
    logs: list[list[str]] = []
    for streaming in (False, True):
        log: list[str] = []
        agent, _ = make_agent([say("hi there")], pipeline=[Trace("a", log), Trace("b", log)])
        assert (await run_call(agent, "x", streaming=streaming)).output == "hi there"
        logs.append(log)
    assert logs[0] == logs[1] == ["a in", "b in", "b out", "a out"]


async def test_a_context_is_one_call_and_is_not_given_a_caller(make_agent: Any) -> None:
    agent, model = make_agent([say("hi")])
    call = AgentContext("x")
    await agent.with_caller(principal=Principal("ada")).execute(call)
    assert call.principal is None
    assert call.usage.model_calls == 1  # the caller's object shows what was spent
    with pytest.raises(InputInvalid, match="one context is one call"):
        await agent.execute(call)
    with pytest.raises(InputInvalid, match="one context is one call"):
        await run_call(agent, call, streaming=True)
    assert model.calls == 1


async def test_unary_and_streamed_results_are_the_same(make_agent: Any) -> None:
    agent, _ = make_agent(TWO_STEPS, [add])
    unary = await agent.execute("1+2")
    agent, _ = make_agent(TWO_STEPS, [add])
    async with agent.execute_stream("1+2") as stream:
        async for _text in stream:
            pass
    streamed = stream.result
    assert unary.output == streamed.output == stream.text == "it is three"
    assert (
        [m.type for m in unary.messages]
        == [m.type for m in streamed.messages]
        == ["human", "ai", "tool", "ai"]
    )
    assert unary.usage == streamed.usage
    assert (unary.usage.model_calls, unary.usage.tool_calls, unary.usage.total_tokens) == (2, 1, 30)
    assert unary.usage.estimated is False
    assert unary.cost_usd == 0


@pytest.mark.parametrize("streaming", [False, True])
async def test_text_chunks_of_each_message_join_to_its_text_on_every_layer(
    make_agent: Any, streaming: bool
) -> None:
    sinks = [RecordingSink(), RecordingSink()]

    class Tap(Middleware):
        def __init__(self, sink: RecordingSink) -> None:
            self.sink = sink

        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            async def tap(chunk: Any) -> None:
                await self.sink(chunk)
                await context.emit(chunk)

            result = await next_call(context.with_emit(tap))
            self.sink.close()
            return result

    agent, _ = make_agent(TWO_STEPS, [add], pipeline=[Tap(sinks[0]), Tap(sinks[1])])
    result = await run_call(agent, "1+2", streaming=streaming)
    texts = {m.id: str(m.text) for m in result.messages if m.type == "ai"}
    assert len(texts) == 2
    for sink in sinks:
        assert sink.texts == texts


async def test_typed_chunks_carry_tool_calls_and_results_in_order(make_agent: Any) -> None:
    agent, _ = make_agent(TWO_STEPS, [add])
    async with agent.execute_stream("1+2") as stream:
        chunks = [c async for c in stream.chunks()]
    call = next(c for c in chunks if isinstance(c, ToolCallChunk))
    result = next(c for c in chunks if isinstance(c, ToolResultChunk))
    assert (call.name, call.args, call.id) == ("add", {"a": 1, "b": 2}, result.id)
    assert (result.name, result.content) == ("add", "3")
    assert chunks.index(call) < chunks.index(result) < len(chunks) - 1
    assert "".join(c.text for c in chunks if isinstance(c, TextChunk)) == "let me seeit is three"


async def test_custom_chunks_reach_the_reader(make_agent: Any) -> None:
    from langgraph.config import get_stream_writer

    @tool
    async def report() -> str:
        """Report progress."""
        get_stream_writer()({"done": 0.5})
        return "ok"

    agent, _ = make_agent([say("", ("report", {})), say("done")], [report])
    async with agent.execute_stream("x") as stream:
        chunks = [c async for c in stream.chunks()]
    assert CustomChunk({"done": 0.5}) in chunks


async def test_a_layer_that_answers_emits_and_returns(make_agent: Any) -> None:
    class Canned(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            message = AIMessage("canned", id="m1")
            await context.emit(TextChunk("m1", "canned"))
            return AgentResult("canned", {"messages": [message]}, [message])

    agent, model = make_agent([say("real")], pipeline=[Canned()])
    assert (await agent.execute("x")).output == "canned"
    async with agent.execute_stream("x") as stream:
        assert [t async for t in stream] == ["canned"]
    assert stream.text == "canned"
    parts = [p async for p in agent.astream({"messages": "x"}, stream_mode="messages")]
    assert [(p[0].content, p[0].id) for p in parts] == [("canned", "m1")]
    assert model.calls == 0


async def test_a_layer_that_rewrites_the_answer_changes_every_view_of_it(make_agent: Any) -> None:
    class Shout(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            async def shout(chunk: Any) -> None:
                if isinstance(chunk, TextChunk):
                    chunk = TextChunk(chunk.message_id, chunk.text.upper(), chunk.part)
                await context.emit(chunk)

            result = await next_call(context.with_emit(shout))
            return result.with_text(result.output.upper())

    agent, _ = make_agent([say("hi there")], pipeline=[Shout()])
    result = await agent.execute("x")
    assert (
        result.output == result.messages[-1].text == result.value["messages"][-1].text == "HI THERE"
    )
    async with agent.execute_stream("x") as stream:
        assert "".join([t async for t in stream]) == stream.text == "HI THERE"
    parts = [p async for p in agent.astream({"messages": "x"}, stream_mode="messages")]
    assert "".join(m.text for m, _ in parts) == "HI THERE"


async def test_a_refusal_is_raised_before_any_model_call(make_agent: Any) -> None:
    class Refusal(Exception):
        pass

    class Guard(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            raise Refusal("no")

    agent, model = make_agent([say("x")], pipeline=[LoggingMiddleware(), Guard()])
    with pytest.raises(AgentFailed) as failed:
        await agent.execute("x")
    assert isinstance(failed.value.__cause__, Refusal)
    assert failed.value.run_id
    with pytest.raises(AgentFailed):
        async with agent.execute_stream("x") as stream:
            async for _ in stream:
                pass
    assert model.calls == 0


def test_what_is_not_a_layer_is_an_error_when_the_executor_is_built(make_agent: Any) -> None:
    for wrong in (object(), lambda context, next_call: next_call(context), LoggingMiddleware):
        with pytest.raises(ConfigurationError, match="layer must be an instance"):
            make_agent([say("x")], pipeline=[wrong])


async def test_a_layer_may_name_its_parameters_as_it_likes() -> None:
    class Odd(Middleware):
        async def process(self, call: AgentContext, inner: Handler) -> AgentResult:
            return await inner(call)

    async def core(context: AgentContext) -> AgentResult:
        return AgentResult("ok", None)

    assert (await compose([Odd()], core)(AgentContext("x"))).output == "ok"


async def test_the_layer_kit_catches_a_layer_that_breaks_the_text_rule() -> None:
    class Liar(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            return (await next_call(context)).with_text("something else")

    async def core(context: AgentContext) -> AgentResult:
        message = AIMessage("true", id="m1")
        await context.emit(TextChunk("m1", "true"))
        return AgentResult("true", {"messages": [message]}, [message])

    with pytest.raises(AssertionError, match="emitted 'true'"):
        await run_layer(Liar(), core, streaming=True)


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_leaving_a_stream_early_runs_every_finally_before_going_on(
    make_agent: Any, how: str, no_tasks_left: None
) -> None:
    log: list[str] = []
    agent, _ = make_agent(
        [say("one two three four five " * 20)],
        delay_s=0.001,
        pipeline=[Trace("a", log), Trace("b", log)],
    )

    async def read() -> None:
        async with agent.execute_stream("x") as stream:
            usage.append(stream.context.usage)
            async for _ in stream:
                if how == "break":
                    break
                if how == "raise":
                    raise KeyError("mine")
                log.append("read")
        log.append("left")

    usage: list[Any] = []
    if how == "cancel":
        reader = asyncio.create_task(read())
        while "read" not in log:
            await asyncio.sleep(0.001)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    elif how == "raise":
        with pytest.raises(KeyError, match="mine"):
            await read()
    else:
        await read()
    events = [e for e in log if e != "read"]
    assert events == ["a in", "b in", "b out", "a out", *(["left"] if how == "break" else [])]
    assert usage[0].estimated is True
    assert usage[0].output_tokens > 0
    assert usage[0].model_calls == 1


async def test_cancelling_a_unary_call_runs_every_finally_and_settles(
    make_agent: Any, no_tasks_left: None
) -> None:
    log: list[str] = []
    agent, model = make_agent([say("slow")], delay_s=5, pipeline=[Trace("a", log), Trace("b", log)])
    context = AgentContext("x")
    task = asyncio.create_task(agent.execute(context))
    while model.calls == 0 and not log:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["a in", "b in", "b out", "a out"]
    assert context.usage.estimated is True
    assert context.usage.input_tokens > 0


async def test_cancel_by_the_runtime_reaches_the_reader_as_call_cancelled(make_agent: Any) -> None:
    agent, _ = make_agent([say("one two three " * 50)], delay_s=0.001)
    with pytest.raises(CallCancelled) as cancelled:
        async with agent.execute_stream("x") as stream:
            async for _ in stream:
                stream._task.cancel()
    assert cancelled.value.run_id == stream.run_id
    assert cancelled.value.usage.estimated is True


async def test_a_cancelled_error_raised_by_a_tool_is_a_failure_not_a_cancel(
    make_agent: Any,
) -> None:
    @tool
    async def odd() -> str:
        """Raise CancelledError."""
        raise asyncio.CancelledError

    agent, _ = make_agent([say("", ("odd", {})), say("done")], [odd])
    with pytest.raises(AgentFailed, match="CancelledError"):
        await agent.execute("x")

    async def chain(_: Any) -> str:
        raise asyncio.CancelledError

    with pytest.raises(AgentFailed, match="without a cancellation"):
        await AgentExecutor(RunnableLambda(chain)).execute("x")


async def test_back_pressure_holds_the_core_when_the_reader_does_not_read(make_agent: Any) -> None:
    emitted = 0

    class Count(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            async def count(chunk: Any) -> None:
                nonlocal emitted
                await context.emit(chunk)
                emitted += 1

            return await next_call(context.with_emit(count))

    agent, _ = make_agent([say("word " * 500)], pipeline=[Count()])
    async with agent.execute_stream("x") as stream:
        async for _ in stream:
            await asyncio.sleep(0.05)
            break
        assert emitted <= 20


async def test_a_slow_and_a_fast_stream_do_not_disturb_each_other(
    make_agent: Any, no_tasks_left: None
) -> None:
    agent, _ = make_agent([say("a b c d e f")])

    async def read(pause_s: float) -> str:
        async with agent.execute_stream("x") as stream:
            pieces = []
            async for text in stream:
                pieces.append(text)
                await asyncio.sleep(pause_s)
            return "".join(pieces)

    assert await asyncio.gather(*(read(p) for p in (0, 0.01, 0, 0.005))) == ["a b c d e f"] * 4


async def test_stream_misuse_says_what_to_do(make_agent: Any) -> None:
    agent, _ = make_agent([say("x")])
    stream = agent.execute_stream("x")
    with pytest.raises(StreamMisuse, match="async with"):
        async for _ in stream:
            pass
    with pytest.raises(StreamMisuse, match="read to its end"):
        _ = stream.result
    async with stream:
        async for _ in stream:
            pass
    with pytest.raises(StreamMisuse, match="once"):
        async with stream:
            pass


async def test_a_cancelled_wait_for_a_chunk_loses_none_and_a_second_reader_is_refused(
    make_agent: Any,
) -> None:
    agent, _ = make_agent([say("one two three")], delay_s=0.05)
    async with agent.execute_stream("x") as stream:
        chunks = stream.chunks()
        texts = []
        while True:
            try:
                texts.append((await asyncio.wait_for(anext(chunks), 0.01)).text)
            except TimeoutError:  # as a keep-alive does
                continue
            except StopAsyncIteration:
                break
    assert texts == ["one ", "two ", "three"]
    async with agent.execute_stream("x") as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(StreamMisuse, match="one reader"):
            await anext(stream)
        assert await waiting == "one "


async def test_a_rewritten_answer_leaves_nothing_of_the_old_one(make_agent: Any) -> None:
    @tool(return_direct=True)
    def direct() -> str:
        """Answer directly."""
        return "secret"

    agent, _ = make_agent([say("", ("direct", {}))], [direct])
    result = (await agent.execute("x")).with_text("redacted")
    assert "secret" not in repr(
        (result.output, [m.content for m in result.messages], result.to_dict())
    )


async def test_no_context_variable_leaks_out_of_a_call(make_agent: Any) -> None:
    marker: ContextVar[str] = ContextVar("marker", default="outside")
    seen: list[Any] = []

    class Sets(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            token = marker.set("inside")
            try:
                return await next_call(context)
            finally:
                marker.reset(token)  # raises if the stream's cleanup ran in another context

    @tool
    async def look() -> str:
        """Look at the variable."""
        seen.append((marker.get(), current_run.get()))
        return "ok"

    agent, _ = make_agent(
        [say("", ("look", {})), say("done now please")], [look], pipeline=[Sets()]
    )
    await agent.execute("x")
    assert current_run.get() is None
    async with agent.execute_stream("x") as stream:
        async for _ in stream:
            assert marker.get() == "outside"
            assert current_run.get() is None
            break
    assert marker.get() == "outside"
    assert {value for value, _ in seen} == {"inside"}
    assert all(run is not None for _, run in seen)


@pytest.mark.parametrize("wrong", ["", "   ", [], {"messages": []}, [("nobody", "x")], [42]])
async def test_unusable_input_is_a_typed_error(make_agent: Any, wrong: Any) -> None:
    agent, model = make_agent([say("x")])
    with pytest.raises(InputInvalid):
        await agent.execute(wrong)
    assert model.calls == 0


async def test_input_may_be_text_messages_a_prompt_or_the_agents_dict(make_agent: Any) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_core.prompts import ChatPromptTemplate

    agent, model = make_agent([say("x")])
    prompt = ChatPromptTemplate.from_messages([("human", "hello")]).invoke({})
    for good in (
        "hello",
        HumanMessage("hello"),
        [("human", "hello")],
        ["hello"],
        prompt,
        {"messages": "hello"},
    ):
        await agent.execute(good)
        assert model.received_messages[-1][-1].content == "hello"
    await agent.execute(AgentContext("hello", metadata={"team": "a"}))
    assert model.calls == 7


async def test_the_edge_records_every_call_and_how_it_ended(make_agent: Any) -> None:
    agent, _ = make_agent(TWO_STEPS, [add])
    result = await agent.execute("1+2")
    kinds = [e.type for e in agent.callback_handler.events(run_id=result.run_id)]
    assert kinds == [
        *(
            "run_start",
            "llm_start",
            "llm_end",
            "tool_start",
            "tool_end",
            "llm_start",
            "llm_end",
            "run_end",
        ),
    ]
    agent, _ = make_agent([say(fail=ValueError("boom"))])
    with pytest.raises(AgentFailed) as failed:
        await agent.execute("x")
    last = agent.callback_handler.events(run_id=failed.value.run_id)[-1]
    assert (last.type, last.data["error"]) == ("run_error", "agent_failed")
