"""Store a list channel (mostly the messages) by appending chunks."""

from __future__ import annotations

from itertools import accumulate, chain
from operator import attrgetter
from typing import Any

import ormsgpack
from langchain_core.messages import BaseMessage

from agent_runtime.checkpoints.chunk_refs import Ranges, first_numbers, with_number
from agent_runtime.checkpoints.codec import ENCODE_OPTIONS, Codec, is_message_list

_fields_of = attrgetter("__dict__")
_extra_of = attrgetter("__pydantic_extra__")
_IMMUTABLE_TYPES = (str, int, float, bool, type(None), bytes)


class StoredList:
    """Track the stored chunks of a list.

    Their numbers, sizes and bytes, and copies of their messages.

    LangGraph passes the whole list at every step. The stored part is recognised by comparing
    contents (never by object identity: objects may have been edited), and only the rest is
    appended; a chunk never changes. Readers receive copies, so that an application's edits do not
    affect the cache.
    """

    __slots__ = ("_cached_messages", "_codec", "_end_offsets", "_payloads", "ranges")

    def __init__(
        self, codec: Codec, ranges: Ranges, payloads: list[bytes], sizes: list[int]
    ) -> None:
        self._codec = codec
        self.ranges = ranges
        self._payloads = payloads
        self._end_offsets = list(accumulate(sizes))
        self._cached_messages: _MessageColumns | None = (
            None  # of the first chunks, as far as they have been needed
        )

    def copy_items(self) -> list[Any]:
        """Return copies of the items, which a reader may change."""
        messages = self._messages()
        if messages is not None:
            return messages.copy_all(self._codec)
        return list(chain.from_iterable(map(self._codec.decode_list, self._payloads)))

    def with_items(self, items: list[Any], number: int) -> tuple[StoredList, bytes | None]:
        """Return the list with `items` stored, and the bytes of its new chunk `number`.

        The bytes are None when nothing has to be added.
        """
        unchanged_count = self._count_unchanged_chunks(items)
        new = StoredList(self._codec, self.ranges, self._payloads[:unchanged_count], [])
        new._end_offsets = self._end_offsets[:unchanged_count]
        if unchanged_count == len(self._end_offsets):
            new._cached_messages = self._cached_messages
        else:
            new.ranges = first_numbers(self.ranges, unchanged_count)
        start = new._end_offsets[-1] if unchanged_count else 0
        if start == len(items):
            return new, None
        payload = self._codec.encode_list(items[start:])
        new.ranges = with_number(new.ranges, number)
        new._end_offsets.append(len(items))
        new._payloads.append(payload)
        return new, payload

    def _count_unchanged_chunks(self, items: list[Any]) -> int:
        """Return how many leading chunks match `items`."""
        if not self._end_offsets:
            return 0
        messages = self._messages()
        if messages is not None and messages.is_prefix_of(items):
            return len(self._end_offsets)
        start = 0
        for index, end in enumerate(self._end_offsets):
            if (
                end > len(items)
                or self._codec.encode_list(items[start:end]) != self._payloads[index]
            ):
                return index
            start = end
        return len(self._end_offsets)

    def _messages(self) -> _MessageColumns | None:
        """Return copies of all messages, decoded on demand; None for other items."""
        messages = self._cached_messages
        unread = self._payloads[messages.chunks if messages else 0 :]
        if unread:  # two threads may both do this: each assigns the same
            if not all(map(is_message_list, unread)):
                return None
            unread_messages = list(chain.from_iterable(map(self._codec.decode_list, unread)))
            messages = self._cached_messages = _MessageColumns(
                unread_messages, len(self._payloads), messages
            )
        return messages


class _MessageColumns:
    """Hold private messages in columns: comparing a thousand takes a tenth of a loop's time."""

    __slots__ = ("_bytes", "_classes", "_extras", "_fields", "_fields_set", "chunks")

    def __init__(
        self, new_messages: list[BaseMessage], chunk_count: int, previous: _MessageColumns | None
    ) -> None:
        self.chunks = chunk_count
        self._classes: list[type[BaseMessage]] = [
            *(previous._classes if previous else ()),
            *map(type, new_messages),
        ]
        self._fields: list[dict[str, Any]] = [
            *(previous._fields if previous else ()),
            *map(_fields_of, new_messages),
        ]
        self._extras: list[Any] = [
            *(previous._extras if previous else ()),
            *map(_extra_of, new_messages),
        ]
        self._bytes: bytes | None = (
            _pack_fields(new_messages) if previous is None or previous._bytes is not None else None
        )
        if previous is not None and previous._bytes is not None and self._bytes is not None:
            self._bytes = previous._bytes + self._bytes
        self._fields_set: list[set[str]] = [
            *(previous._fields_set if previous else ()),
            *(m.__pydantic_fields_set__ for m in new_messages),
        ]

    def is_prefix_of(self, items: list[Any]) -> bool:
        """Return whether `items` start with these messages."""
        count = len(self._classes)
        if len(items) < count:
            return False
        part = items if len(items) == count else items[:count]
        # Their bytes, not the objects: 1, 1.0 and True are equal. Packing is faster than comparing,
        # too.
        return (
            self._bytes is not None
            and list(map(type, part)) == self._classes
            and _pack_fields(part) == self._bytes
            and list(map(_extra_of, part)) == self._extras
        )

    def copy_all(self, codec: Codec) -> list[BaseMessage]:
        """Return new messages with these contents."""
        try:
            return [self._copy_message(index) for index in range(len(self._classes))]
        except TypeError:  # one holds an object: only its bytes make another one
            return codec.decode_list(
                codec.encode_list([self._uncopied_message(i) for i in range(len(self._classes))])
            )

    def _copy_message(self, index: int) -> BaseMessage:
        # Neither model_copy nor deepcopy: those take four and twenty times as long.
        fields = {name: _copy_plain(value) for name, value in self._fields[index].items()}
        return self._build_message(index, fields, _copy_plain(self._extras[index]))

    def _uncopied_message(self, index: int) -> BaseMessage:
        return self._build_message(index, self._fields[index], self._extras[index])

    def _build_message(self, index: int, fields: dict[str, Any], extra: Any) -> BaseMessage:
        cls = self._classes[index]
        new = cls.__new__(cls)
        object.__setattr__(new, "__dict__", fields)
        object.__setattr__(new, "__pydantic_fields_set__", self._fields_set[index].copy())
        object.__setattr__(new, "__pydantic_extra__", extra)
        object.__setattr__(new, "__pydantic_private__", None)
        return new


def _pack_fields(messages: list[Any]) -> bytes | None:
    """Return the messages' fields as bytes that can be concatenated.

    None for values that only the codec can encode.
    """
    try:
        data = ormsgpack.packb(list(map(_fields_of, messages)), option=ENCODE_OPTIONS)
    except (TypeError, ValueError):
        return None
    count = len(messages)
    return data[1 if count < 16 else 3 if count < 1 << 16 else 5 :]  # without msgpack's own count


def _copy_plain(value: Any) -> Any:
    if isinstance(value, _IMMUTABLE_TYPES):
        return value
    if value.__class__ is dict:
        return {k: _copy_plain(v) for k, v in value.items()} if value else {}
    if value.__class__ is list:
        return [_copy_plain(v) for v in value] if value else []
    raise TypeError
