"""What goes wrong beside a turn.

Slow tools, odd writes, other threads, clean-up and deletion at the wrong moment.
"""

from __future__ import annotations

import asyncio
import operator
import threading
import time
import uuid
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send
from tests.support.operations import operation_name
from tests.support.sessions import EFFECTS, held_elsewhere, in_session, make, open_manager

from agent_runtime import (
    AgentExecutor,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    StaleWriter,
    StoreError,
)
from agent_runtime.checkpoints.backends.backend import FencingToken
from agent_runtime.run.idempotency import SIDE_EFFECT_UNKNOWN
from agent_runtime.sessions import MemoryCheckpointer
from agent_runtime.storage import RedisConnection
from agent_runtime.storage.operations import Steps, steps_operation
from agent_runtime.testing import say


@tool
async def pay_slowly() -> str:
    """Pay; the answer takes its time."""
    EFFECTS.append("pay")
    if len(EFFECTS) == 1:
        await asyncio.sleep(30)
    return "paid"


def calls_once(name: str) -> Any:
    return lambda messages: (
        say("done") if isinstance(messages[-1], ToolMessage) else say("", (name, {}))
    )


async def test_a_tool_that_the_idle_timeout_cut_is_not_run_again_by_the_retry(
    manager: SessionManager,
) -> None:
    agent = make(
        manager, calls_once("pay_slowly"), pay_slowly, runtime={"timeout": {"idle": "300ms"}}
    )
    result = await agent.execute(in_session("go"))
    assert (result.status, EFFECTS) == ("interrupted", ["pay"])
    assert result.interrupts[0].value["code"] == SIDE_EFFECT_UNKNOWN


