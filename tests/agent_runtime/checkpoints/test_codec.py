"""Stored bytes are not trusted.

The allow-list, the seal, and what happens to a blob that does not verify.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import ormsgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send
from pydantic import BaseModel
from tests.support.checkpoints import METADATA, checkpoint, config_of

from agent_runtime import (
    CheckpointCorrupt,
    CheckpointVersion,
    ConfigurationError,
    StateNotSerializable,
)
from agent_runtime.checkpoints.codec import Codec, UnreadableBytes
from agent_runtime.checkpoints.seal import VERSION, Seal
from agent_runtime.sessions import Checkpointer, MemoryCheckpointer, SessionManager

KEY = b"a key of the tests with 32 bytes"
CODEC = Codec()

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary(max_size=20) | st.datetimes() | st.dates() | st.timedeltas()
    | st.decimals(allow_nan=False) | st.uuids()
)  # fmt: skip
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(st.characters(codec="utf-8")), max_size=3)
    ),
    max_leaves=12,
)  # fmt: skip
text = st.text(st.characters(codec="utf-8"), max_size=30)
extras = st.dictionaries(text, scalars, max_size=2)
messages = st.one_of(
    st.builds(HumanMessage, content=text, id=text, additional_kwargs=extras),
    st.builds(SystemMessage, content=text),
    st.builds(
        ToolMessage,
        content=text,
        tool_call_id=text,
        artifact=plain,
        status=st.sampled_from(["success", "error"]),
    ),
    st.builds(
        AIMessage,
        content=text,
        response_metadata=extras,
        tool_calls=st.lists(
            st.fixed_dictionaries({"name": text, "args": extras, "id": text}), max_size=2
        ),
        usage_metadata=st.none()
        | st.just(
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "total_tokens": 3,
                "input_token_details": {"cache_read": 1},
            }
        ),
    ),
)


@given(plain | messages | st.lists(messages, max_size=4))
@settings(max_examples=300, deadline=None)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    again = CODEC.decode(CODEC.encode(value))
    assert again == value
    assert type(again) is type(value)


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int


class Form(BaseModel):
    points: list[int]


@pytest.mark.parametrize(
    "value",
    [
        float("inf"), 2**200, -(2**64), b"", deque([1]), {1: "a", (1, 2): "b", None: "c"},
        Send("n", {"x": 1}),
        Interrupt("why", "id"), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Decimal("1.10"),
        UUID(int=5),
        {"lc": 1, "type": "secret", "id": ["X"]},
        {"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": ["x"]},
    ],
)  # fmt: skip
def test_unusual_values_come_back_as_plain_data(value: Any) -> None:
    assert CODEC.decode(CODEC.encode(value)) == value


def test_an_applications_types_are_allowed_one_by_one() -> None:
    codec = Codec([Point, Form, Colour])
    for value in (Point(3), Form(points=[1]), Colour.RED, [Point(1), {"f": Form(points=[])}]):
        data = codec.encode(value)
        assert codec.decode(data) == value
        with pytest.raises(UnreadableBytes, match="allow-list"):
            CODEC.decode(data)
        with pytest.raises(StateNotSerializable, match="allowed_types"):
            CODEC.encode(value)
    by_name = CODEC.with_allowed_types([(Point.__module__, Point.__qualname__)])
    assert by_name.decode(by_name.encode(Point(3))) == Point(3)


def test_nothing_that_bytes_name_is_run_or_imported() -> None:
    seen: list[str] = []
    sys.addaudithook(lambda event, args: seen.append(event) if watching else None)
    forged = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(("os", "mkdir", "/tmp/pwned"))))  # noqa: S108
    own = ormsgpack.packb(ormsgpack.Ext(4, ormsgpack.packb(["os:mkdir", "/tmp/pwned"])))  # noqa: S108
    _, theirs = JsonPlusSerializer().dumps_typed({"m": HumanMessage("x"), "p": Form(points=[1])})
    pickled = ormsgpack.packb(ormsgpack.Ext(99, b"\x80\x04K\x01."))
    for data in (forged, own, theirs, pickled, b"\xc1", b""):
        watching = True
        with pytest.raises(UnreadableBytes):
            CODEC.decode(data)
        watching = False
    assert not {"import", "exec", "compile", "os.mkdir", "open", "pickle.find_class"} & set(seen)


@pytest.mark.parametrize("key", [None, KEY])
def test_every_flipped_bit_and_every_truncation_is_refused(key: bytes | None) -> None:
    seal = Seal(key)
    place = "default:s1/row/1"
    blob = seal.seal(CODEC.encode({"a": [1, HumanMessage("hi")]}), place)
    for position in range(len(blob)):
        for bit in range(8):
            broken = bytearray(blob)
            broken[position] ^= 1 << bit
            with pytest.raises(CheckpointCorrupt):
                seal.unseal(bytes(broken), place)
        with pytest.raises(CheckpointCorrupt):
            seal.unseal(blob[:position], place)
    with pytest.raises(CheckpointCorrupt):
        seal.unseal(blob, "default:s2/row/1")
    assert CODEC.decode(seal.unseal(blob, place)) == {"a": [1, HumanMessage("hi")]}


def test_a_key_makes_forging_and_downgrading_impossible() -> None:
    with pytest.raises(CheckpointCorrupt):
        Seal(KEY).unseal(Seal(None).seal(b"x", "p"), "p")
    with pytest.raises(CheckpointCorrupt):
        Seal(KEY).unseal(Seal(b"another key of the tests, 32 too").seal(b"x", "p"), "p")
    forger = Seal(None)
    forger._head = Seal(KEY)._head  # knows what a sealed blob looks like, but not the key
    with pytest.raises(CheckpointCorrupt, match="digest"):
        Seal(KEY).unseal(forger.seal(b"x", "p"), "p")
    with pytest.raises(ConfigurationError, match="32"):
        Seal(b"short")


def test_another_version_says_so_and_damage_is_not_taken_for_one() -> None:
    class Newer(Seal):
        def __init__(self) -> None:
            super().__init__(KEY)
            self._head = bytes((VERSION + 1,)) + self._head[1:]

    with pytest.raises(CheckpointVersion, match=f"version {VERSION + 1}"):
        Seal(KEY).unseal(Newer().seal(b"x", "p"), "p")


@pytest.mark.parametrize(
    "kind", ["row", "chunk", "write", "references", "missing", "moved", "rolled back"]
)
async def test_what_does_not_verify_is_kept_reported_and_never_overwritten(kind: str) -> None:
    saver = MemoryCheckpointer(mac_key=KEY)
    config = await saver.aput(
        config_of("t"), checkpoint([HumanMessage("one", id="1")]), METADATA, {}
    )
    await saver.aput_writes(config, [("messages", HumanMessage("w"))], "task")
    later = await saver.aput(config, checkpoint([HumanMessage("two", id="2")], 2), METADATA, {})
    await saver.aput_writes(later, [("messages", HumanMessage("w"))], "task")
    await saver.aput(
        config_of("other"), checkpoint([HumanMessage("theirs", id="9")], 1), METADATA, {}
    )
    records: Any = saver.backend
    found = records._threads_by_name["t"]
    other = records._threads_by_name["other"]
    latest = found.rows["", found.ids[""][-1]]
    before = dict(found.chunks)
    _break(kind, found, other, latest)
    saver.operations.forget("t")
    with pytest.raises(CheckpointCorrupt) as corrupt:
        await saver.aget_tuple(config_of("t"))
    assert "t" in str(corrupt.value)
    assert len(records.quarantined_blobs("t").run()) == 1
    with pytest.raises(CheckpointCorrupt, match="trusted"):
        await saver.aput(later, checkpoint([HumanMessage("three", id="3")], 3), METADATA, {})
    if kind not in ("chunk", "missing", "moved", "rolled back"):
        assert found.chunks == before
    await saver.adelete_thread("t")
    await saver.aput(config_of("t"), checkpoint([HumanMessage("anew", id="1")]), METADATA, {})


def _break(kind: str, found: Any, other: Any, latest: Any) -> None:
    key = max(k for k in found.chunks if k[1] == "messages")
    if kind == "row":
        found.rows["", latest.checkpoint_id] = _with(latest, data=latest.data[:-1] + b"\x00")
    elif kind == "references":
        found.rows["", latest.checkpoint_id] = _with(latest, chunks="messages=0")
    elif kind == "chunk":
        found.chunks[key] = found.chunks[key][:-2] + b"zz"
    elif kind == "missing":
        del found.chunks[key]
    elif kind == "moved":
        found.chunks[key] = other.chunks["", "messages", 0]
    elif kind == "rolled back":
        found.chunks[key] = found.chunks["", "messages", 0]
    else:
        writes = found.writes["", latest.checkpoint_id]
        writes.update({k: w._replace(data=w.data + b"x") for k, w in writes.items()})


def _with(row: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(row, **changes)


async def test_a_sessions_record_does_not_move_between_sessions() -> None:
    manager = SessionManager(Checkpointer(MemoryCheckpointer().backend, mac_key=KEY))
    await manager.create_session("ada", session_id="a", title="mine")
    await manager.create_session("eve", session_id="b")
    records: Any = manager.checkpointer.backend
    rows = records.sessions._rows
    rows["default:b"] = _with(rows["default:b"], data=rows["default:a"].data)
    with pytest.raises(CheckpointCorrupt):
        await manager.get_session("b")


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((CheckpointCorrupt, CheckpointVersion)):
        Seal(None).unseal(data, "p")
    with contextlib.suppress(UnreadableBytes):
        CODEC.decode(data)


async def test_two_loops_share_one_memory_saver() -> None:
    saver = MemoryCheckpointer()
    await saver.aput(config_of("t"), checkpoint([HumanMessage("a", id="1")]), METADATA, {})
    found = await asyncio.to_thread(lambda: asyncio.run(saver.aget_tuple(config_of("t"))))
    assert found is not None
