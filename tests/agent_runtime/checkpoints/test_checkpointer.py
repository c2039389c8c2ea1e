"""The savers: LangGraph's conformance suite, what is stored, how it is shared, pruned and
copied."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from tests.support.checkpoints import METADATA, checkpoint, config_of
from tests.support.sessions import open_manager

from agent_runtime import InputInvalid, StateNotSerializable
from agent_runtime.checkpoints.chunk_refs import (
    Refs,
    first_numbers,
    format_refs,
    numbers_in,
    parse_refs,
    with_number,
)
from agent_runtime.sessions import (
    Checkpointer,
    MemoryCheckpointer,
    RedisCheckpointer,
    SqliteCheckpointer,
)
from agent_runtime.testing import ScriptedChatModel, say


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """`async with opened() as saver`, for each kind; every call opens the same store."""
    if request.param == "memory":
        saver = MemoryCheckpointer()
        return lambda **_: _kept(saver)
    if request.param == "sqlite":
        return lambda **kw: SqliteCheckpointer.from_conn_string(str(tmp_path / "c.db"), **kw)
    url = request.getfixturevalue("redis_url")
    prefix = uuid.uuid4().hex
    return lambda **kw: RedisCheckpointer.from_conn_string(url, prefix=prefix, **kw)


class _kept:  # noqa: N801 - a context manager that keeps what it was given
    def __init__(self, saver: Checkpointer) -> None:
        self.saver = saver

    async def __aenter__(self) -> Checkpointer:
        return self.saver

    async def __aexit__(self, *exc: object) -> None:
        return None


async def test_langgraphs_conformance_suite_is_passed_whole(opened: Any) -> None:
    async def make() -> AsyncIterator[Checkpointer]:
        async with opened() as saver:
            yield saver

    report = await validate(checkpointer_test(name="agent_runtime")(make))
    assert [name for name, r in report.results.items() if not r.detected or not r.passed] == []
    assert len(report.results) == 8


async def stored(saver: Any, thread: str, **values: Any) -> Any:
    """The latest values, read by somebody who remembers nothing."""
    saver.operations.forget(thread)
    found = await saver.aget_tuple(config_of(thread))
    return found.checkpoint["channel_values"]


async def test_lists_that_grow_shrink_and_change_come_back_as_they_were(opened: Any) -> None:
    async with opened() as saver:
        config = config_of("t")
        messages = [HumanMessage(f"m{i}", id=str(i)) for i in range(6)]
        edited = [
            *messages[:2],
            messages[2].model_copy(update={"content": "edited"}),
            *messages[3:],
        ]
        versions: list[list[Any]] = [
            messages[:2], messages[:4], messages, edited, edited[:3], [], [AIMessage("new",
            id="n")],
            [{"plain": 1}, "mixed", messages[0]],
        ]  # fmt: skip
        for number, value in enumerate(versions, 1):
            config = await saver.aput(
                config, checkpoint(value, number, other=(1, {2}, number)), METADATA, {}
            )
            hot = await saver.aget_tuple(config_of("t"))
            assert hot.checkpoint["channel_values"] == {
                "messages": value,
                "other": (1, {2}, number),
            }
            assert await stored(saver, "t") == {"messages": value, "other": (1, {2}, number)}


async def test_a_message_that_is_edited_in_place_is_stored(opened: Any) -> None:
    async with opened() as saver:
        messages = [HumanMessage("a", id="1"), AIMessage("b", id="2")]
        config = await saver.aput(config_of("t"), checkpoint(messages), METADATA, {})
        messages[1].content = "changed in place"
        await saver.aput(
            config, checkpoint([*messages, HumanMessage("c", id="3")], 2), METADATA, {}
        )
        assert [m.text for m in (await stored(saver, "t"))["messages"]] == [
            "a",
            "changed in place",
            "c",
        ]


async def test_a_step_stores_what_it_adds(opened: Any) -> None:
    async with opened() as saver:
        sizes = []
        config = config_of("t")
        messages: list[Any] = []
        records = saver.backend
        save = records.save

        def measured(thread: str, row: Any, chunks: Any, *rest: Any) -> Any:
            sizes.append(len(row.data) + len(row.chunks) + sum(len(c.data) for c in chunks))
            return save(thread, row, chunks, *rest)

        records.save = measured
        for number in range(200):
            messages = [*messages, HumanMessage("x" * 200, id=str(number))]
            config = await saver.aput(config, checkpoint(messages, number + 1), METADATA, {})
        records.save = save
        assert max(sizes[-20:]) <= 1.2 * max(sizes[:20])
        assert len((await stored(saver, "t"))["messages"]) == 200


async def test_two_branches_of_one_checkpoint_do_not_meet(opened: Any) -> None:
    async with opened() as saver:
        start = [HumanMessage("start", id="0")]
        root = await saver.aput(config_of("t"), checkpoint(start), METADATA, {})
        left = await saver.aput(
            root, checkpoint([*start, AIMessage("left", id="l")], 2), METADATA, {}
        )
        right = await saver.aput(
            root, checkpoint([*start, AIMessage("right", id="r")], 2), METADATA, {}
        )
        for config, text in ((left, "left"), (right, "right"), (root, "start")):
            saver.operations.forget("t")
            assert (await saver.aget_tuple(config)).checkpoint["channel_values"]["messages"][
                -1
            ].text == text


async def test_sync_and_async_methods_are_one_saver(opened: Any) -> None:
    async with opened() as saver:
        graph = create_agent(
            ScriptedChatModel(script=lambda m: say(str(len(m)))), checkpointer=saver
        )
        config = config_of("t")
        import asyncio

        assert (await asyncio.to_thread(lambda: graph.invoke({"messages": "a"}, config)))[
            "messages"
        ][-1].text == "1"
        assert (await graph.ainvoke({"messages": "b"}, config))["messages"][-1].text == "3"
        history = await asyncio.to_thread(lambda: list(graph.get_state_history(config)))
        assert len(history) == len([s async for s in graph.aget_state_history(config)]) == 6


async def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(opened: Any) -> None:
    class State(TypedDict):
        messages: Annotated[
            list[AnyMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=1000)
        ]

    async with opened() as saver:
        graph = (
            StateGraph(State)
            .add_node("n", lambda s: {"messages": [AIMessage(str(len(s["messages"])))]})
            .add_edge(START, "n")
            .add_edge("n", END)
            .compile(checkpointer=saver)
        )
        for text in ("a", "b", "c"):
            await graph.ainvoke({"messages": [HumanMessage(text)]}, config_of("t"))
        before = [m.text for m in (await graph.aget_state(config_of("t"))).values["messages"]]
        assert before == ["a", "1", "b", "3", "c", "5"]
        await saver.aprune(["t"])
        saver.operations.forget("t")
        assert [
            m.text for m in (await graph.aget_state(config_of("t"))).values["messages"]
        ] == before


async def test_pruning_and_deleting_runs_free_the_values_that_nobody_shares(opened: Any) -> None:
    async with opened() as saver:
        graph = create_agent(
            ScriptedChatModel(script=lambda m: say(str(len(m)))), checkpointer=saver
        )
        for number in range(4):
            config = {**config_of("t"), "metadata": {"run_id": f"run-{number}"}}
            await graph.ainvoke({"messages": "hi"}, config)
        await saver.aprune(["t"])
        assert len([c async for c in saver.alist(config_of("t"))]) == 1
        assert len((await stored(saver, "t"))["messages"]) == 8
        await saver.adelete_for_runs(["run-3"])
        assert await saver.aget_tuple(config_of("t")) is None
        await saver.adelete_thread("t")
        assert [c async for c in saver.alist(config_of("t"))] == []


async def test_a_thread_expires_after_its_last_use(opened: Any) -> None:
    import asyncio

    async with opened(ttl_s=0.3) as saver:
        saver.operations.ttl_s = 0.3
        config = await saver.aput(
            config_of("t"), checkpoint([HumanMessage("a", id="1")]), METADATA, {}
        )
        await asyncio.sleep(0.2)
        await saver.aput(config, checkpoint([HumanMessage("a", id="1")], 2), METADATA, {})
        await asyncio.sleep(0.2)
        assert await saver.aget_tuple(config_of("t")) is not None
        await asyncio.sleep(0.35)
        assert await saver.aget_tuple(config_of("t")) is None
        assert [c async for c in saver.alist(config_of("t"))] == []


async def test_a_value_that_may_not_be_stored_is_refused_before_anything_is(opened: Any) -> None:
    class Opaque:
        pass

    async with opened() as saver:
        for value in (Opaque(), "\ud800", lambda: None):
            with pytest.raises(StateNotSerializable):
                await saver.aput(
                    config_of("t"), checkpoint([HumanMessage("a", id="1")], bad=value), METADATA, {}
                )
        assert await saver.aget_tuple(config_of("t")) is None


@pytest.mark.parametrize("thread", ["", None, "x" * 1000, "a\x1fb", "a\nb", True])
async def test_a_thread_id_that_cannot_be_one_is_refused(thread: Any) -> None:
    with pytest.raises(InputInvalid):
        await MemoryCheckpointer().aget_tuple({"configurable": {"thread_id": thread}})


async def test_ten_thousand_sessions_are_paged_without_a_scan(store_url: str) -> None:
    async with open_manager(store_url) as manager:
        for number in range(300):
            await manager.create_session(f"user-{number % 3}", session_id=f"s{number}")
        seen: list[str] = []
        cursor = None
        while True:
            page = await manager.list_sessions(user_id="user-1", limit=40, cursor=cursor)
            seen += [s.id for s in page.sessions]
            if (cursor := page.cursor) is None:
                break
        assert seen == [f"s{n}" for n in reversed(range(300)) if n % 3 == 1]
        with pytest.raises(InputInvalid, match="cursor"):
            await manager.list_sessions(cursor="nonsense")


def test_references_are_ranges() -> None:
    ranges: Any = ()
    for number in (0, 1, 2, 3, 7, 8, 5):
        ranges = with_number(ranges, number)
    assert ranges == ((0, 3), (7, 8), (5, 5))
    assert list(numbers_in(first_numbers(ranges, 5))) == [0, 1, 2, 3, 7]
    refs: Refs = {"a;=,b": ranges, "empty": ()}
    assert parse_refs(format_refs(refs)) == refs


def test_metadata_is_json_as_every_saver_gives_it_back() -> None:
    saver = MemoryCheckpointer()
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    metadata: Any = {"source": "input", "step": 1, "counters": {"messages": (1, [2, (3,)])}}
    saver.put(config, empty_checkpoint(), metadata, {})
    found: Any = saver.get_tuple(config)
    assert found.metadata["counters"] == {"messages": [1, [2, [3]]]}
