"""Encode state values by an allow-list; other types are refused on writing and on reading."""

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

from agent_runtime.checkpoints.message_rows import CLASS_NUMBERS, message_from_row, message_to_row
from agent_runtime.checkpoints.plain_types import PLAIN_READERS, PLAIN_WRITERS
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
APPLICATION_TYPE = 67
FAILURE = 68
PAIRS = 69
"""The extension types of the format, distinct from those of LangGraph's own serialiser."""

_MESSAGE_LIST_TAG = b"r"
_ANY_LIST_TAG = b"a"
"""How a list is stored: messages as rows, or any values."""


def _builtin_equivalent(value: Any) -> str | list[Any] | dict[Any, Any] | None:
    """Return the text, list or map that equals a value of a subclass, or None.

    `AIMessage.text` is of such a class. None for one with attributes or its own equality, which
    would be lost.
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


def is_message_list(data: bytes) -> bool:
    """Return whether `Codec.encode_list` stored a list of LangChain's own messages only."""
    return data[:1] == _MESSAGE_LIST_TAG


MAX_DEPTH = 64
"""Tuples, messages and the like in each other."""
LEVELS_PER_EXTENSION = 1024
MAX_LEVELS = 8 * LEVELS_PER_EXTENSION
"""Most levels of lists and maps: 16,000 of them, in a few KB, overflowed the stack of the process.
"""
SAFE_DEPTH = 7
"""So many extensions in each other are always within `MAX_LEVELS`."""
_NESTING = threading.local()
_END_MARKER = b"end of a value of agent_runtime"
_PACKED_END_MARKER = ormsgpack.packb(_END_MARKER)
_PAIR_HEADER = b"\x92"  # the head of a list of two


class UnreadableBytes(ValueError):
    """Report bytes that this codec did not write, or that name a type which is not allowed."""


