"""A list channel (mostly the messages) that grows by appending: what is stored of it, and what has to be added."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from operator import is_
from typing import Any

from langchain_core.messages import BaseMessage

from agent_runtime.sessions.chunk_refs import Ranges, first_numbers, with_number
from agent_runtime.sessions.codec import Codec

_TAIL = 3
"""Stored items at the end that are compared by content: middleware edits the newest messages in place, if any."""
_READERS = 4
"""How many lists that were handed out are remembered, to recognise their items by identity."""


class StoredList:
    """The chunks of a list (numbers, sizes and bytes) beside the objects that were read from or written to them.

    LangGraph hands the whole list over at every step. Items that were read from here or written here are recognised
    by identity, so that a step costs what it adds; an item that was replaced starts a new chunk from there on. What is
    handed out again are copies of objects that nobody else has: whatever an application does to its own stays there.
    """

    __slots__ = ("_bases", "_codec", "_ends", "_private", "_tail", "_unread", "ranges")

    def __init__(self, codec: Codec, ranges: Ranges, payloads: list[bytes], pieces: list[list[Any]]) -> None:
        items = [item for piece in pieces for item in piece]
        self._codec, self.ranges = codec, ranges
        self._ends = list(accumulate(len(piece) for piece in pieces))
        self._bases: deque[list[Any]] = deque([items], maxlen=_READERS)
        self._tail = [codec.encode(item) for item in items[-_TAIL:]]
        self._private: list[Any] = []
        self._unread = payloads  # the bytes of what is not in `_private` yet

    def hand_out(self) -> list[Any] | None:
        """The items again, as copies that a reader may change; None when they are no messages: then read them anew."""
        copies: list[Any] = []
        for item in self._read():
            if not isinstance(item, BaseMessage):
                return None
            copies.append(_copy(item))
        self._bases.append(copies)
        return copies[:]

    def _read(self) -> list[Any]:
        for payload in self._unread:
            self._private += self._codec.decode_list(payload)
        self._unread = []
        return self._private

    def extended(self, items: list[Any], number: int) -> tuple[StoredList, bytes | None]:
        """What is stored when `items` are, and the bytes of the new chunk `number` (None: nothing is to be added)."""
        same = self._common(items)
        kept = bisect_right(self._ends, same)  # whole chunks only: a chunk is never changed
        start = self._ends[kept - 1] if kept else 0
        payload = self._codec.encode_list(items[start:]) if start < len(items) else None
        new = StoredList.__new__(StoredList)
        new._codec, new._bases = self._codec, deque([list(items)], maxlen=_READERS)
        new.ranges, new._ends = self.ranges, self._ends[:kept]
        if kept < len(self._ends):
            new.ranges = first_numbers(self.ranges, kept)
            new._private, new._unread = self._read()[:start], []
        else:
            new._private, new._unread = self._private[:], self._unread[:]
        if payload is not None:
            new.ranges = with_number(new.ranges, number)
            new._ends.append(len(items))
            new._unread.append(payload)
        new._tail = [self._codec.encode(item) for item in items[-_TAIL:]]
        return new, payload

    def _common(self, items: list[Any]) -> int:
        """How many items at the start are the stored ones."""
        best, base = 0, self._bases[-1]
        for known in self._bases:
            same = min(len(known), len(items))
            if not all(map(is_, known, items)):  # for a thousand items a tenth of what a loop takes
                same = next(i for i, (a, b) in enumerate(zip(known, items, strict=False)) if a is not b)
            if same >= best:
                best, base = same, known
        encode = self._codec.encode
        while best < min(len(base), len(items)) and encode(base[best]) == encode(items[best]):
            best += 1
        first = len(base) - len(self._tail)
        for at in range(first, min(best, len(base))):
            if encode(items[at]) != self._tail[at - first]:
                return at
        return best


def _copy(message: BaseMessage) -> BaseMessage:
    # Neither model_copy nor deepcopy: those take four and twenty times as long.
    new = message.__class__.__new__(message.__class__)
    fields = message.__dict__.copy()
    for name, value in fields.items():
        if value.__class__ is dict or value.__class__ is list:
            fields[name] = _fresh(value)
    object.__setattr__(new, "__dict__", fields)
    object.__setattr__(new, "__pydantic_fields_set__", message.__pydantic_fields_set__.copy())
    object.__setattr__(new, "__pydantic_extra__", _fresh(message.__pydantic_extra__))
    object.__setattr__(new, "__pydantic_private__", message.__pydantic_private__)
    return new


def _fresh(value: Any) -> Any:
    if value.__class__ is dict:
        return {k: _fresh(v) for k, v in value.items()} if value else {}
    if value.__class__ is list:
        return [_fresh(v) for v in value] if value else []
    return value
