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
    CheckpointBackend,
    CheckpointRow,
    Chunk,
    ChunkConflict,
    FencingToken,
    Lease,
    LoadedCheckpoint,
    ParentDeleted,
    Write,
)
from agent_runtime.checkpoints.backends.redis_sessions import RedisSessions
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.redis_connection import RedisConnection
from agent_runtime.storage.store_url import StoreUrl

_VALUE_SEPARATOR = b"\x1e"
_KEY_SUFFIXES = "tricwvqxu"


class RedisCheckpointBackend(RedisSessions, RedisConnection, CheckpointBackend):
    """Every operation is one round trip. See RedisConnection for the arguments."""

    STORE = "sessions"

    def __init__(self, url: str | StoreUrl, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._indexed_threads: OrderedDict[tuple[str, str | None], None] = OrderedDict()

    def _on_data_loss(self) -> None:
        self._indexed_threads.clear()

    def _keys(self, thread: str) -> list[str]:
        base = f"{self.prefix}:{{{quote(thread, safe=':')}}}"
        return [f"{base}:{part}" for part in _KEY_SUFFIXES]

    # -- checkpoints: each yields one request, a script or a command

    def _save(
        self,
        thread: str,
        row: CheckpointRow,
        chunks: list[Chunk],
        fencing_token: FencingToken | None,
        ttl_s: Any,
        run_id: Any,
        shared: Any,
    ) -> Any:
        value = _VALUE_SEPARATOR.join(
            ((row.parent_id or "").encode(), row.chunks.encode(), row.data)
        )
        head = (
            _token_argument(fencing_token),
            "1" if shared else "",
            row.namespace,
            row.checkpoint_id,
        )
        chunk_arguments: list[Any] = [
            part for c in chunks for part in (quote(c.channel, safe=""), c.number, c.data)
        ]
        args = [*head, row.parent_id or "", value, _ms(ttl_s), *chunk_arguments]
        keys = self._keys(thread)
        if (thread, run_id) in self._indexed_threads:
            _raise_for((yield scripts.SAVE, keys, args))
            return
        index_commands: list[tuple[Any, ...]] = [("zadd", f"{self.prefix}:threads", {thread: 0})]
        if run_id is not None:
            index_commands += [
                ("sadd", f"{self.prefix}:run:{run_id}", thread),
                ("sadd", keys[8], run_id),
            ]
        *_, answer = yield [*index_commands, (scripts.SAVE, keys, args)]
        self._indexed_threads[thread, run_id] = None
        while len(self._indexed_threads) > 1000:
            self._indexed_threads.popitem(last=False)
        _raise_for(answer)

    def _save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: list[Write],
        fencing_token: FencingToken | None,
        ttl_s: Any,
    ) -> Any:
        write_arguments: list[Any] = []
        for write in writes:
            write_arguments += [
                write.task_id,
                write.index,
                write.path.encode() + _VALUE_SEPARATOR + write.data,
            ]
        args = [
            _token_argument(fencing_token),
            _ms(ttl_s),
            f"{namespace}{SEPARATOR}{checkpoint_id}",
            *write_arguments,
        ]
        _raise_for((yield scripts.SAVE_WRITES, self._keys(thread), args))

    def _load(
        self, thread: str, namespace: str, checkpoint_id: str | None, cached_id: str | None
    ) -> Any:
        answer = yield (
            scripts.LOAD,
            self._keys(thread),
            [namespace, checkpoint_id or "", cached_id or ""],
        )
        if answer is None:
            return None
        loaded_id, value, write_names, write_values, chunk_keys, chunks = answer
        parent, refs, data = value.split(_VALUE_SEPARATOR, 2)
        row = CheckpointRow(
            namespace, loaded_id.decode(), parent.decode() or None, refs.decode(), data
        )
        loaded = LoadedCheckpoint(
            row,
            [
                _decode_write(name, write_value)
                for name, write_value in zip(write_names, write_values, strict=True)
                if write_value is not None
            ],
        )
        for name, chunk in zip(chunk_keys, chunks, strict=False):
            _, channel, number = name.decode().rsplit(SEPARATOR, 2)
            if chunk is not None:
                loaded.chunks[unquote(channel), int(number)] = chunk
        return loaded

    def _list(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> Any:
        fields = yield "zrevrange", self._keys(thread)[2], 0, -1
        checkpoint_keys = [tuple(field.decode().split(SEPARATOR)) for field in fields]
        matching_keys = [
            (ns, i)
            for ns, i in checkpoint_keys
            if namespace in (None, ns) and (before is None or i < before)
        ]
        return sorted(matching_keys, key=lambda key: key[1], reverse=True)[:limit]

    def _threads(self, after: str, limit: int) -> Any:
        low = f"({after}" if after else "-"
        thread_names = yield "zrangebylex", f"{self.prefix}:threads", low, "+", 0, limit
        return [thread.decode() for thread in thread_names]

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
        chunk_fields = [
            SEPARATOR.join((ns, quote(channel, safe=""), str(number)))
            for (ns, channel), numbers in chunks.items()
            for number in numbers
        ]
        yield scripts.DROP, self._keys(thread), [len(fields), *fields, *chunk_fields]

    def _delete_thread(self, thread: str) -> Any:
        for run_id in (yield "smembers", self._keys(thread)[8]):
            yield "srem", f"{self.prefix}:run:{run_id.decode()}", thread
        self._indexed_threads.clear()
        yield (
            "delete",
            *self._keys(thread)[1:],
        )  # the first has the fencing token, whose count continues
        yield "zrem", f"{self.prefix}:threads", thread

    def _quarantine(self, thread: str, location: str, data: bytes) -> Any:
        yield "hsetnx", self._keys(thread)[6], location, data

    def _quarantined(self, thread: str) -> Any:
        blobs_by_location = yield "hgetall", self._keys(thread)[6]
        return [(location.decode(), data) for location, data in blobs_by_location.items()]

    # -- turns and tools

    def _acquire(self, thread: str, owner: str, ttl_s: float) -> Any:
        answer = yield scripts.ACQUIRE, self._keys(thread), [owner, _ms(ttl_s)]
        return (
            None
            if answer is None
            else Lease(thread, owner, answer[0], clean_shutdown=answer[1] == 1)
        )

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

    def _tool_start(self, thread: str, key: str, fencing_token: FencingToken | None) -> Any:
        answer = yield scripts.TOOL_START, self._keys(thread), [_token_argument(fencing_token), key]
        _raise_for(answer)
        return None if answer[0] == b"new" else answer[1]

    def _tool_put(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> Any:
        action = ["clear", key] if result is None else ["put", key, result]
        _raise_for(
            (yield scripts.TOOL_PUT, self._keys(thread), [_token_argument(fencing_token), *action])
        )

    def _tool_list(self, thread: str) -> Any:
        results_by_key = yield "hgetall", self._keys(thread)[7]
        return {key.decode(): data for key, data in results_by_key.items()}

    def _tool_forget(self, thread: str, fencing_token: FencingToken | None) -> Any:
        _raise_for(
            (yield scripts.TOOL_PUT, self._keys(thread), [_token_argument(fencing_token), "forget"])
        )


def _token_argument(fencing_token: FencingToken | None) -> str:
    return "" if fencing_token is None else str(fencing_token.value)


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else str(max(1, round(seconds * 1000)))


def _decode_write(name: bytes, value: bytes) -> Write:
    _, _, task_id, index = name.decode().split(SEPARATOR)
    path, data = value.split(_VALUE_SEPARATOR, 1)
    return Write(task_id, int(index), path.decode(), data)


def _raise_for(answer: list[bytes]) -> None:
    if answer[0] == b"stale":
        raise StaleWriter(answer[1].decode())
    if answer[0] == b"quarantined":
        raise CheckpointCorrupt(
            answer[1].decode(), "the session is quarantined and takes no writes"
        )
    if answer[0] == b"taken":
        raise ChunkConflict
    if answer[0] == b"gone":
        raise ParentDeleted
