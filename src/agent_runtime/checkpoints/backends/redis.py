"""Store checkpoints on Redis or Valkey, with plain commands and scripts; no modules.

The keys of a thread share a slot, and those of a tenant's session records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from typing_extensions import override

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
from agent_runtime.checkpoints.backends.redis_session_table import RedisSessionTable
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.operations import Steps, steps_operation
from agent_runtime.storage.redis_connection import RedisConnection
from agent_runtime.storage.store_url import StoreUrl

_VALUE_SEPARATOR = b"\x1e"
_KEY_SUFFIXES = "tricwvqxu"


class RedisCheckpointBackend(RedisConnection, CheckpointBackend):
    """Every operation is one round trip. Takes RedisConnection's arguments."""

    STORE = "sessions"

    def __init__(self, url: str | StoreUrl, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._indexed_threads: OrderedDict[tuple[str, str | None], None] = OrderedDict()

        self._sessions = RedisSessionTable(self)

    @property
    @override
    def sessions(self) -> RedisSessionTable:
        return self._sessions

    def _initialize_store(self) -> Steps[None]:
        yield from self._sessions.start_clock()

    def _on_data_loss(self) -> None:
        self._indexed_threads.clear()

    def _keys(self, thread: str) -> list[str]:
        base = f"{self.prefix}:{{{quote(thread, safe=':')}}}"
        return [f"{base}:{part}" for part in _KEY_SUFFIXES]

    # -- checkpoints: each yields one request, a script or a command

    @override
    @steps_operation
    def save(
        self,
        thread: str,
        row: CheckpointRow,
        chunks: Sequence[Chunk],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
        run_id: str | None,
        shared: bool,
    ) -> Steps[None]:
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

    @override
    @steps_operation
    def save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: Sequence[Write],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
    ) -> Steps[None]:
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

    @override
    @steps_operation
    def load(
        self, thread: str, namespace: str, checkpoint_id: str | None, cached_id: str | None
    ) -> Steps[LoadedCheckpoint | None]:
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

    @override
    @steps_operation
    def list_checkpoints(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> Steps[list[tuple[str, str]]]:
        fields = yield "zrevrange", self._keys(thread)[2], 0, -1
        checkpoint_keys = [tuple(field.decode().split(SEPARATOR)) for field in fields]
        matching_keys = [
            (ns, i)
            for ns, i in checkpoint_keys
            if namespace in (None, ns) and (before is None or i < before)
        ]
        return sorted(matching_keys, key=lambda key: key[1], reverse=True)[:limit]

    @override
    @steps_operation
    def list_threads(self, after: str, limit: int) -> Steps[Sequence[str]]:
        low = f"({after}" if after else "-"
        thread_names = yield "zrangebylex", f"{self.prefix}:threads", low, "+", 0, limit
        return [thread.decode() for thread in thread_names]

    @override
    @steps_operation
    def threads_of_run(self, run_id: str) -> Steps[Sequence[str]]:
        return [t.decode() for t in (yield "smembers", f"{self.prefix}:run:{run_id}")]

    @override
    @steps_operation
    def next_chunk_number(self, thread: str, namespace: str, channel: str) -> Steps[int]:
        name = SEPARATOR.join(("last", namespace, quote(channel, safe="")))
        last = yield "hget", self._keys(thread)[0], name
        return 0 if last is None else int(last) + 1

    @override
    @steps_operation
    def delete_checkpoints(
        self,
        thread: str,
        keys: Sequence[tuple[str, str]],
        chunks: Mapping[tuple[str, str], Collection[int]],
    ) -> Steps[None]:
        fields = [SEPARATOR.join(key) for key in keys]
        chunk_fields = [
            SEPARATOR.join((ns, quote(channel, safe=""), str(number)))
            for (ns, channel), numbers in chunks.items()
            for number in numbers
        ]
        yield scripts.DROP, self._keys(thread), [len(fields), *fields, *chunk_fields]

    @override
    @steps_operation
    def delete_thread(self, thread: str) -> Steps[None]:
        for run_id in (yield "smembers", self._keys(thread)[8]):
            yield "srem", f"{self.prefix}:run:{run_id.decode()}", thread
        self._indexed_threads.clear()
        yield (
            "delete",
            *self._keys(thread)[1:],
        )  # the first has the fencing token, whose count continues
        yield "zrem", f"{self.prefix}:threads", thread

    @override
    @steps_operation
    def quarantine(self, thread: str, location: str, data: bytes) -> Steps[None]:
        yield "hsetnx", self._keys(thread)[6], location, data

    @override
    @steps_operation
    def quarantined_blobs(self, thread: str) -> Steps[list[tuple[str, bytes]]]:
        blobs_by_location = yield "hgetall", self._keys(thread)[6]
        return [(location.decode(), data) for location, data in blobs_by_location.items()]

    # -- turns and tools

    @override
    @steps_operation
    def acquire_lease(self, thread: str, owner: str, ttl_s: float) -> Steps[Lease | None]:
        answer = yield scripts.ACQUIRE, self._keys(thread), [owner, _ms(ttl_s)]
        return (
            None
            if answer is None
            else Lease(thread, owner, answer[0], clean_shutdown=answer[1] == 1)
        )

    @override
    @steps_operation
    def renew_lease(self, lease: Lease, ttl_s: float) -> Steps[bool]:
        done = yield (
            scripts.RENEW,
            self._keys(lease.thread),
            [lease.owner, lease.token, _ms(ttl_s), 0],
        )
        return bool(done == 1)

    @override
    @steps_operation
    def release_lease(self, lease: Lease, clean: bool) -> Steps[None]:
        yield scripts.RENEW, self._keys(lease.thread), [lease.owner, lease.token, 0, int(clean)]

    @override
    @steps_operation
    def revoke_lease(self, thread: str) -> Steps[None]:
        yield "hincrby", self._keys(thread)[0], "token", 1
        yield "hset", self._keys(thread)[0], "until", "0"

    @override
    @steps_operation
    def start_tool_call(
        self, thread: str, key: str, fencing_token: FencingToken | None
    ) -> Steps[bytes | None]:
        answer = yield scripts.TOOL_START, self._keys(thread), [_token_argument(fencing_token), key]
        _raise_for(answer)
        return None if answer[0] == b"new" else answer[1]

    @override
    @steps_operation
    def record_tool_result(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> Steps[None]:
        action = ["clear", key] if result is None else ["put", key, result]
        _raise_for(
            (yield scripts.TOOL_PUT, self._keys(thread), [_token_argument(fencing_token), *action])
        )

    @override
    @steps_operation
    def tool_results(self, thread: str) -> Steps[dict[str, bytes]]:
        results_by_key = yield "hgetall", self._keys(thread)[7]
        return {key.decode(): data for key, data in results_by_key.items()}

    @override
    @steps_operation
    def forget_tool_calls(self, thread: str, fencing_token: FencingToken | None) -> Steps[None]:
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