class Codec:
    """Encode and decode state values.

    Plain data, dates, decimals, LangChain's messages and documents and LangGraph's own values are
    built in. Other types (pydantic models, dataclasses, enums of the application) are allowed one
    by one in `allowed_types`, as classes or as `(module, name)`. An unknown type raises
    StateNotSerializable on encoding and UnreadableBytes on decoding.
    """

    def __init__(self, allowed_types: Iterable[type | tuple[str, ...]] = ()) -> None:
        self._allowed: dict[str, type | None] = {}
        for entry in allowed_types:
            if isinstance(entry, type):
                self._allowed[_type_key(entry)] = entry
            elif len(entry) == 2:
                self._allowed[":".join(entry)] = None

    def with_allowed_types(self, additional_types: Iterable[type | tuple[str, ...]]) -> Codec:
        """Return a codec that also allows `additional_types`."""
        extended = Codec(additional_types)
        extended._allowed = {**self._allowed, **extended._allowed}
        return extended

    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`; raises StateNotSerializable before anything is stored."""
        _NESTING.deepest = 0
        try:
            data = self._pack_value(value)
            if _NESTING.deepest > SAFE_DEPTH:
                self.decode(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise StateNotSerializable(self._refusal_reason(value) or str(error)) from error
        return data

    def encode_list(self, items: list[Any]) -> bytes:
        """Return the bytes of a list; messages alone are stored without a wrapper for each."""
        rows = []
        for item in items:
            number = CLASS_NUMBERS.get(item.__class__)
            if number is None:
                return _ANY_LIST_TAG + self.encode(items)
            rows.append(message_to_row(number, item))
        return _MESSAGE_LIST_TAG + self.encode(rows)

    def decode_list(self, data: bytes) -> list[Any]:
        """Return the decoded list; raises UnreadableBytes."""
        decoded = self.decode(data[1:])
        try:
            if is_message_list(data):
                return [
                    message_from_row(number, content, changed_fields)
                    for number, content, changed_fields in decoded
                ]
            if data[:1] == _ANY_LIST_TAG and isinstance(decoded, list):
                return decoded
        except Exception as error:  # pydantic's, for a message that cannot be
            raise UnreadableBytes(f"{type(error).__name__}: {error}") from error
        raise UnreadableBytes("not a list")

    def decode(self, data: bytes) -> Any:
        """Decode a value; raises UnreadableBytes for bytes this codec would not write."""
        try:
            # ormsgpack ignores bytes after the first value: as one of a pair it must be followed by
            # the marker.
            framed = b"".join((_PAIR_HEADER, data, _PACKED_END_MARKER))
            value, end = ormsgpack.unpackb(
                framed, ext_hook=self._extension_hook(len(framed)), option=_READ_OPTIONS
            )
            if end != _END_MARKER:
                raise UnreadableBytes("bytes follow the value")
            return value
        except (
            Exception
        ) as error:  # any error of pydantic, ormsgpack or a constructor for wrong data
            raise UnreadableBytes(
                self._decoding_error(data) or f"{type(error).__name__}: {error}"
            ) from error

    def _refusal_reason(self, value: Any) -> str:
        """Return why `value` was refused: ormsgpack does not chain its callback's exception."""
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

    def _decoding_error(self, data: bytes) -> str:
        """Return the error inside an extension type: ormsgpack does not chain it."""
        reasons: list[str] = []
        with contextlib.suppress(Exception):
            ormsgpack.unpackb(
                data, ext_hook=self._extension_hook(len(data), reasons), option=_READ_OPTIONS
            )
        return reasons[0] if reasons else ""

    def _pack_extension(self, number: int, content: Any) -> ormsgpack.Ext:
        depth = getattr(_NESTING, "depth", 0)
        if depth >= MAX_DEPTH:
            raise StateNotSerializable(f"values nested more than {MAX_DEPTH} deep")
        _NESTING.depth = depth + 1
        _NESTING.deepest = max(_NESTING.deepest, depth + 1)
        try:
            return ormsgpack.Ext(number, self._pack_value(content))
        finally:
            _NESTING.depth = depth

    def _pack_value(self, content: Any) -> bytes:
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
        number = CLASS_NUMBERS.get(cls)
        if number is not None:
            return self._pack_extension(MESSAGE, message_to_row(number, value))
        if cls is tuple:
            return self._pack_extension(TUPLE, list(value))
        if cls is _Pairs:
            return self._pack_extension(PAIRS, value.pairs)
        if (plain_writer := PLAIN_WRITERS.get(cls)) is not None:
            return self._pack_extension(PLAIN, [plain_writer[0], plain_writer[1](value)])
        if (key := _type_key(cls)) in self._allowed:
            return self._pack_extension(APPLICATION_TYPE, [key, _application_content(value)])
        if isinstance(value, BaseMessage):  # an application's subclass: stored as its message class
            base = next(c for c in cls.__mro__ if c in CLASS_NUMBERS)
            number, message_content, changed_fields = message_to_row(CLASS_NUMBERS[base], value)
            return self._pack_extension(
                MESSAGE,
                [
                    number,
                    message_content,
                    {
                        n: v
                        for n, v in changed_fields.items()
                        if n in base.model_fields and n != "type"
                    },
                ],
            )
        if (builtin_value := _builtin_equivalent(value)) is not None:
            return builtin_value
        if isinstance(value, BaseException):
            return self._pack_extension(FAILURE, [cls.__name__, str(value)])
        if isinstance(value, SecretStr):
            raise StateNotSerializable("a secret is not stored: pass it in the runtime context")
        raise StateNotSerializable(
            f"a value of type {cls.__module__}.{cls.__qualname__} is not on the allow-list: "
            "add the class to allowed_types, or keep plain data in the state"
        )

    def _extension_hook(
        self, length: int, reasons: list[str] | None = None
    ) -> Callable[[int, bytes], Any]:
        """Return a reader of extension types for a value of `length` bytes.

        ormsgpack restarts its count of levels in each extension, at most 1,024. The number of outer
        levels is unknown here, but not larger than the number of outer bytes.
        """
        lengths = [length]
        levels = 0

        def hook(number: int, data: bytes) -> Any:
            nonlocal levels
            enclosing_levels = min(LEVELS_PER_EXTENSION, lengths[-1] - len(data))
            levels += enclosing_levels
            lengths.append(len(data))
            try:
                if len(lengths) > MAX_DEPTH or levels > MAX_LEVELS:
                    raise UnreadableBytes("values are nested too deep")
                return self._decode_extension(
                    number, ormsgpack.unpackb(data, ext_hook=hook, option=_READ_OPTIONS)
                )
            except Exception as error:
                if reasons is not None:
                    reasons.append(f"{type(error).__name__}: {error}")
                raise
            finally:
                lengths.pop()
                levels -= enclosing_levels

        return hook

    def _decode_extension(self, number: int, content: Any) -> Any:
        if number == MESSAGE:
            return message_from_row(content[0], content[1], content[2])
        if number == TUPLE:
            return tuple(content)
        if number == PAIRS:
            return {_hashable(key): value for key, value in content}
        if number == PLAIN:
            return PLAIN_READERS[content[0]](content[1])
        if number == FAILURE:
            return f"{content[0]}({content[1]!r})"
        if number == APPLICATION_TYPE:
            return self._decode_application_type(content[0], content[1])
        raise UnreadableBytes(f"unknown extension type {number}")

    def _decode_application_type(self, key: str, content: Any) -> Any:
        if key not in self._allowed:
            raise UnreadableBytes(f"the type {key} is not on the allow-list")
        cls: Any = self._allowed[key]
        if cls is None:
            module, _, name = key.partition(":")
            cls = self._allowed[key] = getattr(importlib.import_module(module), name)
        # Restored without constructing: a validator or a __post_init__ that runs twice may change
        # it.
        if issubclass(cls, BaseModel):
            return cls.model_construct(_fields_set=set(content[1]), **content[0])
        if dataclasses.is_dataclass(cls):
            instance: Any = object.__new__(cast("type", cls))
            for name, value in content.items():
                object.__setattr__(instance, name, value)
            return instance
        return cls(content)


class _Pairs:
    """Hold a dict with keys other than text, which msgpack would store as something else."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[list[Any]]) -> None:
        self.pairs = pairs


def _with_pairs(value: Any) -> Any:
    if type(value) is dict:
        if all(type(key) is str for key in value):
            return {key: _with_pairs(nested) for key, nested in value.items()}
        return _Pairs([[key, nested] for key, nested in value.items()])
    return [_with_pairs(element) for element in value] if type(value) is list else value


def _hashable(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _type_key(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _application_content(value: Any) -> Any:
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
        f"{type(value).__name__} is allowed, but is not a pydantic model, dataclass, enum or path"
    )
