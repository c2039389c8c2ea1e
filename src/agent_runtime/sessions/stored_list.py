"""A list channel (mostly the messages) that grows by appending: what is stored of it, and what has to be added."""

from __future__ import annotations

from itertools import accumulate
from operator import attrgetter
from typing import Any

from langchain_core.messages import BaseMessage

from agent_runtime.sessions.chunk_refs import Ranges, first_numbers, with_number
from agent_runtime.sessions.codec import Codec

_LOOKS = (type, attrgetter("__dict__"), attrgetter("__pydantic_extra__"))
_PLAIN = (str, int, float, bool, type(None), bytes)


class StoredList:
    """The chunks of a list: their numbers, sizes and contents, as bytes until somebody asks for the items again.

    LangGraph hands the whole list over at every step. What is stored already is found by comparing contents (never by
    the identity of objects: those may have been edited), and only what follows is added; a chunk is never changed.
    The items kept here are handed out as copies: whatever an application does to its own stays there.
    """

    __slots__ = ("_codec", "_ends", "_items", "_payloads", "ranges")

    def __init__(self, codec: Codec, ranges: Ranges, payloads: list[bytes], sizes: list[int]) -> None:
        self._codec, self.ranges, self._payloads = codec, ranges, payloads
        self._ends = list(accumulate(sizes))
        self._items: list[list[Any] | None] = [None] * len(payloads)  # by chunk, read when they are needed

    def hand_out(self) -> list[Any] | None:
        """The items again, as copies that a reader may change; None when they are no messages: then read them anew."""
        copies: list[Any] = []
        for index in range(len(self._payloads)):
            for item in self._read(index):
                if not isinstance(item, BaseMessage):
                    return None
                copies.append(self._copy(item))
        return copies

    def extended(self, items: list[Any], number: int) -> tuple[StoredList, bytes | None]:
        """What is stored when `items` are, and the bytes of the new chunk `number` (None: nothing is to be added)."""
        kept = self._same_chunks(items)
        start = self._ends[kept - 1] if kept else 0
        new = StoredList(self._codec, self.ranges, self._payloads[:kept], [])
        new._ends, new._items = self._ends[:kept], self._items[:kept]
        if kept < len(self._ends):
            new.ranges = first_numbers(self.ranges, kept)
        if start == len(items):
            return new, None
        payload = self._codec.encode_list(items[start:])
        new.ranges = with_number(new.ranges, number)
        new._ends.append(len(items))
        new._payloads.append(payload)
        new._items.append(None)
        return new, payload

    def _same_chunks(self, items: list[Any]) -> int:
        """How many chunks at the start hold what `items` have there."""
        start = 0
        for index, end in enumerate(self._ends):
            if end > len(items):
                return index
            known, part = self._items[index], items[start:end]
            if known is None:
                if self._codec.encode_list(part) != self._payloads[index]:
                    return index
                self._read(index)  # from now on compared by its items, which takes a tenth of the time
            elif not _same(part, known, self._codec):
                return index
            start = end
        return len(self._ends)

    def _read(self, index: int) -> list[Any]:
        found = self._items[index]
        if found is None:  # two threads may both do this: each assigns the same
            found = self._items[index] = self._codec.decode_list(self._payloads[index])
        return found

    def _copy(self, message: BaseMessage) -> BaseMessage:
        # Neither model_copy nor deepcopy: those take four and twenty times as long.
        try:
            fields = {name: _fresh(value) for name, value in message.__dict__.items()}
            extra = _fresh(message.__pydantic_extra__)
        except TypeError:  # it holds an object: only its bytes make another one
            again: BaseMessage = self._codec.decode(self._codec.encode(message))
            return again
        new = message.__class__.__new__(message.__class__)
        object.__setattr__(new, "__dict__", fields)
        object.__setattr__(new, "__pydantic_fields_set__", message.__pydantic_fields_set__.copy())
        object.__setattr__(new, "__pydantic_extra__", extra)
        object.__setattr__(new, "__pydantic_private__", message.__pydantic_private__)
        return new


def _same(part: list[Any], known: list[Any], codec: Codec) -> bool:
    try:  # whole lists at once: for a thousand messages a third of what a loop takes
        return all(list(map(look, part)) == list(map(look, known)) for look in _LOOKS)
    except AttributeError:  # no messages
        return codec.encode_list(part) == codec.encode_list(known)


def _fresh(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if value.__class__ is dict:
        return {k: _fresh(v) for k, v in value.items()} if value else {}
    if value.__class__ is list:
        return [_fresh(v) for v in value] if value else []
    raise TypeError
