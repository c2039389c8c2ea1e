"""State values as bytes, by an allow-list.

What is not on it is refused when it is written and when it is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import threading
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

import ormsgpack
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, SecretStr

from agent_runtime.checkpoints.message_rows import NUMBERS, message_of, row_of
from agent_runtime.checkpoints.plain_types import READ, WRITE
from agent_runtime.errors import StateNotSerializable

ENCODE_OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_BIG_INT
)
_READ_OPTIONS = ormsgpack.OPT_NON_STR_KEYS

MESSAGE = 64
TUPLE = 65
PLAIN = 66
OWN_TYPE = 67
FAILURE = 68
PAIRS = 69
"""The extension types of the format.

Their numbers are part of it, and none of LangGraph's own serialiser's.
"""

_ROWS = b"r"
_ANY = b"a"
"""How a list is stored: messages as rows, or any values."""


def _plain_form(value: Any) -> str | list[Any] | dict[Any, Any] | None:
    """Return the text, list or map that a value of a subclass is equal to.

    None where more would be lost.

    `AIMessage.text` is of such a class. One with attributes, or with an equality of its own, is
    refused.
    """
    bases: tuple[Any, ...] = (str, list, dict)
    for base in bases:
        if (
            not isinstance(value, base)
            or isinstance(value, Enum)
            or type(value).__eq__ is not base.__eq__
        ):
            continue
        return None if getattr(value, "__dict__", None) else base(value)
    return None


def is_of_messages(data: bytes) -> bool:
    """Whether `Codec.encode_list` stored a list of LangChain's own messages and nothing else."""
    return data[:1] == _ROWS


MAX_NESTED = 64
"""Tuples, messages and the like in each other."""
LEVELS_OF_ONE = 1024
MAX_LEVELS = 8 * LEVELS_OF_ONE
"""Levels of lists and maps.

16,000 of them, in a few KB of a forger's, took the whole stack and ended the process.
"""
SAFE_NESTED = 7
"""So many extensions in each other are always within `MAX_LEVELS`."""
_NESTING = threading.local()
_MARK = b"end of a value of agent_runtime"
_END = ormsgpack.packb(_MARK)
_PAIR = b"\x92"  # the head of a list of two


class UnreadableBytes(ValueError):
    """Bytes that this codec did not write, or that name a type nobody allowed."""


