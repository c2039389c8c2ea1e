"""Code of the application's raises what it likes: its own call ends, typed, and nothing else
does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnablePassthrough
from langchain_core.tools import StructuredTool, tool
from langgraph.graph import END, START, StateGraph
from tests.support.providers import template
from typing_extensions import TypedDict

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    AgentFailed,
    AgentResult,
    CallError,
    Event,
    EventBus,
    EventConsumer,
    Handler,
    MemoryBroker,
    Middleware,
    SessionManager,
    SessionMiddleware,
    gated,
)
from agent_runtime.batch import BatchSettings, ParallelAgentExecutor
from agent_runtime.callback_handler import AgentCallbackHandler
from agent_runtime.errors.user_code import (
    ExitFromUserCode,
    as_user_exception,
    error_text,
    is_from_signal,
)
from agent_runtime.testing import ScriptedChatModel, say


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddExit(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class OwnBase(BaseException):
    pass


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def surrogate() -> None:
    raise ValueError("half a character: \ud800")


def unicode_error() -> None:
    "\ud800".encode()


def throws(error: BaseException) -> Any:
    def throw() -> None:
        raise error

    return throw


WAYS: dict[str, Any] = {
    "sys.exit": lambda: sys.exit(3),
    "SystemExit with an object": throws(SystemExit(object())),
    "KeyboardInterrupt": throws(KeyboardInterrupt()),
    "a BaseException of its own": throws(OwnBase("mine")),
    "RecursionError": recurse,
    "UnicodeError": unicode_error,
    "a surrogate in the text": surrogate,
    "an odd __str__": throws(Odd()),
    "a __str__ that exits": throws(OddExit()),
    "MemoryError": throws(MemoryError()),
    "StopIteration": throws(StopIteration()),
    "StopAsyncIteration": throws(StopAsyncIteration()),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
# The runner cannot take half a character in a log, and these tests log the traceback.
LOGGED = {name: way for name, way in WAYS.items() if way is not surrogate}
logged_ways = pytest.mark.parametrize("way", LOGGED.values(), ids=LOGGED)


def neighbour() -> AgentExecutor:
    return AgentExecutor(
        create_agent(gated(ScriptedChatModel(script=[say("fine")], delay_s=0.05)), []), gated=True
    )


async def beside(call: Any) -> BaseException:
    """Return what a call raised; another one that ran at the same time has its answer."""
    other = asyncio.create_task(neighbour().execute("hi"))
    outcome = (await asyncio.gather(asyncio.create_task(call), return_exceptions=True))[0]
    assert (await other).output == "fine"
    assert isinstance(outcome, BaseException), outcome
    return outcome


async def read(agent: AgentExecutor, call: Any) -> AgentResult:
    async with agent.execute_stream(call) as stream:
        async for _ in stream:
            pass
    return stream.result


@ways
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool(way: Any, kind: str, streamed: bool) -> None:
    async def later() -> str:
        """Work."""
        await asyncio.sleep(0)
        way()
        return ""

    def now() -> str:
        """Work."""
        way()
        return ""

    made = (
        StructuredTool.from_function(now, name="work")
        if kind == "sync"
        else StructuredTool.from_function(coroutine=later, name="work")
    )
    async with AgentFactory() as factory:
        factory.register_model("m", ScriptedChatModel(script=[say("", ("work", {})), say("done")]))
        factory.register_tool("work", made)
        agent = factory.create_agent(template(model="m", tools=["work"]))
        outcome = await beside(read(agent, "go") if streamed else agent.execute("go"))
    assert isinstance(outcome, AgentFailed)
    assert outcome.run_id


@ways
async def test_a_tool_s_failure_becomes_a_message_where_the_template_says_so(way: Any) -> None:
    @tool
    def work() -> str:
        """Work."""
        way()
        return ""

    async with AgentFactory() as factory:
        factory.register_model(
            "m", model := ScriptedChatModel(script=[say("", ("work", {})), say("done")])
        )
        factory.register_tool("work", work)
        agent = factory.create_agent(
            template(model="m", tools=["work"], middleware=[{"use": "tool_error"}])
        )
        assert (await agent.execute("go")).output == "done"
    assert [m.status for m in model.received_messages[1] if isinstance(m, ToolMessage)] == ["error"]


@ways
@pytest.mark.parametrize("before", [True, False])
async def test_a_layer(way: Any, before: bool) -> None:
    class Layer(Middleware):
        async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
            if before:
                way()
            result = await next_call(context)
            way()
            return result

    model = gated(ScriptedChatModel(script=[say("ok")]))
    for streamed in (False, True):
        agent = AgentExecutor(create_agent(model, []), pipeline=[Layer()], gated=True)
        outcome = await beside(read(agent, "go") if streamed else agent.execute("go"))
        assert isinstance(outcome, AgentFailed)


@ways
async def test_a_node_of_a_graph_and_of_its_subgraph(way: Any) -> None:
    class State(TypedDict, total=False):
        x: int

    async def node(state: State) -> State:
        await asyncio.sleep(0)
        way()
        return {}

    def sync_node(state: State) -> State:
        way()
        return {}

    for body in (node, sync_node):
        builder = StateGraph(State)
        builder.add_node("n", body)
        builder.add_edge(START, "n")
        builder.add_edge("n", END)
        inner = builder.compile()
        outer = StateGraph(State)
        outer.add_node("inner", inner)
        outer.add_edge(START, "inner")
        for graph in (inner, outer.compile()):
            outcome = await beside(AgentExecutor(graph).execute({"x": 1}))
            assert isinstance(outcome, AgentFailed)
            outcome = await beside(read(AgentExecutor(graph), {"x": 1}))
            assert isinstance(outcome, AgentFailed)


@ways
async def test_a_hook_of_langchain_s_middleware_and_a_chain(way: Any) -> None:
    class Hook(AgentMiddleware[Any, Any]):
        def before_model(self, state: Any, runtime: Any) -> None:
            way()

    model = gated(ScriptedChatModel(script=[say("ok")]))
    outcome = await beside(
        AgentExecutor(create_agent(model, [], middleware=[Hook()]), gated=True).execute("go")
    )
    assert isinstance(outcome, AgentFailed)
    outcome = await beside(AgentExecutor(RunnableLambda(lambda _: way())).execute("go"))
    assert isinstance(outcome, AgentFailed)


@logged_ways
async def test_a_handler_of_the_bus_is_counted_as_failed_and_goes_on(way: Any) -> None:
    bus = EventBus()
    seen = list[str]()

    async def handle(event: Event) -> None:
        seen.append(event.type)
        way()

    def handle_sync(event: Event) -> None:
        seen.append(event.type)
        way()

    subscriptions = [bus.subscribe(handler=handle), bus.subscribe(handler=handle_sync)]
    for name in ("custom.one", "custom.two"):
        bus.publish(Event(name, {}))
    async with asyncio.timeout(10):
        while len(seen) < 4 or sum(each.failed for each in subscriptions) < 4:
            await asyncio.sleep(0.01)
    assert [each.failed for each in subscriptions] == [2, 2]
    bus.close()


@logged_ways
async def test_a_consumer_s_handler_and_a_listener(way: Any) -> None:
    broker = MemoryBroker()
    await broker.publish([Event("custom.one", {}, own_id="one")])
    consumer = EventConsumer(broker, "group", lambda event: asyncio.sleep(0, way()), retries=0)
    async with consumer, asyncio.timeout(10):
        while not consumer.failed:
            await asyncio.sleep(0.01)
    assert [letter.queue for letter in await consumer.dead_letters.list()] == ["group"]
    await broker.aclose()
    handler = AgentCallbackHandler(listeners=[lambda event: way()])
    model = gated(ScriptedChatModel(script=[say("ok")]))
    agent = AgentExecutor(create_agent(model, []), callback_handler=handler, gated=True)
    assert (await agent.execute("go")).output == "ok"


@ways
async def test_helpers_of_a_batch(way: Any) -> None:
    async def producer() -> AsyncIterator[str]:
        yield "one"
        way()

    settings = BatchSettings.parse({"max_concurrent": 2, "retry": {"attempts": 1}})
    async with AgentFactory() as factory:
        factory.register_model("m", ScriptedChatModel(script=lambda messages: say("ok")))
        factory.register_template(template("t", model="m"))
        async with ParallelAgentExecutor(factory, settings) as executor:
            batch = await executor.submit_batch_tasks(producer(), agent="t")
            await executor.wait(batch)
            results = await executor.get_execution_results(batch)
            assert [each.status for each in results] == ["completed"]
            with pytest.raises(Exception) as failed:  # noqa: PT011 - any, but an Exception
                await executor.aggregate(batch, "custom", combine=lambda values: way())
            assert isinstance(failed.value, Exception)


@ways
async def test_a_session_is_left_in_order(way: Any) -> None:
    @tool
    def work() -> str:
        """Work."""
        way()
        return ""

    manager = SessionManager()
    script = [say("", ("work", {})), say("again")]
    graph = create_agent(
        gated(ScriptedChatModel(script=script)), [work], checkpointer=manager.checkpointer
    )
    agent = AgentExecutor(graph, pipeline=[SessionMiddleware(manager)])
    assert isinstance(await beside(agent.execute(AgentContext("go", session_id="s"))), CallError)
    assert (await manager.get_session("s")).status == "failed"
    assert (await agent.execute(AgentContext("hello", session_id="s"))).output == "again"


class AsyncNode:
    """A node whose call is async, as an object.

    `inspect` does not take it for a coroutine function.
    """

    async def __call__(self, state: Any) -> Any:
        await asyncio.sleep(0)
        sys.exit(3)


def leave(value: Any) -> Any:
    sys.exit(3)


LEAVING = RunnableLambda(leave)
CHAINS: dict[str, Any] = {
    "an object": RunnableLambda(AsyncNode()),
    "retry": LEAVING.with_retry(stop_after_attempt=1),
    "a fallback": RunnableLambda(lambda value: 1 / 0).with_fallbacks([LEAVING]),
    "branch": RunnableBranch((lambda value: True, LEAVING), RunnableLambda(lambda value: value)),
    "a condition": RunnableBranch(
        (leave, RunnableLambda(lambda value: 1)), RunnableLambda(lambda value: value)
    ),
    "assign": RunnablePassthrough.assign(left=LEAVING),
    "map": RunnableLambda(lambda value: [value]) | LEAVING.map(),
    "config": LEAVING.with_config(tags=["x"]),
}


@pytest.mark.parametrize("name", CHAINS)
async def test_a_chain_of_any_shape(name: str) -> None:
    class State(TypedDict, total=False):
        x: int

    builder = StateGraph(State)
    builder.add_node("n", CHAINS[name])
    builder.add_edge(START, "n")
    for agent in (AgentExecutor(CHAINS[name]), AgentExecutor(builder.compile())):
        assert isinstance(await beside(agent.execute({"x": 1})), AgentFailed)


async def test_the_boundary_adds_no_step_to_a_run() -> None:
    """A copy of LangGraph's pass-through, which it knows by identity, was a traced step of its own
    in every run."""

    class Steps(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.names: list[str] = []

        async def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.names.append(kwargs["name"])

    bare = Steps()
    ours = Steps()
    graph = create_agent(ScriptedChatModel(script=lambda messages: say("ok")), [])
    await graph.ainvoke({"messages": "hi"}, {"callbacks": [bare]})
    await AgentExecutor(graph).ainvoke({"messages": "hi"}, {"callbacks": [ours]})
    assert ours.names[-len(bare.names) :] == bare.names
    assert len(ours.names) - len(bare.names) <= 1  # the call itself


async def test_a_fallback_takes_over_from_code_that_exits() -> None:
    chain = LEAVING.with_fallbacks([RunnableLambda(lambda value: "taken over")])
    assert (await AgentExecutor(chain).execute("go")).output == "taken over"


async def test_a_sync_call_does_not_hang_when_code_exits() -> None:
    agent = AgentExecutor(RunnableLambda(lambda _: sys.exit(3)))
    for _ in range(2):
        with pytest.raises(AgentFailed, match="SystemExit"):
            await asyncio.wait_for(asyncio.to_thread(agent.execute_sync, "go"), 10)


# -- what goes on


def test_a_cancel_and_the_end_of_a_generator_are_nobody_s_failure() -> None:
    for error in (asyncio.CancelledError(), GeneratorExit()):
        with pytest.raises(type(error)):
            as_user_exception(error)
    failure = as_user_exception(SystemExit(3))
    assert isinstance(failure, ExitFromUserCode)
    assert isinstance(failure.__cause__, SystemExit)
    assert error_text(ValueError("x" * 10_000)) == "x" * 2000 + "..."


def test_a_signal_inside_a_task_group_is_still_a_signal_s() -> None:
    def leave_on_signal(number: int, frame: Any) -> None:
        sys.exit(143)

    before = signal.signal(signal.SIGTERM, leave_on_signal)
    try:
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGTERM, leave_on_signal)
        assert is_from_signal(left.value)
        assert is_from_signal(BaseExceptionGroup("of a task group", [ValueError(), left.value]))
        assert not is_from_signal(BaseExceptionGroup("of a task group", [SystemExit(3)]))
        signal.signal(signal.SIGTERM, before)


PROGRAM = """
import asyncio, signal, sys, time
from langchain_core.tools import tool
from langchain.agents import create_agent
from agent_runtime import AgentExecutor, gated
from agent_runtime.testing import ScriptedChatModel, say
from agent_runtime.run.gated_tool import gated_tool

