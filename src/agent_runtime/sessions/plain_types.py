"""The values beside messages and plain data that states may hold, and how each is stored as plain data."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from langchain_core.documents import Document
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send

# Name, type, what is stored, how it is made again. No name of a module or function is ever stored.
_PLAIN: list[tuple[str, type, Callable[[Any], Any], Callable[[Any], Any]]] = [
    ("set", set, list, set),
    ("frozenset", frozenset, list, frozenset),
    ("deque", deque, list, deque),
    ("int", int, str, int),
    ("datetime", dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    ("date", dt.date, dt.date.isoformat, dt.date.fromisoformat),
    ("time", dt.time, dt.time.isoformat, dt.time.fromisoformat),
    ("timedelta", dt.timedelta, lambda v: (v.days, v.seconds, v.microseconds), lambda v: dt.timedelta(*v)),
    ("Decimal", Decimal, str, Decimal),
    ("UUID", UUID, lambda v: v.bytes, lambda v: UUID(bytes=v)),
    ("Send", Send, lambda v: (v.node, v.arg), lambda v: Send(v[0], v[1])),
    ("Interrupt", Interrupt, lambda v: (v.value, v.id), lambda v: Interrupt(v[0], v[1])),
    ("Command", Command, lambda v: (v.graph, v.update, v.resume, v.goto),
     lambda v: Command(graph=v[0], update=v[1], resume=v[2], goto=v[3])),
    ("Overwrite", Overwrite, lambda v: v.value, Overwrite),
    ("DeltaSnapshot", _DeltaSnapshot, lambda v: v.value, _DeltaSnapshot),
    ("Document", Document, lambda v: (v.page_content, v.metadata, v.id),
     lambda v: Document(page_content=v[0], metadata=v[1], id=v[2])),
]  # fmt: skip
WRITE = {cls: (name, write) for name, cls, write, _ in _PLAIN}
READ = {name: read for name, _, _, read in _PLAIN}
