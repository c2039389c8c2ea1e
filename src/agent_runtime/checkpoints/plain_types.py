"""Values beside messages and plain data, and how each is stored as plain data."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.documents import Document
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy


def _datetime_parts(value: dt.datetime) -> Any:
    """Return ISO text, and the name of the zone beside it.

    The offset alone is another time after the next change.
    """
    zone = value.tzinfo
    if not isinstance(zone, ZoneInfo) or zone.key is None:
        return value.isoformat()
    return (value.replace(tzinfo=None).isoformat(), zone.key, value.fold)


def _datetime_of(stored: Any) -> dt.datetime:
    if isinstance(stored, str):
        return dt.datetime.fromisoformat(stored)
    text, zone, fold = stored
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def _deque_parts(value: deque[Any]) -> Any:
    return list(value) if value.maxlen is None else {"items": list(value), "maxlen": value.maxlen}


def _deque_of(stored: Any) -> deque[Any]:
    return deque(stored["items"], stored["maxlen"]) if isinstance(stored, dict) else deque(stored)


def _defaultdict_parts(value: defaultdict[Any, Any]) -> Any:
    factory = value.default_factory
    name = next(
        (factory_name for factory_name, candidate in _FACTORIES.items() if candidate is factory),
        None,
    )
    if name is None:  # anything else would be code that is named in a store
        raise TypeError(
            f"a defaultdict is stored with the factories {', '.join(_FACTORIES)}, not {factory!r}"
        )
    return (name, list(value.items()))


_FACTORIES: dict[str, Callable[[], Any] | None] = {
    "none": None, "list": list, "dict": dict, "set": set, "int": int, "float": float, "str": str,
    "bool": bool,
}  # fmt: skip


def _timeout_of(parts: dict[str, Any]) -> TimeoutPolicy | None:
    return TimeoutPolicy(**parts) if parts else None


def _send_parts(value: Send) -> Any:
    timeout = value.timeout
    parts = (
        {}
        if timeout is None
        else {f.name: getattr(timeout, f.name) for f in dataclasses.fields(timeout)}
    )
    return (value.node, value.arg, parts) if parts else (value.node, value.arg)


def _send_of(stored: Any) -> Send:
    return Send(stored[0], stored[1], timeout=_timeout_of(stored[2]) if len(stored) > 2 else None)


def _interrupt_parts(value: Interrupt) -> Any:
    return (
        (value.value, value.id)
        if value.response_schema is None
        else (value.value, value.id, value.response_schema)
    )


def _interrupt_of(stored: Any) -> Interrupt:
    return Interrupt(stored[0], stored[1], response_schema=stored[2] if len(stored) > 2 else None)


def _requires_type(stored_type: type, build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return `build` for values of this type alone: `bytearray` of a number takes as many bytes."""

    def read(stored: Any) -> Any:
        if type(stored) is not stored_type:
            raise TypeError(f"stored is a {type(stored).__name__}")
        return build(stored)

    return read


def _zone_key(zone: ZoneInfo) -> str:
    if zone.key is None:
        raise TypeError("a time zone that was read from a file has no name to be stored by")
    return zone.key


_ADDRESSES = (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)

# Name, type, stored form, constructor. No name of a module or function is ever stored.
_PLAIN_TYPES: list[tuple[str, type, Callable[[Any], Any], Callable[[Any], Any]]] = [
    ("set", set, list, set),
    ("frozenset", frozenset, list, frozenset),
    ("deque", deque, _deque_parts, _deque_of),
    ("bytearray", bytearray, bytes, _requires_type(bytes, bytearray)),
    ("OrderedDict", OrderedDict, lambda v: list(v.items()), OrderedDict),
    ("defaultdict", defaultdict, _defaultdict_parts, lambda v: defaultdict(_FACTORIES[v[0]], v[1])),
    ("Counter", Counter, lambda v: list(v.items()), lambda v: Counter(dict(v))),
    ("int", int, str, _requires_type(str, int)),
    ("datetime", dt.datetime, _datetime_parts, _datetime_of),
    ("date", dt.date, dt.date.isoformat, dt.date.fromisoformat),
    ("time", dt.time, dt.time.isoformat, dt.time.fromisoformat),
    ("timedelta", dt.timedelta, lambda v: (v.days, v.seconds, v.microseconds),
    lambda v: dt.timedelta(*v)),
    ("Decimal", Decimal, str, _requires_type(str, Decimal)),
    ("UUID", UUID, lambda v: v.bytes, lambda v: UUID(bytes=v)),
    ("Send", Send, _send_parts, _send_of),
    ("Interrupt", Interrupt, _interrupt_parts, _interrupt_of),
    ("Command", Command, lambda v: (v.graph, v.update, v.resume, v.goto),
     lambda v: Command(graph=v[0], update=v[1], resume=v[2], goto=v[3])),
    ("Overwrite", Overwrite, lambda v: v.value, Overwrite),
    ("DeltaSnapshot", _DeltaSnapshot, lambda v: v.value, _DeltaSnapshot),
    ("Document", Document, lambda v: (v.page_content, v.metadata, v.id),
     lambda v: Document(page_content=v[0], metadata=v[1], id=v[2])),
    ("AgentAction", AgentAction, lambda v: (v.tool, v.tool_input, v.log),
     lambda v: AgentAction(tool=v[0], tool_input=v[1], log=v[2])),
    ("AgentFinish", AgentFinish, lambda v: (v.return_values, v.log), lambda v: AgentFinish(v[0],
    v[1])),
    ("timezone", dt.timezone, lambda v: (v.utcoffset(None), v.tzname(None)),
    lambda v: dt.timezone(*v)),
    ("ZoneInfo", ZoneInfo, _zone_key, ZoneInfo),
    *(
        (address_type.__name__, address_type, str, _requires_type(str, address_type))
        for address_type in _ADDRESSES
    ),
]  # fmt: skip
PLAIN_WRITERS = {cls: (name, write) for name, cls, write, _ in _PLAIN_TYPES}
PLAIN_READERS = {name: read for name, _, _, read in _PLAIN_TYPES}