class Codec:
    """Encodes and decodes state values.

    Plain data, dates, decimals, LangChain's messages and documents and LangGraph's own values are
    known. Other types (pydantic models, dataclasses, enums of the application) are allowed one by
    one in `allowed_types`, as classes or as `(module, name)`. An unknown type raises
    StateNotSerializable on the way in and UnreadableBytes on the way out.
    """

    def __init__(self, allowed_types: Iterable[type | tuple[str, ...]] = ()) -> None:
        self._allowed: dict[str, type | None] = {}
        for entry in allowed_types:
            if isinstance(entry, type):
                self._allowed[_key(entry)] = entry
            elif len(entry) == 2:
                self._allowed[":".join(entry)] = None

    def allowing(self, more: Iterable[type | tuple[str, ...]]) -> Codec:
        """A codec that also knows `more` types."""
        new = Codec(more)
        new._allowed = {**self._allowed, **new._allowed}
        return new

    def encode(self, value: Any) -> bytes:
        """The bytes of `value`; raises StateNotSerializable and stores nothing half."""
        _NESTING.deepest = 0
        try:
            data = self._packed(value)
            if _NESTING.deepest > SAFE_NESTED:
                self.decode(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateNotSerializable(self._refusal(value) or str(error)) from error
        return data

    def encode_list(self, items: list[Any]) -> bytes:
        """The bytes of a list; one of messages alone is stored without a wrapper round each."""
        rows = []
        for item in items:
            number = NUMBERS.get(item.__class__)
            if number is None:
                return _ANY + self.encode(items)
            rows.append(row_of(number, item))
        return _ROWS + self.encode(rows)

    def decode_list(self, data: bytes) -> list[Any]:
        """The list again; raises UnreadableBytes."""
        found = self.decode(data[1:])
        try:
            if is_of_messages(data):
                return [message_of(number, content, kept) for number, content, kept in found]
            if data[:1] == _ANY and isinstance(found, list):
                return found
        except Exception as error:  # pydantic's, for a message that cannot be
            raise UnreadableBytes(f"{type(error).__name__}: {error}") from error
        raise UnreadableBytes("not a list")

    def decode(self, data: bytes) -> Any:
        """Decode a value; raises UnreadableBytes for bytes this codec would not write."""
        try:
            # ormsgpack ignores what follows the first value: as one of two it has to be followed by
            # the mark.
            framed = b"".join((_PAIR, data, _END))
            value, end = ormsgpack.unpackb(
                framed, ext_hook=self._hook_for(len(framed)), option=_READ_OPTIONS
            )
            if end != _MARK:
                raise UnreadableBytes("there are bytes behind the value")
            return value
        except (
            Exception
        ) as error:  # pydantic's, ormsgpack's and whatever a constructor raises for wrong data
            raise UnreadableBytes(
                self._reason(data) or f"{type(error).__name__}: {error}"
            ) from error

    def _refusal(self, value: Any) -> str:
        """Why `value` was refused: ormsgpack does not pass on what its callback raised."""
        refusals: list[str] = []

        def default(inner: Any) -> Any:
            try:
                return self._default(inner)
            except StateNotSerializable as error:
                refusals.append(str(error))
                raise

        with contextlib.suppress(Exception):
            ormsgpack.packb(value, default=default, option=ENCODE_OPTIONS)
        return refusals[0] if refusals else ""

    def _reason(self, data: bytes) -> str:
        """What went wrong inside an extension type: ormsgpack does not pass it on."""
        reasons: list[str] = []
        with contextlib.suppress(Exception):
            ormsgpack.unpackb(
                data, ext_hook=self._hook_for(len(data), reasons), option=_READ_OPTIONS
            )
        return reasons[0] if reasons else ""

    def _pack(self, number: int, content: Any) -> ormsgpack.Ext:
        depth = getattr(_NESTING, "depth", 0)
        if depth >= MAX_NESTED:
            raise StateNotSerializable(f"more than {MAX_NESTED} values inside each other")
        _NESTING.depth = depth + 1
        _NESTING.deepest = max(_NESTING.deepest, depth + 1)
        try:
            return ormsgpack.Ext(number, self._packed(content))
        finally:
            _NESTING.depth = depth

    def _packed(self, content: Any) -> bytes:
        try:
            return ormsgpack.packb(content, default=self._default, option=ENCODE_OPTIONS)
        except TypeError as error:
            if "key must be str" not in str(error):
                raise
            return ormsgpack.packb(
                _with_pairs(content), default=self._default, option=ENCODE_OPTIONS
            )

    def _default(self, value: Any) -> Any:
        cls = type(value)
        number = NUMBERS.get(cls)
        if number is not None:
            return self._pack(MESSAGE, row_of(number, value))
        if cls is tuple:
            return self._pack(TUPLE, list(value))
        if cls is _Pairs:
            return self._pack(PAIRS, value.pairs)
        if (found := WRITE.get(cls)) is not None:
            return self._pack(PLAIN, [found[0], found[1](value)])
        if (key := _key(cls)) in self._allowed:
            return self._pack(OWN_TYPE, [key, _own_content(value)])
        if isinstance(
            value, BaseMessage
        ):  # a subclass of the application's: kept as the message that it is
            base = next(c for c in cls.__mro__ if c in NUMBERS)
            number, said, kept = row_of(NUMBERS[base], value)
            return self._pack(
                MESSAGE,
                [
                    number,
                    said,
                    {n: v for n, v in kept.items() if n in base.model_fields and n != "type"},
                ],
            )
        if (plain := _plain_form(value)) is not None:
            return plain
        if isinstance(value, BaseException):
            return self._pack(FAILURE, [cls.__name__, str(value)])
        if isinstance(value, SecretStr):
            raise StateNotSerializable("a secret is not stored: pass it in the runtime context")
        raise StateNotSerializable(
            f"a value of type {cls.__module__}.{cls.__qualname__} is not on the allow-list: "
            "add the class to allowed_types, or keep plain data in the state"
        )

    def _hook_for(
        self, length: int, reasons: list[str] | None = None
    ) -> Callable[[int, bytes], Any]:
        """Return a reader of extension types for the value in so many bytes.

        ormsgpack counts the levels of lists and maps anew in each extension, 1,024 of them. How
        many there are around one is not known here, but no more than the bytes around it.
        """
        lengths = [length]
        levels = 0

        def hook(number: int, data: bytes) -> Any:
            nonlocal levels
            around = min(LEVELS_OF_ONE, lengths[-1] - len(data))
            levels += around
            lengths.append(len(data))
            try:
                if len(lengths) > MAX_NESTED or levels > MAX_LEVELS:
                    raise UnreadableBytes("values are nested too deep")
                return self._value_of(
                    number, ormsgpack.unpackb(data, ext_hook=hook, option=_READ_OPTIONS)
                )
            except Exception as error:
                if reasons is not None:
                    reasons.append(f"{type(error).__name__}: {error}")
                raise
            finally:
                lengths.pop()
                levels -= around

        return hook

    def _value_of(self, number: int, content: Any) -> Any:
        if number == MESSAGE:
            return message_of(content[0], content[1], content[2])
        if number == TUPLE:
            return tuple(content)
        if number == PAIRS:
            return {_hashable(key): value for key, value in content}
        if number == PLAIN:
            return READ[content[0]](content[1])
        if number == FAILURE:
            return f"{content[0]}({content[1]!r})"
        if number == OWN_TYPE:
            return self._own(content[0], content[1])
        raise UnreadableBytes(f"unknown extension type {number}")

    def _own(self, key: str, content: Any) -> Any:
        if key not in self._allowed:
            raise UnreadableBytes(f"the type {key} is not on the allow-list")
        cls: Any = self._allowed[key]
        if cls is None:
            module, _, name = key.partition(":")
            cls = self._allowed[key] = getattr(importlib.import_module(module), name)
        # As it was, not made anew: a validator or a __post_init__ that runs twice may change it.
        if issubclass(cls, BaseModel):
            return cls.model_construct(_fields_set=set(content[1]), **content[0])
        if dataclasses.is_dataclass(cls):
            made: Any = object.__new__(cast("type", cls))
            for name, value in content.items():
                object.__setattr__(made, name, value)
            return made
        return cls(content)


class _Pairs:
    """A dict whose keys are not all text: msgpack would store them as something else."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[list[Any]]) -> None:
        self.pairs = pairs


def _with_pairs(value: Any) -> Any:
    if type(value) is dict:
        if all(type(key) is str for key in value):
            return {key: _with_pairs(each) for key, each in value.items()}
        return _Pairs([[key, each] for key, each in value.items()])
    return [_with_pairs(each) for each in value] if type(value) is list else value


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _key(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _own_content(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return [fields, sorted(value.__pydantic_fields_set__)]
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, PurePath):
        return str(value)
    raise StateNotSerializable(
        f"{type(value).__name__} is allowed, but is no pydantic model, dataclass, enum or path"
    )
