"""Long-term memory on plain Redis: a LangGraph store without modules."""

from __future__ import annotations

import operator
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Self

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from agent_runtime.checkpoints.backends.backend import SEPARATOR
from agent_runtime.checkpoints.blobs import Blobs
from agent_runtime.checkpoints.codec import Codec
from agent_runtime.checkpoints.seal import Seal
from agent_runtime.checkpoints.shapes import is_item
from agent_runtime.storage.redis_connection import RedisConnection

_KEY_MARKER = "\x1e"
_ESCAPE = "\x1d"
_ESCAPES = {SEPARATOR: f"{_ESCAPE}s", _KEY_MARKER: f"{_ESCAPE}k", _ESCAPE: f"{_ESCAPE}e"}
"""Escapes for our separators in a label, so that no name can reach into another namespace."""
_UNESCAPES = {quoted: plain for plain, quoted in _ESCAPES.items()}
_ESCAPED = re.compile(f"{_ESCAPE}[ske]")
_PAGE = 500
_ABOVE_ALL = b"\xff"
"""No byte of UTF-8: after every name with the same beginning."""
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "$eq": operator.eq, "$ne": operator.ne, "$gt": operator.gt, "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}  # fmt: skip


class RedisStore(BaseStore):
    """Implement LangGraph's `BaseStore` on plain Redis or Valkey commands, for `register_memory`.

    Items are sealed like checkpoints and expired by Redis (`ttl` in minutes, as in LangGraph).
    There is no vector index: a search by `query` returns the items of the namespace and the filter,
    unscored. Methods raise StoreError, CheckpointCorrupt and StateNotSerializable.

    Args:
        connection: the server.
        mac_key: 32 to 64 secret bytes; then items carry a MAC instead of a digest.
    """

    supports_ttl = True

    def __init__(self, connection: RedisConnection, *, mac_key: bytes | None = None) -> None:
        self._operations = _StoreOperations(connection, Blobs(Codec(), Seal(mac_key)))
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, conn_string: str, *, mac_key: bytes | None = None
    ) -> AsyncIterator[Self]:
        """Open a store for the duration of an `async with`; the address is a StoreUrl."""
        connection = RedisConnection(conn_string)
        try:
            yield cls(connection, mac_key=mac_key)
        finally:
            await connection.aclose()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations in order, for a sync caller."""
        results: list[Result] = self._connection.run(self._operations.batch(list(ops)))
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run `batch` for async callers."""
        results: list[Result] = await self._connection.arun(self._operations.batch(list(ops)))
        return results


