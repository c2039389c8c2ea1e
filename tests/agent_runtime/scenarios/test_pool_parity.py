"""The same agent in process, warm and in a process of its own.

The same answers, chunks, usage, sessions and limits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.store.memory import InMemoryStore
from tests.support.pools import template

from agent_runtime import (
    AgentContext,
    AgentFactory,
    AgentResult,
    Budget,
    BudgetExceeded,
    LimitExceeded,
    MemoryLedger,
    Principal,
    ProviderError,
    Resume,
    SessionManager,
    TextChunk,
    ToolLoop,
)
from agent_runtime.budgets import PriceTable
from agent_runtime.errors import AgentFailed, CallTimeout, ConfigurationError
from agent_runtime.pool import AgentInstancePool, AgentSessionPool, AgentTask, PoolConfig
from agent_runtime.run.unreadable_arguments import NOT_RUN_REASON
from agent_runtime.template.parts_spec import McpSpec, ModelSpec, ToolSpec
from agent_runtime.testing import ScriptedChatModel, say

QUESTIONS = {
    "analyst": "What is the total amount in the North?",
    "searcher": "How long is the warranty of lamps?",
    "writer": "Write two sentences about lamps.",
}


async def all_ways(factory: AgentFactory, name: str) -> Any:
    async with AgentSessionPool(factory) as warm, AgentInstancePool(factory) as isolated:
        yield "in process", factory.create_from_template(name)
        yield "warm", (await warm.get_or_create("acme:web:chat", name)).agent
        yield "isolated", isolated.agent(name)


@pytest.mark.parametrize("name", QUESTIONS)
async def test_shipped_templates_run_unchanged_every_way(name: str) -> None:
    async with AgentFactory() as factory:
        found = []
        async for way, agent in all_ways(factory, name):
            unary = await agent.execute(QUESTIONS[name])
            async with agent.execute_stream(QUESTIONS[name]) as stream:
                chunks = [chunk async for chunk in stream.chunks()]
            text = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
            kinds = [type(chunk).__name__ for chunk in chunks if not isinstance(chunk, TextChunk)]
            assert stream.result.output == unary.output, way
            found.append(
                (unary.output, unary.usage, stream.result.usage, text, kinds, shape(unary))
            )
        assert found[0] == found[1] == found[2]
        assert found[0][1].model_calls > 0


def shape(result: AgentResult) -> list[tuple[str, str, list[str]]]:
    """What a conversation says, without ids."""
    return [
        (m.type, str(m.text), [c["name"] for c in getattr(m, "tool_calls", [])])
        for m in result.messages
    ]


@pytest.fixture
def isolated(make_factory: Callable[..., AgentFactory]) -> Callable[..., Any]:
    """`async with isolated(**seats) as (factory, pool, agent)`."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened(config: dict[str, Any] | None = None, **seats: Any) -> Any:
        settings = PoolConfig.parse({"size": 2, **(config or {})})
        async with make_factory(**seats) as factory, AgentInstancePool(factory, settings) as pool:
            yield factory, pool, pool.agent("worker")

    return opened


async def test_sessions_go_on_and_stay_apart(isolated: Any) -> None:
    async with isolated(session_manager=SessionManager.from_url("memory:")) as (_, _, agent):
        calls = [AgentContext(f"say {n}", session_id=f"s{n % 2}") for n in range(6)]
        for call in calls:
            await agent.execute(call)
        result = await agent.execute(AgentContext("echo more", session_id="s0"))
        asked = [str(m.text) for m in result.messages if m.type == "human"]
        assert asked == ["say 0", "say 2", "say 4", "echo more"]
        assert result.output == "it said more"


async def test_a_person_is_asked_and_the_run_goes_on(isolated: Any) -> None:
    seats = {
        "session_manager": SessionManager.from_url("memory:"),
        "spec": {"interrupt_on": {"echo": True}},
    }
    async with isolated(**seats) as (_, _, agent):
        asked = await agent.execute(AgentContext("echo yes", session_id="s"))
        assert asked.status == "interrupted"
        done = await agent.execute(AgentContext(Resume("approve"), session_id="s"))
        assert done.output == "it said yes"


