"""A list channel (mostly the messages) that grows by appending: what is stored of it, and what has to be added."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import Any

from langchain_core.messages import BaseMessage

from agent_runtime.sessions.codec import Codec

_TAIL = 4
"""Stored items at the end that are compared by content: middleware edits the newest messages in place, if any."""
_READERS = 4
"""How many lists that were handed out are remembered, to recognise their items by identity."""


class StoredList:
    """The chunks of a list (`numbers`, and how many items each has) beside the objects that they hold.

    LangGraph hands the whole list over at every step. Items that were read from here or written here are recognised
    by identity, so that a step costs what it adds; an item that was replaced starts a new chunk from there on. What is
    handed out again are copies of copies that nobody else has: whatever an application does to its own stays there.
    """

    __slots__ = ("_bases", "_codec", "_ends", "_private", "_tail", "numbers")

    def __init__(self, codec: Codec, numbers: list[int], sizes: list[int], items: list[Any]) -> None:
        self._codec, self.numbers = codec, numbers
        self._ends = list(accumulate(sizes))
        self._bases: deque[list[Any]] = deque([items], maxlen=_READERS)
        self._private = _copies(items)
        self._tail = [codec.encode(item) for item in items[-_TAIL:]]

    def hand_out(self) -> list[Any] | None:
        """The items again, as copies that a reader may change; None when they are no messages: then read them anew."""
        copies = None if self._private is None else _copies(self._private)
        if copies is not None:
            self._bases.append(copies)
            return copies[:]
        return None

    def extended(self, items: list[Any], number: int) -> tuple[StoredList, list[Any] | None]:
        """What is stored when `items` are, and the items of the new chunk `number` (None: nothing is to be added)."""
        same = self._common(items)
        kept = bisect_right(self._ends, same)  # whole chunks only: a chunk is never changed
        start = self._ends[kept - 1] if kept else 0
        new = StoredList.__new__(StoredList)
        new._codec, new._bases = self._codec, deque([list(items)], maxlen=_READERS)
        added = None if self._private is None else _copies(items[start:])
        new._private = None if self._private is None or added is None else [*self._private[:start], *added]
        new.numbers, new._ends = self.numbers[:kept], self._ends[:kept]
        if start < len(items):
            new.numbers, new._ends = [*new.numbers, number], [*new._ends, len(items)]
        new._tail = [self._codec.encode(item) for item in items[-_TAIL:]]
        return new, items[start:] if start < len(items) else None

    def _common(self, items: list[Any]) -> int:
        """How many items at the start are the stored ones."""
        best, base = 0, self._bases[-1]
        for known in self._bases:
            length = min(len(known), len(items))
            same = next((i for i in range(length) if known[i] is not items[i]), length)
            if same >= best:
                best, base = same, known
        while best < min(len(base), len(items)) and self._codec.encode(base[best]) == self._codec.encode(items[best]):
            best += 1
        first = len(base) - len(self._tail)
        for at in range(first, min(best, len(base))):
            if self._codec.encode(items[at]) != self._tail[at - first]:
                return at
        return best


def _copies(items: list[Any]) -> list[Any] | None:
    """Copies of messages; None when something else is among them."""
    copies = []
    for item in items:
        if not isinstance(item, BaseMessage):
            return None
        # Neither model_copy nor deepcopy: those take four and twenty times as long.
        new = item.__class__.__new__(item.__class__)
        object.__setattr__(new, "__dict__", {name: _fresh(value) for name, value in item.__dict__.items()})
        object.__setattr__(new, "__pydantic_fields_set__", set(item.__pydantic_fields_set__))
        object.__setattr__(new, "__pydantic_extra__", _fresh(item.__pydantic_extra__))
        object.__setattr__(new, "__pydantic_private__", item.__pydantic_private__)
        copies.append(new)
    return copies


def _fresh(value: Any) -> Any:
    if type(value) is dict:
        return {k: _fresh(v) for k, v in value.items()}
    return [_fresh(v) for v in value] if type(value) is list else value