@tool
async def work() -> str:
    "Work."
    print("working", flush=True)
    {body}
    return ""

def leave(*_):
    sys.exit(7)

signal.signal(signal.SIGTERM, leave)
model = gated(ScriptedChatModel(script=[say("", ("work", {{}})), say("done")]))
agent = AgentExecutor(create_agent(model, [gated_tool(work)]), gated=True)

async def main():
    try:
        print((await agent.execute("go")).output, flush=True)
    finally:
        print("cleaned up", flush=True)

try:
    {run}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""
BODIES = {
    "waiting": "await asyncio.sleep(30)",
    "computing": "for _ in range(10**9): pass",
    "blocking": "time.sleep(30)",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(body, id=name, marks=[] if name == "waiting" else pytest.mark.integration)
        for name, body in BODIES.items()
    ],
)
@pytest.mark.parametrize(
    "run",
    [
        "asyncio.run(main())",
        pytest.param(
            "asyncio.new_event_loop().run_until_complete(main())", marks=pytest.mark.integration
        ),
    ],
)
def test_a_real_signal_ends_the_program(number: int, body: str, run: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body, run=run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    time.sleep(0.1)
    for _ in range(
        2
    ):  # the first Ctrl-C of `asyncio.run` only cancels, which code that computes does not hear
        os.kill(process.pid, number)
        try:
            process.wait(4)
            break
        except subprocess.TimeoutExpired:
            continue
    out, _ = process.communicate(timeout=10)
    assert process.returncode == (130 if number == signal.SIGINT else 7)
    assert b"done" not in out