class Garbled(ScriptedChatModel):
    """Calls `echo` with arguments that were cut, then says what it read."""

    script: Any = ()

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        (chunk,) = self._stream(messages)
        return ChatResult(
            generations=[ChatGeneration(message=message_chunk_to_message(chunk.message))]
        )

    def _stream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        if messages[-1].type == "tool":
            yield ChatGenerationChunk(
                message=AIMessageChunk(content=str(messages[-1].text), chunk_position="last")
            )
            return
        cut = tool_call_chunk(name="echo", args='{"text": "x', id="call_1", index=0)
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", tool_call_chunks=[cut], chunk_position="last")
        )


async def test_unreadable_arguments_are_told_to_the_model(make_factory: Any) -> None:
    async with (
        make_factory(spec={"model": "garbled"}) as factory,
        AgentInstancePool(factory) as pool,
    ):
        factory.register_model("garbled", Garbled())
        for agent in (factory.create_from_template("worker"), pool.agent("worker")):
            async with agent.execute_stream("echo x") as stream:
                _ = [chunk async for chunk in stream]
            assert stream.result.output == NOT_RUN_REASON
            assert stream.result.usage.tool_calls == 0


async def test_limits_and_budgets_are_kept_outside(isolated: Any) -> None:
    spec = {"runtime": {"limits": {"tool_calls": 1}}}
    async with isolated(spec=spec) as (_, _, agent):
        agent_again = agent
        assert (await agent_again.execute("echo one")).usage.tool_calls == 1
    async with isolated(spec={"runtime": {"limits": {"model_calls": 1}}}) as (_, _, agent):
        with pytest.raises(LimitExceeded) as limited:
            await agent.execute("echo one")
        assert limited.value.usage.model_calls == 1
    ledger = MemoryLedger()
    prices = PriceTable({"scripted:*": {"input": 1000, "output": 1000}})
    seats = {"ledger": ledger, "budgets": [Budget("run", usd=0.000001)], "prices": prices}
    async with isolated(**seats) as (_, _, agent):
        with pytest.raises(BudgetExceeded):
            await agent.execute("echo one")


async def test_the_same_tool_call_again_and_again_is_stopped(
    isolated: Any, make_factory: Any
) -> None:
    spec = {"model": "loop", "runtime": {"limits": {"tool_loop": 2}}}
    async with make_factory(spec=spec) as factory:
        factory.register_model(
            "loop", lambda **_: ScriptedChatModel(script=[say("", ("echo", {"argument": "x"}))])
        )
        async with AgentInstancePool(factory, PoolConfig(size=1)) as pool:
            with pytest.raises(ToolLoop):
                await pool.run(AgentTask("worker", "go"))


async def test_a_providers_own_error_comes_back_as_itself(make_factory: Any) -> None:
    class Overloaded(Exception):
        status_code = 503

    failed = Overloaded("busy")
    async with make_factory(
        spec={"model": "failing", "runtime": {"retry": {"attempts": 1}}}
    ) as factory:
        factory.register_model("failing", lambda **_: ScriptedChatModel(script=[say(fail=failed)]))
        async with AgentInstancePool(factory, PoolConfig(size=1)) as pool:
            with pytest.raises(ProviderError) as raised:
                await pool.run(AgentTask("worker", "go"))
            assert raised.value.__cause__ is failed  # not a likeness of it
            assert raised.value.status == 503


async def test_a_killed_agent_is_charged_for_what_it_used(isolated: Any) -> None:
    ledger = MemoryLedger()
    prices = PriceTable({"scripted:*": {"input": 1, "output": 1}})
    async with isolated(ledger=ledger, prices=prices) as (_, _, agent):
        with pytest.raises(AgentFailed) as raised:
            await agent.execute("misbehave kill")
        assert raised.value.usage.total_tokens == 15
        assert raised.value.cost_usd == Decimal("0.000015")


async def test_streams_hold_back_for_slow_readers_and_stop_when_left(isolated: Any) -> None:
    long = " ".join(str(n) for n in range(3000))
    async with isolated() as (_, pool, agent):
        async with agent.execute_stream(f"say {long}") as stream:
            got = []
            async for text in stream:
                got.append(text)
                if len(got) == 3:
                    await asyncio.sleep(0.3)
        assert "".join(got) == long
        async with agent.execute_stream(f"say {long}") as stream:
            async for _ in stream:
                break
        assert (await agent.execute("say after")).output == "after"
        assert pool.get_pool_status()["starts"] == 1  # leaving a stream does not cost the process


