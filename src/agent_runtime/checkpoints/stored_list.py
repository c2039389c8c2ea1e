"""A list channel (mostly the messages) that grows by appending.

What is stored of it, and what has to be added.
"""

from __future__ import annotations

from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

import ormsgpack
from langchain_core.messages import BaseMessage

from agent_runtime.checkpoints.chunk_refs import Ranges, first_numbers, with_number
from agent_runtime.checkpoints.codec import ENCODE_OPTIONS, Codec, is_of_messages

_fields_of = attrgetter("__dict__")
_extra_of = attrgetter("__pydantic_extra__")
_PLAIN = (str, int, float, bool, type(None), bytes)


class StoredList:
    """The chunks of a list: their numbers, sizes and bytes, and copies of the messages in them.

    LangGraph hands the whole list over at every step. What is stored already is found by comparing
    contents (never by the identity of objects: those may have been edited), and only what follows
    is added; a chunk is never changed. The copies kept here are handed out as copies: whatever an
    application does to its own stays there.
    """

    __slots__ = ("_codec", "_ends", "_known", "_payloads", "ranges")

    def __init__(
        self, codec: Codec, ranges: Ranges, payloads: list[bytes], sizes: list[int]
    ) -> None:
        self._codec = codec
        self.ranges = ranges
        self._payloads = payloads
        self._ends = list(accumulate(sizes))
        self._known: _Messages | None = None  # of the first chunks, as far as they have been needed

    def hand_out(self) -> list[Any]:
        """The items again, as copies that a reader may change."""
        known = self._messages()
        if known is not None:
            return known.copies(self._codec)
        return list(chain.from_iterable(map(self._codec.decode_list, self._payloads)))

    def extended(self, items: list[Any], number: int) -> tuple[StoredList, bytes | None]:
        """What is stored when `items` are, and the bytes of the new chunk `number` (None.

        Nothing is to be added).
        """
        kept = self._same_chunks(items)
        new = StoredList(self._codec, self.ranges, self._payloads[:kept], [])
        new._ends = self._ends[:kept]
        if kept == len(self._ends):
            new._known = self._known
        else:
            new.ranges = first_numbers(self.ranges, kept)
        start = new._ends[-1] if kept else 0
        if start == len(items):
            return new, None
        payload = self._codec.encode_list(items[start:])
        new.ranges = with_number(new.ranges, number)
        new._ends.append(len(items))
        new._payloads.append(payload)
        return new, payload

    def _same_chunks(self, items: list[Any]) -> int:
        """How many chunks at the start hold what `items` have there."""
        if not self._ends:
            return 0
        known = self._messages()
        if known is not None and known.start(items):
            return len(self._ends)
        start = 0
        for index, end in enumerate(self._ends):
            if (
                end > len(items)
                or self._codec.encode_list(items[start:end]) != self._payloads[index]
            ):
                return index
            start = end
        return len(self._ends)

    def _messages(self) -> _Messages | None:
        """Copies of all messages, those not needed before read from their bytes.

        None when there are other items.
        """
        known = self._known
        unread = self._payloads[known.chunks if known else 0 :]
        if unread:  # two threads may both do this: each assigns the same
            if not all(map(is_of_messages, unread)):
                return None
            added = list(chain.from_iterable(map(self._codec.decode_list, unread)))
            known = self._known = _Messages(added, len(self._payloads), known)
        return known


class _Messages:
    """Messages that nobody else has, laid out so that a thousand are compared at once.

    A tenth of what a loop takes.
    """

    __slots__ = ("_bytes", "_classes", "_extras", "_fields", "_set", "chunks")

    def __init__(self, own: list[BaseMessage], chunks: int, before: _Messages | None) -> None:
        self.chunks = chunks
        self._classes: list[type[BaseMessage]] = [
            *(before._classes if before else ()),
            *map(type, own),
        ]
        self._fields: list[dict[str, Any]] = [
            *(before._fields if before else ()),
            *map(_fields_of, own),
        ]
        self._extras: list[Any] = [*(before._extras if before else ()), *map(_extra_of, own)]
        self._bytes: bytes | None = (
            _packed(own) if before is None or before._bytes is not None else None
        )
        if before is not None and before._bytes is not None and self._bytes is not None:
            self._bytes = before._bytes + self._bytes
        self._set: list[set[str]] = [
            *(before._set if before else ()),
            *(m.__pydantic_fields_set__ for m in own),
        ]

    def start(self, items: list[Any]) -> bool:
        """Whether `items` start with these."""
        count = len(self._classes)
        if len(items) < count:
            return False
        part = items if len(items) == count else items[:count]
        # Their bytes, not the objects: 1, 1.0 and True are equal. Packing is faster than comparing,
        # too.
        return (
            self._bytes is not None
            and list(map(type, part)) == self._classes
            and _packed(part) == self._bytes
            and list(map(_extra_of, part)) == self._extras
        )

    def copies(self, codec: Codec) -> list[BaseMessage]:
        """New messages with these contents."""
        try:
            return [self._copy(index) for index in range(len(self._classes))]
        except TypeError:  # one holds an object: only its bytes make another one
            return codec.decode_list(
                codec.encode_list([self._shown(i) for i in range(len(self._classes))])
            )

    def _copy(self, index: int) -> BaseMessage:
        # Neither model_copy nor deepcopy: those take four and twenty times as long.
        fields = {name: _fresh(value) for name, value in self._fields[index].items()}
        return self._made(index, fields, _fresh(self._extras[index]))

    def _shown(self, index: int) -> BaseMessage:
        return self._made(index, self._fields[index], self._extras[index])

    def _made(self, index: int, fields: dict[str, Any], extra: Any) -> BaseMessage:
        cls = self._classes[index]
        new = cls.__new__(cls)
        object.__setattr__(new, "__dict__", fields)
        object.__setattr__(new, "__pydantic_fields_set__", self._set[index].copy())
        object.__setattr__(new, "__pydantic_extra__", extra)
        object.__setattr__(new, "__pydantic_private__", None)
        return new


def _packed(messages: list[Any]) -> bytes | None:
    """The messages' fields as bytes that can be joined.

    None when there are values that only the codec can write.
    """
    try:
        data = ormsgpack.packb(list(map(_fields_of, messages)), option=ENCODE_OPTIONS)
    except (TypeError, ValueError):
        return None
    count = len(messages)
    return data[1 if count < 16 else 3 if count < 1 << 16 else 5 :]  # without msgpack's own count


def _fresh(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if value.__class__ is dict:
        return {k: _fresh(v) for k, v in value.items()} if value else {}
    if value.__class__ is list:
        return [_fresh(v) for v in value] if value else []
    raise TypeError
