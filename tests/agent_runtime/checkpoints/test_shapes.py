"""Whole, sealed bytes of another shape are CheckpointCorrupt in every place, and nothing else."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import replace
from typing import Any

import ormsgpack
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from agent_runtime import CheckpointCorrupt, SessionManager, StateNotSerializable
from agent_runtime.checkpoints.backends.memory import MemoryCheckpointBackend
from agent_runtime.checkpoints.cache import CheckpointCache
from agent_runtime.checkpoints.chunk_refs import parse_refs
from agent_runtime.checkpoints.codec import MESSAGE, PLAIN, TUPLE, Codec, UnreadableBytes
from agent_runtime.checkpoints.shapes import is_checkpoint_row
from agent_runtime.sessions import MemoryCheckpointer, RedisStore
from agent_runtime.sessions.session_shape import is_session
from agent_runtime.storage import RedisConnection
from agent_runtime.testing import ScriptedChatModel, say

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text("ab=-;", max_size=4)
)
VALUES = st.recursive(
    LEAVES | st.binary(max_size=3) | st.datetimes() | st.just(HumanMessage("x")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["id", "channel_versions", "versions_seen", "tenant", "x"]),
            inner,
            max_size=4,
        )
        | st.tuples(inner)
    ),
    max_leaves=10,
)
BYTES = st.one_of(
    VALUES.map(Codec().encode),
    st.binary(max_size=12),
    VALUES.map(lambda v: Codec().encode(v) + b"\x01"),
)


def a_thread() -> tuple[MemoryCheckpointer, Any]:
    saver = MemoryCheckpointer()
    create_agent(ScriptedChatModel(script=[say("hi")]), checkpointer=saver).invoke(
        {"messages": [("user", "x")]}, CONFIG
    )
    records: Any = saver.backend
    assert isinstance(records, MemoryCheckpointBackend)
    return saver, records._threads_by_name["t"]


@settings(max_examples=150, deadline=None)
@given(BYTES)
def test_a_row_a_write_and_a_chunk(payload: bytes) -> None:
    saver, thread = a_thread()
    key, row = list(thread.rows.items())[-1]
    place = ("t", row.namespace, row.checkpoint_id, row.parent_id or "")
    originals = dict(thread.rows), dict(thread.chunks)

    def read_again() -> None:
        saver.operations._cache = CheckpointCache()
        try:
            found = saver.get_tuple(CONFIG)
        except CheckpointCorrupt:
            return
        assert found is not None
        assert isinstance(found.checkpoint["channel_values"], dict)

    thread.rows[key] = replace(row, data=saver.blobs.seal_payload(payload, "row", *place))
    read_again()
    thread.rows.update(originals[0])
    for chunk in originals[1]:
        namespace, channel, number = chunk
        thread.chunks[chunk] = saver.blobs.seal_payload(
            payload, "chunk", "t", namespace, channel, str(number)
        )
        read_again()
        thread.chunks.update(originals[1])
    (_, writes), *_ = thread.writes.items()
    for name, write in list(writes.items()):
        where = ("t", row.namespace, row.checkpoint_id, write.task_id, str(write.index), write.path)
        writes[name] = write._replace(data=saver.blobs.seal_payload(payload, "write", *where))
    read_again()


@settings(max_examples=150, deadline=None)
@given(BYTES)
async def test_a_session_s_record(payload: bytes) -> None:
    manager = SessionManager()
    session = await manager.create_session("ada", session_id="s")
    records: Any = manager.checkpointer.backend
    (key, row), = records.sessions._rows.items()  # fmt: skip
    records.sessions._rows[key] = replace(
        row, data=manager.checkpointer.blobs.seal_payload(payload, "session", key)
    )
    with pytest.raises(CheckpointCorrupt):
        await manager.get_session("s")
    assert (await manager.list_sessions()).sessions == []
    records.sessions._rows[key] = row
    assert await manager.get_session("s") == session


ITEMS: list[Any] = [
    [], {}, "x", [{"a": 1}], [1, 2, 3, 4], [[1], dt.datetime.now(dt.UTC), dt.datetime.now(dt.UTC),
    None],
    [{"a": 1}, dt.datetime.now(dt.UTC), dt.datetime.now(dt.UTC), "soon"],
]  # fmt: skip


@pytest.mark.parametrize("value", ITEMS)
async def test_an_item_of_a_memory(value: Any, redis_url: str) -> None:
    prefix = uuid.uuid4().hex
    connection = RedisConnection(f"{redis_url}?prefix={prefix}")
    store = RedisStore(connection)
    await store.aput(("n",), "k", {"a": 1})
    name = store._operations._name(("n",), "k")
    data = store._operations._blobs.encode(value, "memory", name)
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"*{prefix}*"):
            if key.endswith(name.encode()):
                client.set(key, data)
    for read in (store.aget(("n",), "k"), store.asearch(("n",)), store.aput(("n",), "k", {"a": 2})):
        with pytest.raises(CheckpointCorrupt):
            await read
    await connection.aclose()


def test_bytes_behind_a_value_are_not_ignored() -> None:
    codec = Codec()
    data = codec.encode({"a": [1, AIMessage("x")]})
    for more in (b"\x01", b"\xc0", data, b"\x00" * 40):
        with pytest.raises(UnreadableBytes):
            codec.decode(data + more)
    with pytest.raises(UnreadableBytes):
        codec.decode(b"")


@pytest.mark.parametrize("number", [-1, 13, 10**6, "1", None])
def test_a_message_of_a_number_that_no_class_has(number: Any) -> None:
    row = [number, "text", {}]
    with pytest.raises(UnreadableBytes):
        Codec().decode(ormsgpack.packb(ormsgpack.Ext(MESSAGE, ormsgpack.packb(row))))
    listed = Codec().encode_list([AIMessage("x")])
    with pytest.raises(UnreadableBytes):
        Codec().decode_list(listed[:1] + ormsgpack.packb([row]))


def test_values_that_are_nested_deeper_than_a_stack_are_no_value() -> None:
    payload = ormsgpack.packb(1)
    for _ in range(400):
        payload = ormsgpack.packb(ormsgpack.Ext(TUPLE, b"\x91" * 900 + payload))
    with pytest.raises(UnreadableBytes):
        Codec().decode(payload)
    value: Any = 1
    for _ in range(60):
        value = (value,)
    assert Codec().decode(Codec().encode(value)) == value
    with pytest.raises(StateNotSerializable):
        Codec().encode((((((value,),),),),))


@pytest.mark.parametrize(
    "stored", [["bytearray", 1_500_000_000], ["int", 1.5], ["Decimal", 3], ["IPv4Address", 7]]
)
def test_a_plain_value_is_made_of_its_own_form_alone(stored: list[Any]) -> None:
    with pytest.raises(UnreadableBytes):
        Codec().decode(ormsgpack.packb(ormsgpack.Ext(PLAIN, ormsgpack.packb(stored))))


@pytest.mark.parametrize(
    "text",
    [
        "a=-5-3",
        "a=9-3",
        "a=0-99999999999,99999999999-0",
        f"a={2**64}",
        "a=0-999999;b=0-999999",
        "a=x",
        "a",
        "a=1-2-3",
    ],
)
def test_references_that_cannot_be(text: str) -> None:
    with pytest.raises(CheckpointCorrupt):
        parse_refs(text)


NO_ROWS: dict[str, Any] = {
    "versions_seen": {"versions_seen": {"model": 5}},
    "versions": {"channel_versions": {"messages": 1, "other": "1"}},
    "updated": {"updated_channels": 5},
}


@pytest.mark.parametrize(
    "change",
    [*NO_ROWS.values(), {"step": "x"}, {"counters_since_delta_snapshot": 5}, {"parents": 1}],
)
def test_a_row_of_odd_parts_is_none(change: dict[str, Any]) -> None:
    saver, thread = a_thread()
    row = list(thread.rows.values())[-1]
    place = ("row", "t", row.namespace, row.checkpoint_id, row.parent_id or "")
    checkpoint, metadata, *rest = saver.blobs.decode_as(is_checkpoint_row, row.data, *place)
    is_metadata = change.keys() <= {"step", "counters_since_delta_snapshot", "parents"}
    changed = (
        [checkpoint, {**metadata, **change}]
        if is_metadata
        else [{**checkpoint, **change}, metadata]
    )
    assert not is_checkpoint_row([*changed, *rest])


@pytest.mark.parametrize("moment", [1e300, float("nan"), -1.0])
def test_a_session_of_no_time_is_none(moment: float) -> None:
    record = {"id": "s", "tenant": "t", "user_id": "u"}
    assert is_session(record)
    assert not is_session({**record, "updated_at": moment})


def test_references_to_more_chunks_than_there_can_be() -> None:
    saver, thread = a_thread()
    key, row = list(thread.rows.items())[-1]
    thread.rows[key] = replace(row, chunks="messages=0-99999999999999")
    saver.operations._cache = CheckpointCache()
    with pytest.raises(CheckpointCorrupt):
        saver.get_tuple(CONFIG)
