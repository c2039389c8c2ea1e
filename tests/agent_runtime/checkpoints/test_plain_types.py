"""What LangChain and LangGraph put into a state is stored with all of its fields, those of tomorrow
too."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy
from pydantic import BaseModel

from agent_runtime.checkpoints.codec import Codec
from agent_runtime.errors import StateNotSerializable

FULL: dict[type, Any] = {
    Command: Command(graph="g", update={"a": 1}, resume={"i": 2}, goto=[Send("n", 1)]),
    Interrupt: Interrupt("which?", "id-1", response_schema={"type": "string"}),
    Overwrite: Overwrite([1]),
    Send: Send(
        "n", {"a": 1}, timeout=TimeoutPolicy(run_timeout=5, idle_timeout=dt.timedelta(seconds=2))
    ),
    _DeltaSnapshot: _DeltaSnapshot([1, 2]),
    Document: Document(page_content="text", metadata={"a": 1}, id="d"),
    AgentAction: AgentAction(tool="t", tool_input={"a": 1}, log="l"),
    AgentFinish: AgentFinish({"a": 1}, "l"),
}
"""A value of each class that is stored as plain data, with something in each of its fields."""


def fields_of(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    names = getattr(value, "_fields", None) or type(value).__slots__
    return {name: getattr(value, name) for name in names}


@pytest.mark.parametrize("value", FULL.values(), ids=lambda each: type(each).__name__)
def test_every_field_comes_back(value: Any) -> None:
    """One that gains a field fails here, until the field is in `FULL` and stored."""
    codec = Codec()
    fields = fields_of(value)
    assert None not in fields.values(), "a field has no value in FULL"
    assert fields_of(codec.decode(codec.encode(value))) == fields


def test_a_timeout_has_the_fields_that_are_stored() -> None:
    assert {field.name for field in dataclasses.fields(TimeoutPolicy)} == {
        "run_timeout",
        "idle_timeout",
        "refresh_on",
    }


@pytest.mark.parametrize(
    "value",
    [
        dt.timezone.utc,  # noqa: UP017 - the class itself
        dt.timezone(dt.timedelta(hours=5, minutes=30), "IST"),
        ZoneInfo("Europe/Berlin"),
        *(ip_interface(text) for text in ("10.0.0.1/8", "::1/64")),
        *(ip_address(text) for text in ("10.0.0.1", "fe80::1%eth0")),
        *(ip_network(text) for text in ("10.0.0.0/8", "::/0")),
    ],
    ids=str,
)
def test_zones_and_addresses_come_back_equal(value: Any) -> None:
    codec = Codec()
    back = codec.decode(codec.encode({"v": [value]}))["v"][0]
    assert (back, type(back)) == (value, type(value))


class Name(str):
    """Text of a class of its own."""


class Marked(dict[str, Any]):
    """A map with something beside its keys."""

    mark = 1

    def __init__(self, **content: Any) -> None:
        super().__init__(content)
        self.mark = 2


class Loose(dict[str, Any]):
    """A map with an equality of its own."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


class Color(str, Enum):  # noqa: UP042 - the older form, which states still hold
    RED = "red"


BERLIN = ZoneInfo("Europe/Berlin")
EQUAL: list[Any] = [
    Name("a"),
    AIMessage("hello").text,
    deque([1, 2, 3], maxlen=3),
    deque([1]),
    bytearray(b"\x00\xff"),
    OrderedDict(a=1, b=2),
    defaultdict(list, a=[1]),
    defaultdict(None, a=1),
    Counter("aab"),
    dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    dt.datetime(2026, 10, 25, 2, 30, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.datetime(2026, 10, 25, 2, 30),
]


@pytest.mark.parametrize("value", EQUAL, ids=repr)
def test_it_comes_back_equal(value: Any) -> None:
    codec = Codec()
    back = codec.decode(codec.encode({"in": [value]}))["in"][0]
    assert back == value
    assert getattr(back, "maxlen", None) == getattr(value, "maxlen", None)
    assert getattr(back, "default_factory", None) is getattr(value, "default_factory", None)
    assert repr(getattr(back, "tzinfo", None)) == repr(getattr(value, "tzinfo", None))
    assert getattr(back, "fold", 0) == getattr(value, "fold", 0)


@pytest.mark.parametrize(
    "value",
    [Marked(a=1), Loose(a=1), Color.RED, defaultdict(lambda: 1, a=1)],
    ids=lambda each: type(each).__name__,
)
def test_what_would_lose_something_is_refused(value: Any) -> None:
    with pytest.raises(StateNotSerializable):
        Codec().encode({"in": [value]})