class _StoreOperations:
    """The operations, each yielding requests. Items are strings.

    One sorted set has their names in order.
    """

    def __init__(self, connection: RedisConnection, blobs: Blobs) -> None:
        self._base = f"{{{connection.prefix}:memory}}"
        self._blobs = blobs
        self._index = f"{self._base}:names"

    def batch(self, ops: list[Op]) -> Any:
        results: list[Any] = []
        for op in ops:
            if isinstance(op, PutOp):
                yield from self._put(op)
                results.append(None)
            elif isinstance(op, GetOp):
                results.append((yield from self._get(op)))
            elif isinstance(op, SearchOp):
                results.append((yield from self._search(op)))
            else:
                results.append((yield from self._namespaces(op)))
        return results

    def _name(self, namespace: tuple[str, ...], key: str) -> str:
        return (
            SEPARATOR.join(map(_escape_label, namespace))
            + SEPARATOR
            + _KEY_MARKER
            + _escape_label(key)
        )

    def _put(self, op: PutOp) -> Any:
        name = self._name(op.namespace, op.key)
        if op.value is None:
            yield "delete", f"{self._base}:{name}"
            yield "zrem", self._index, name
            return
        old = yield from self._read(name)
        now = datetime.now(UTC)
        content = [op.value, now if old is None else old[1], now, op.ttl]
        ttl_ms = None if op.ttl is None else max(1, round(op.ttl * 60_000))
        yield (
            "set",
            f"{self._base}:{name}",
            self._blobs.encode(content, "memory", name),
            None,
            ttl_ms,
        )
        yield "zadd", self._index, {name: 0}

    def _read(self, name: str) -> Any:
        data = yield "get", f"{self._base}:{name}"
        return None if data is None else self._blobs.decode_as(is_item, data, "memory", name)

    def _refresh(self, name: str, ttl: float | None) -> Any:
        if ttl is not None:
            yield "pexpire", f"{self._base}:{name}", max(1, round(ttl * 60_000))

    def _get(self, op: GetOp) -> Any:
        name = self._name(op.namespace, op.key)
        content = yield from self._read(name)
        if content is None:
            return None
        if op.refresh_ttl:
            yield from self._refresh(name, content[3])
        return Item(
            value=content[0],
            key=op.key,
            namespace=op.namespace,
            created_at=content[1],
            updated_at=content[2],
        )

    def _search(self, op: SearchOp) -> Any:
        matching_items: list[SearchItem] = []
        prefix = "".join(_escape_label(part) + SEPARATOR for part in op.namespace_prefix)
        high = b"(" + prefix.encode() + _ABOVE_ALL if prefix else "+"
        low = f"[{prefix}" if prefix else "-"
        while len(matching_items) < op.offset + op.limit:
            names = yield "zrangebylex", self._index, low, high, 0, _PAGE
            if not names:
                break
            texts = [name.decode() for name in names]
            values = yield "mget", [f"{self._base}:{text}" for text in texts]
            for text, data in zip(texts, values, strict=True):
                if data is None:  # it has expired
                    yield "zrem", self._index, text
                    continue
                content = self._blobs.decode_as(is_item, data, "memory", text)
                if _matches_filter(content[0], op.filter):
                    matching_items.append(_search_item(text, content))
                    if op.refresh_ttl:
                        yield from self._refresh(text, content[3])
            low = f"({texts[-1]}"
        return matching_items[op.offset : op.offset + op.limit]

    def _namespaces(self, op: ListNamespacesOp) -> Any:
        names: dict[tuple[str, ...], None] = {}
        low = "-"
        while texts := [n.decode() for n in (yield "zrangebylex", self._index, low, "+", 0, _PAGE)]:
            for text in texts:
                namespace = _parse_namespace(text)
                if all(
                    _matches_condition(namespace, condition)
                    for condition in op.match_conditions or ()
                ):
                    names[namespace[: op.max_depth] if op.max_depth else namespace] = None
            low = f"({texts[-1]}"
        return sorted(names)[op.offset : op.offset + op.limit]


def _parse_namespace(name: str) -> tuple[str, ...]:
    path = name.partition(_KEY_MARKER)[0]
    return tuple(map(_unescape_label, path.removesuffix(SEPARATOR).split(SEPARATOR)))


def _escape_label(label: str) -> str:
    return (
        "".join(_ESCAPES.get(character, character) for character in label)
        if _has_separator(label)
        else label
    )


def _has_separator(label: str) -> bool:
    return _ESCAPE in label or SEPARATOR in label or _KEY_MARKER in label


def _unescape_label(label: str) -> str:
    return (
        _ESCAPED.sub(lambda escape_match: _UNESCAPES[escape_match[0]], label)
        if _ESCAPE in label
        else label
    )


def _search_item(name: str, content: list[Any]) -> SearchItem:
    key = _unescape_label(name.partition(_KEY_MARKER)[2])
    return SearchItem(_parse_namespace(name), key, content[0], content[1], content[2])


def _matches_filter(value: Mapping[str, Any], filter_conditions: Mapping[str, Any] | None) -> bool:
    return all(
        _satisfies(value.get(name), condition)
        for name, condition in (filter_conditions or {}).items()
    )


def _satisfies(value: Any, condition: Any) -> bool:
    if (
        isinstance(condition, Mapping)
        and condition
        and all(str(k).startswith("$") for k in condition)
    ):
        return all(bool(_COMPARE[op](value, operand)) for op, operand in condition.items())
    return bool(value == condition)


def _matches_condition(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = condition.path
    if len(path) > len(namespace):
        return False
    part = (
        namespace[: len(path)]
        if condition.match_type == "prefix"
        else namespace[len(namespace) - len(path) :]
    )
    return all(expected in ("*", actual) for expected, actual in zip(path, part, strict=True))
