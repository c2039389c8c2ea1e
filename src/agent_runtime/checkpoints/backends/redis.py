"""Records on Redis or Valkey, with plain commands and scripts.

No modules, and one slot for each thread.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from urllib.parse import quote, unquote

from agent_runtime.checkpoints.backends import redis_scripts as scripts
from agent_runtime.checkpoints.backends.backend import (
    SEPARATOR,
    Chunk,
    ChunkTaken,
    Guard,
    Lease,
    Loaded,
    ParentGone,
    Records,
    Row,
    Write,
)
from agent_runtime.checkpoints.backends.redis_sessions import RedisSessions
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.redis_connection import RedisConnection
from agent_runtime.storage.store_url import StoreUrl

_PART = b"\x1e"
_PARTS_OF_A_KEY = "tricwvqxu"


class RedisRecords(RedisSessions, RedisConnection, Records):
    """Every operation is one round trip. See RedisConnection for the arguments."""

    STORE = "sessions"

    def __init__(self, url: str | StoreUrl, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._noted: OrderedDict[tuple[str, str | None], None] = OrderedDict()

    def _lost(self) -> None:
        self._noted.clear()

    def _keys(self, thread: str) -> list[str]:
        base = f"{self.prefix}:{{{quote(thread, safe=':')}}}"
        return [f"{base}:{part}" for part in _PARTS_OF_A_KEY]

    # -- checkpoints: each yields one request, a script or a command
    # ---------------------------------------

    def _save(
        self,
        thread: str,
        row: Row,
        chunks: list[Chunk],
        guard: Guard | None,
        ttl_s: Any,
        run_id: Any,
        shared: Any,
    ) -> Any:
        value = _PART.join(((row.parent_id or "").encode(), row.chunks.encode(), row.data))
        head = (_token(guard), "1" if shared else "", row.namespace, row.checkpoint_id)
        pieces: list[Any] = [
            part for c in chunks for part in (quote(c.channel, safe=""), c.number, c.data)
        ]
        args = [*head, row.parent_id or "", value, _ms(ttl_s), *pieces]
        keys = self._keys(thread)
        if (thread, run_id) in self._noted:
            _raise_for((yield scripts.SAVE, keys, args))
            return
        notes: list[tuple[Any, ...]] = [("zadd", f"{self.prefix}:threads", {thread: 0})]
        if run_id is not None:
            notes += [("sadd", f"{self.prefix}:run:{run_id}", thread), ("sadd", keys[8], run_id)]
        *_, answer = yield [*notes, (scripts.SAVE, keys, args)]
        self._noted[thread, run_id] = None
        while len(self._noted) > 1000:
            self._noted.popitem(last=False)
        _raise_for(answer)

    def _save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: list[Write],
        guard: Guard | None,
        ttl_s: Any,
    ) -> Any:
        pieces: list[Any] = []
        for write in writes:
            pieces += [write.task_id, write.index, write.path.encode() + _PART + write.data]
        args = [_token(guard), _ms(ttl_s), f"{namespace}{SEPARATOR}{checkpoint_id}", *pieces]
        _raise_for((yield scripts.SAVE_WRITES, self._keys(thread), args))

    def _load(
        self, thread: str, namespace: str, checkpoint_id: str | None, known: str | None
    ) -> Any:
        answer = yield (
            scripts.LOAD,
            self._keys(thread),
            [namespace, checkpoint_id or "", known or ""],
        )
        if answer is None:
            return None
        found, value, names, values, wanted, chunks = answer
        parent, refs, data = value.split(_PART, 2)
        row = Row(namespace, found.decode(), parent.decode() or None, refs.decode(), data)
        loaded = Loaded(
            row,
            [
                _write(name, each)
                for name, each in zip(names, values, strict=True)
                if each is not None
            ],
        )
        for name, chunk in zip(wanted, chunks, strict=False):
            _, channel, number = name.decode().rsplit(SEPARATOR, 2)
            if chunk is not None:
                loaded.chunks[unquote(channel), int(number)] = chunk
        return loaded

    def _list(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> Any:
        fields = yield "zrevrange", self._keys(thread)[2], 0, -1
        every = [tuple(field.decode().split(SEPARATOR)) for field in fields]
        kept = [
            (ns, i) for ns, i in every if namespace in (None, ns) and (before is None or i < before)
        ]
        return sorted(kept, key=lambda key: key[1], reverse=True)[:limit]

    def _threads(self, after: str, limit: int) -> Any:
        low = f"({after}" if after else "-"
        found = yield "zrangebylex", f"{self.prefix}:threads", low, "+", 0, limit
        return [thread.decode() for thread in found]

    def _threads_of_run(self, run_id: str) -> Any:
        return [t.decode() for t in (yield "smembers", f"{self.prefix}:run:{run_id}")]

    def _next_number(self, thread: str, namespace: str, channel: str) -> Any:
        name = SEPARATOR.join(("last", namespace, quote(channel, safe="")))
        last = yield "hget", self._keys(thread)[0], name
        return 0 if last is None else int(last) + 1

    def _drop(
        self, thread: str, rows: list[tuple[str, str]], chunks: dict[tuple[str, str], set[int]]
    ) -> Any:
        fields = [SEPARATOR.join(key) for key in rows]
        pieces = [
            SEPARATOR.join((ns, quote(channel, safe=""), str(number)))
            for (ns, channel), numbers in chunks.items()
            for number in numbers
        ]
        yield scripts.DROP, self._keys(thread), [len(fields), *fields, *pieces]

    def _delete_thread(self, thread: str) -> Any:
        for run_id in (yield "smembers", self._keys(thread)[8]):
            yield "srem", f"{self.prefix}:run:{run_id.decode()}", thread
        self._noted.clear()
        yield (
            "delete",
            *self._keys(thread)[1:],
        )  # the first has the fencing token: its count goes on
        yield "zrem", f"{self.prefix}:threads", thread

    def _quarantine(self, thread: str, place: str, data: bytes) -> Any:
        yield "hsetnx", self._keys(thread)[6], place, data

    def _quarantined(self, thread: str) -> Any:
        found = yield "hgetall", self._keys(thread)[6]
        return [(place.decode(), data) for place, data in found.items()]

    # -- turns and tools
    # -----------------------------------------------------------------------------------

    def _acquire(self, thread: str, owner: str, ttl_s: float) -> Any:
        answer = yield scripts.ACQUIRE, self._keys(thread), [owner, _ms(ttl_s)]
        return None if answer is None else Lease(thread, owner, answer[0], clean=answer[1] == 1)

    def _renew(self, lease: Lease, ttl_s: float) -> Any:
        done = yield (
            scripts.RENEW,
            self._keys(lease.thread),
            [lease.owner, lease.token, _ms(ttl_s), 0],
        )
        return done == 1

    def _release(self, lease: Lease, clean: bool) -> Any:
        yield scripts.RENEW, self._keys(lease.thread), [lease.owner, lease.token, 0, int(clean)]

    def _seize(self, thread: str) -> Any:
        yield "hincrby", self._keys(thread)[0], "token", 1
        yield "hset", self._keys(thread)[0], "until", "0"

    def _tool_start(self, thread: str, key: str, guard: Guard | None) -> Any:
        answer = yield scripts.TOOL_START, self._keys(thread), [_token(guard), key]
        _raise_for(answer)
        return None if answer[0] == b"new" else answer[1]

    def _tool_put(self, thread: str, key: str, result: bytes | None, guard: Guard | None) -> Any:
        how = ["clear", key] if result is None else ["put", key, result]
        _raise_for((yield scripts.TOOL_PUT, self._keys(thread), [_token(guard), *how]))

    def _tool_list(self, thread: str) -> Any:
        found = yield "hgetall", self._keys(thread)[7]
        return {key.decode(): data for key, data in found.items()}

    def _tool_forget(self, thread: str, guard: Guard | None) -> Any:
        _raise_for((yield scripts.TOOL_PUT, self._keys(thread), [_token(guard), "forget"]))


def _token(guard: Guard | None) -> str:
    return "" if guard is None else str(guard.token)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else str(max(1, round(seconds * 1000)))


def _write(name: bytes, value: bytes) -> Write:
    _, _, task_id, index = name.decode().split(SEPARATOR)
    path, data = value.split(_PART, 1)
    return Write(task_id, int(index), path.decode(), data)


def _raise_for(answer: list[bytes]) -> None:
    if answer[0] == b"stale":
        raise StaleWriter(answer[1].decode())
    if answer[0] == b"quarantined":
        raise CheckpointCorrupt(
            answer[1].decode(), "the session is quarantined and takes no writes"
        )
    if answer[0] == b"taken":
        raise ChunkTaken
    if answer[0] == b"gone":
        raise ParentGone