async def test_cancelling_stops_what_runs_in_the_process(isolated: Any) -> None:
    async with isolated({"grace": 2.0}) as (_, pool, agent):
        task = asyncio.create_task(agent.execute("anap 30"))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await agent.execute("say after")).output == "after"
        assert pool.get_pool_status()["starts"] == 1
        with pytest.raises(CallTimeout):
            await pool.run(
                AgentTask("worker", "nap 30", timeout_s=0.5)
            )  # in a thread: only a kill ends it
        assert (await agent.execute("say again")).output == "again"


async def test_sync_callers_and_other_loops(isolated: Any) -> None:
    async with isolated() as (_, _, agent):
        result = await asyncio.to_thread(agent.execute_sync, "echo sync")
        assert result.output == "it said sync"
        found: list[str] = []

        def elsewhere() -> None:
            async def streamed() -> None:
                async with agent.execute_stream("say one two three") as stream:
                    found.extend([text async for text in stream])

            asyncio.run(streamed())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "".join(found) == "one two three"


async def test_the_runnable_face(isolated: Any) -> None:
    async with isolated() as (_, _, agent):
        assert (await agent.ainvoke({"messages": "echo r"}))["messages"][-1].text == "it said r"
        parts = [
            part async for part in agent.astream({"messages": "say a b"}, stream_mode="messages")
        ]
        assert (
            "".join(str(message.text) for message, _ in parts if isinstance(message, AIMessage))
            == "a b"
        )
        assert [await agent.text.ainvoke(f"say {n}") for n in range(2)] == ["0", "1"]


async def test_who_calls_reaches_layers_and_inner_agents(make_factory: Any) -> None:
    async with make_factory() as factory:
        factory.register_template(
            template("outer", tools=[{"agent": "worker", "as": "ask"}], model="outer")
        )
        factory.register_model(
            "outer",
            lambda **_: ScriptedChatModel(
                script=lambda m: (
                    say("", ("ask", {"request": "echo in"}))
                    if m[-1].type == "human"
                    else say(m[-1].text)
                )
            ),
        )
        async with AgentInstancePool(factory, PoolConfig(size=2)) as pool:
            result = await pool.run(
                AgentTask("outer", "go", principal=Principal("ada", tenant="acme"))
            )
            assert result.output == "it said in"
            assert result.usage.model_calls == 4
            ends = factory.event_bus.retained("run.end")
            assert {(event.agent, event.tenant) for event in ends} == {
                ("worker", "acme"),
                ("outer", "acme"),
            }


async def test_long_term_memory_stays_in_the_application(make_factory: Any) -> None:
    async with make_factory(spec={"memory": "notes"}) as factory:
        store = InMemoryStore()
        factory.register_memory("notes", store)
        async with AgentInstancePool(factory, PoolConfig(size=1)) as pool:
            assert (await pool.run(AgentTask("worker", "remember blue"))).output == "it said kept"
            assert (await store.aget(("tenant default", "facts"), "colour")).value == {"is": "blue"}  # type: ignore[union-attr]


async def test_a_process_cannot_reach_another_sessions_thread(make_factory: Any) -> None:
    manager = SessionManager.from_url("memory:")
    async with make_factory(session_manager=manager) as factory:
        await factory.create_from_template("worker").execute(
            AgentContext("say secret", session_id="theirs")
        )
        (theirs,) = [session.thread async for session in _threads(manager, "theirs")]
        async with AgentInstancePool(factory, PoolConfig(size=1)) as pool:
            agent = pool.agent("worker")
            for thread in (theirs, "theirs"):
                result = await agent.execute(AgentContext(f"peek {thread}", session_id="mine"))
                assert result.output == "it said SessionNotFound", result.output


async def _threads(manager: SessionManager, session_id: str) -> Any:
    async with manager.turn(session_id) as turn:
        yield turn


async def test_a_process_gets_the_models_and_servers_that_its_template_names_no_others(
    make_factory: Any,
) -> None:
    async with make_factory() as factory, AgentInstancePool(factory, PoolConfig(size=1)) as pool:
        await pool.create_instance("worker")
        desk = pool.versions.current("worker").resources
        with pytest.raises(ConfigurationError, match="names no model 'offline:'"):
            desk.describe("describe_model", (ModelSpec(id="offline:"),))
        with pytest.raises(ConfigurationError, match="names no such MCP server"):
            desk.describe("describe_mcp", (ToolSpec(mcp=McpSpec(command="x")),))
        with pytest.raises(ConfigurationError, match="names no memory 'other'"):
            desk.store("other")