@tool
async def look(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Look at an image."""
    shown = [ToolMessage("looked", tool_call_id=tool_call_id), HumanMessage("an image")]
    return Command(update={"messages": shown})


@tool
async def bad() -> str:
    """Fail once the other tool has answered."""
    await asyncio.sleep(0.05)
    raise ValueError("bad")


async def test_what_a_tool_says_beside_its_answer_comes_after_the_answers(
    manager: SessionManager,
) -> None:
    script = lambda m: say("", ("look", {}), ("bad", {})) if m[-1].text == "go" else say("ok")  # noqa: E731
    agent = make(manager, script, look, bad)
    with pytest.raises(Exception, match="bad"):
        await agent.execute(in_session("go"))
    result = await agent.execute(in_session("next"))
    kinds = [m.type for m in result.messages]
    assert kinds == ["human", "ai", "tool", "tool", "human", "human", "ai"]
    assert [m.text for m in result.messages[2:5]][0::2] == ["looked", "an image"]


@pytest.mark.parametrize("node", ["tools", "team/tools"])
async def test_a_node_may_write_one_message_and_have_any_name(
    manager: SessionManager, node: str
) -> None:
    def model(state: MessagesState) -> dict[str, Any]:
        if state["messages"][-1].text != "go":
            return {"messages": AIMessage("ok")}
        return {"messages": AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": "c1"}])}

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": ToolMessage("result of t", tool_call_id="c1")}

    async def fail(state: MessagesState) -> None:
        await asyncio.sleep(0.05)
        raise ValueError("bad")

    graph = (
        StateGraph(MessagesState)
        .add_node("model", model)
        .add_node(node, answer)
        .add_node("fail", fail)
    )
    graph.add_edge(START, "model")
    routes = lambda s: [node, "fail"] if getattr(s["messages"][-1], "tool_calls", None) else []  # noqa: E731
    graph.add_conditional_edges("model", routes, [node, "fail"])
    compiled: Any = graph.compile(checkpointer=manager.checkpointer)
    agent = AgentExecutor(compiled, pipeline=[SessionMiddleware(manager)])
    with pytest.raises(Exception, match="bad"):
        await agent.execute(in_session({"messages": [HumanMessage("go")]}))
    result = await agent.execute(in_session({"messages": [HumanMessage("next")]}))
    assert [m.text for m in result.messages] == ["go", "", "result of t", "next", "ok"]


@pytest.mark.parametrize(
    "store_url",
    ["sqlite", *(pytest.param(s, marks=pytest.mark.integration) for s in ("memory", "redis"))],
    indirect=True,
)
async def test_a_step_may_fan_out_to_thousands(store_url: str) -> None:
    class Sums(MessagesState):
        found: Annotated[list[int], operator.add]

    graph = StateGraph(Sums).add_node("one", lambda state: {"found": [state]})
    graph.add_conditional_edges(START, lambda _: [Send("one", n) for n in range(2000)], ["one"])
    async with open_manager(store_url) as manager:
        compiled: Any = graph.compile(checkpointer=manager.checkpointer)
        config: Any = {"configurable": {"thread_id": "t"}}
        state = await compiled.ainvoke({"messages": []}, config)
        assert len(state["found"]) == 2000


async def test_cleaning_up_leaves_a_session_whose_turn_runs(store_url: str) -> None:
    async with open_manager(store_url, default_ttl_s=0.2) as manager:
        agent = make(manager, lambda _: say("ok"))
        async with manager.turn("s"):
            await asyncio.sleep(0.3)
            assert await manager.cleanup_expired() == 0
        with pytest.raises(SessionGone):
            await manager.get_session("s")
        assert await manager.cleanup_expired() == 1
        assert (await agent.execute(in_session("hi", "other"))).output == "ok"
        assert await manager.cleanup_expired() == 0


async def test_nothing_of_a_tool_is_kept_after_its_session_was_deleted(
    manager: SessionManager,
) -> None:
    async with manager.turn("s") as turn:
        await turn.tool_started("key")
        await manager.delete_session("s")
        for ending in (turn.tool_ended("key", "private"), turn.tool_failed("key"), turn.settled()):
            with pytest.raises(StaleWriter):
                await ending
    assert await manager.checkpointer.backend.tool_results("default:s") == {}


async def test_changes_of_a_record_at_the_same_time_are_all_kept(manager: SessionManager) -> None:
    session = await manager.create_session(session_id="s")
    async with held_elsewhere(manager, "s"):
        saving = asyncio.create_task(manager.checkpoints.save("s", {"messages": []}))
        await asyncio.sleep(0.01)
        await asyncio.gather(
            manager.update_session("s", title="T"), manager.update_session("s", metadata={"a": 1})
        )
        await manager.end_turn(session, "interrupted")
    await saving
    session = await manager.get_session("s")
    assert (session.title, session.metadata, session.status) == ("T", {"a": 1}, "interrupted")


async def test_a_run_that_gets_ready_while_the_shutdown_begins_is_drained(
    manager: SessionManager,
) -> None:
    agent = make(manager, lambda _: say("ok"))
    begun = asyncio.Event()
    over = asyncio.Event()
    backend: Any = manager.checkpointer.backend
    arun_body = backend.arun_body

    async def slow(body: Any, args: Any) -> Any:
        if operation_name(body) == "load" and not over.is_set():
            begun.set()
            await over.wait()
        return await arun_body(body, args)

    await agent.execute(in_session("one"))
    with pytest.raises(asyncio.CancelledError):
        async with manager.turn("s1") as turn:
            turn.mark_running()
            raise asyncio.CancelledError  # so the next turn looks whether something was left open
    backend.arun_body = slow
    call = asyncio.create_task(agent.execute(in_session("two")))
    await begun.wait()
    draining = asyncio.create_task(agent.drain(5))
    await asyncio.sleep(0.02)
    over.set()
    assert await draining == 0
    with pytest.raises(Exception, match="shutdown"):
        await call
    assert (await manager.get_session("s1")).status == "drained"


@pytest.mark.parametrize("edit", [1.0, True])
def test_an_edit_to_an_equal_value_is_an_edit(edit: Any) -> None:
    saver = MemoryCheckpointer()
    message = HumanMessage("hi", id="1", additional_kwargs={"seen": 1})
    config = _put(saver, [message], 1, None)
    config = _put(saver, [message, AIMessage("a", id="2")], 2, config)
    message.additional_kwargs["seen"] = edit
    config = _put(saver, [message, AIMessage("a", id="2"), AIMessage("b", id="3")], 3, config)
    saver.operations.forget("t")
    found = saver.get_tuple(config)
    assert found is not None
    seen = found.checkpoint["channel_values"]["messages"][0].additional_kwargs["seen"]
    assert (type(seen), seen) == (type(edit), edit)


def _put(saver: MemoryCheckpointer, messages: list[Any], version: int, config: Any) -> Any:
    checkpoint: Any = empty_checkpoint()
    checkpoint |= {
        "channel_values": {"messages": messages},
        "channel_versions": {"messages": version},
    }
    metadata: Any = {"source": "loop", "step": version, "parents": {}}
    first: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    return saver.put(config or first, checkpoint, metadata, {})


class Pings(RedisConnection):
    """A connection with one operation that takes a while."""

    @steps_operation
    def nap(self) -> Steps[Any]:
        return (yield "blpop", f"{self.prefix}:{uuid.uuid4().hex}", 0.05)

    @steps_operation
    def kill(self) -> Steps[Any]:
        return (yield "execute_command", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_threads_whose_connections_are_cut_get_store_errors(redis_url: str) -> None:
    connection = Pings(redis_url)
    killer = Pings(redis_url)
    errors: list[BaseException] = []
    until = time.monotonic() + 1.5

    def work() -> None:
        while time.monotonic() < until:
            try:
                connection.nap().run()
            except BaseException as error:  # noqa: BLE001 - all are looked at
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while time.monotonic() < until - 0.2:
        killer.kill().run()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert errors
    assert all(isinstance(error, StoreError) for error in errors), {repr(e) for e in errors}
    assert connection.nap().run() is None
    asyncio.run(connection.aclose())
    asyncio.run(killer.aclose())


async def test_one_lost_connection_harms_no_other_request(redis_url: str) -> None:
    connection = Pings(redis_url, timeout_s=0.3)
    await asyncio.gather(*(connection.nap() for _ in range(4)))
    stalled = asyncio.ensure_future(connection.arun(iter_of("blpop", uuid.uuid4().hex, 5)))
    healthy = [asyncio.ensure_future(nap_until(connection, 0.6)) for _ in range(4)]
    with pytest.raises(StoreError):
        await stalled
    await asyncio.gather(*healthy)
    await connection.aclose()


def iter_of(*request: Any) -> Any:
    return (yield request)


async def nap_until(connection: Pings, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await connection.nap()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_connection_does_not_keep_loops_that_are_closed(redis_url: str) -> None:
    connection = Pings(redis_url)
    for _ in range(5):
        asyncio.run(_used(connection))
    assert len(connection._async_clients) <= 1


async def _used(connection: Pings) -> None:
    await connection.nap()
    await connection._async_clients[asyncio.get_running_loop()].connection_pool.disconnect()


def test_a_stale_guard_writes_no_effect() -> None:
    records = MemoryCheckpointer().backend
    lease = records.acquire_lease("t", "a", 5.0).run()
    assert lease is not None
    records.start_tool_call("t", "k", FencingToken(lease.token)).run()
    with pytest.raises(StaleWriter):
        records.record_tool_result("t", "k", b"x", FencingToken(lease.token - 1)).run()
