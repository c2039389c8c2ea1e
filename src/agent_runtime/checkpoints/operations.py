"""Store and read checkpoints, append-only and verified, on any backend."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Self, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    writes_sort_key,
)

from agent_runtime.checkpoints.backends.backend import (
    CheckpointBackend,
    CheckpointRow,
    Chunk,
    ChunkConflict,
    FencingToken,
    LoadedCheckpoint,
    ParentDeleted,
    Write,
)
from agent_runtime.checkpoints.blobs import Blobs, storable_metadata
from agent_runtime.checkpoints.cache import CachedCheckpoint, CheckpointCache
from agent_runtime.checkpoints.chunk_refs import (
    format_refs,
    next_number,
    numbers_in,
    parse_refs,
)
from agent_runtime.checkpoints.codec import Codec
from agent_runtime.checkpoints.seal import Seal
from agent_runtime.checkpoints.shapes import is_checkpoint_row, is_write
from agent_runtime.checkpoints.stored_list import StoredList
from agent_runtime.checkpoints.thread_ids import config_of, parse_config
from agent_runtime.errors import CheckpointCorrupt
from agent_runtime.storage.operations import Operation, Steps, adrive, drive

FENCING_TOKEN_KEY = "__agent_runtime_guard"  # noqa: S105 - the key of a mapping
"""The key below `configurable` of the turn's token; LangGraph passes it on and does not persist it.
"""

R = TypeVar("R")


def combine_digests(digests: Iterable[bytes]) -> bytes:
    """Return one digest over those of chunks, in their order."""
    return blake2b(b"".join(digests), digest_size=16).digest()


class CheckpointOperations:
    """Turn LangGraph's checkpoints into operations of a backend.

    Methods return steps, which `run` and `arun` carry out; `Checkpointer` is the public form.
    """

    def __init__(
        self,
        backend: CheckpointBackend,
        *,
        allowed_types: Iterable[type | tuple[str, ...]],
        mac_key: bytes | None,
        ttl_s: float | None,
    ) -> None:
        self.backend = backend
        self.ttl_s = ttl_s
        self.blobs = Blobs(Codec(allowed_types), Seal(mac_key))
        self._cache: CheckpointCache = CheckpointCache()

    def allow(self, types: Iterable[type | tuple[str, ...]]) -> None:
        """Allow these classes in states, too."""
        self.blobs = Blobs(self.blobs.codec.with_allowed_types(types), self.blobs.seal)

    def with_types(self, types: Iterable[type | tuple[str, ...]]) -> Self:
        """Return a copy that allows these classes in states, too; it shares the storage."""
        clone = copy.copy(self)
        clone._cache = CheckpointCache()  # values read with the other allow-list stay there
        clone.allow(types)
        return clone

    def run(self, steps: Steps[R]) -> R:
        """Carry out steps for a sync caller."""
        return drive(steps, _run)

    async def arun(self, steps: Steps[R]) -> R:
        """Carry out steps for an async caller."""
        return await adrive(steps, _arun)

    # -- writing

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> Steps[RunnableConfig]:
        """Store a checkpoint after the one that `config` names."""
        thread, namespace, parent_id = parse_config(config)
        fencing_token: FencingToken | None = config.get("configurable", {}).get(FENCING_TOKEN_KEY)
        parent = yield from self._load_parent(thread, namespace, parent_id)
        stored_metadata = storable_metadata(config, metadata)
        numbers: dict[str, int] = {}
        while True:
            cached, chunks = self._plan_chunks(thread, namespace, checkpoint, parent, numbers)
            refs = format_refs(cached.refs)
            row_location = (thread, namespace, checkpoint["id"], parent_id or "")
            checkpoint_without_values = {
                k: v for k, v in checkpoint.items() if k != "channel_values"
            }
            data = self.blobs.encode(
                [
                    checkpoint_without_values,
                    stored_metadata,
                    refs,
                    sorted(cached.lists),
                    *self.combined_digest(cached),
                ],
                "row",
                *row_location,
            )
            row = CheckpointRow(namespace, checkpoint["id"], parent_id, refs, data)
            shared = len(chunks) < sum(
                last - first + 1 for ranges in cached.refs.values() for first, last in ranges
            )
            try:
                yield from self.backend.save(
                    thread,
                    row,
                    chunks,
                    fencing_token,
                    self.ttl_s,
                    stored_metadata.get("run_id"),
                    shared,
                )
                break
            except ParentDeleted:  # the thread was deleted: the cache belongs to the deleted one
                parent = CachedCheckpoint("", {})
                self.forget(thread)
                for channel in cached.refs:
                    numbers[channel] = yield from self.backend.next_chunk_number(
                        thread, namespace, channel
                    )
            except (
                ChunkConflict
            ):  # a fork, or another writer without a lease: take numbers behind its
                for chunk in chunks:
                    numbers[chunk.channel] = yield from self.backend.next_chunk_number(
                        thread, namespace, chunk.channel
                    )
        self._cache.put(thread, namespace, cached)
        return config_of(thread, namespace, checkpoint["id"])

    def _plan_chunks(
        self,
        thread: str,
        namespace: str,
        checkpoint: Checkpoint,
        parent: CachedCheckpoint,
        numbers: dict[str, int],
    ) -> tuple[CachedCheckpoint, list[Chunk]]:
        values = checkpoint["channel_values"]
        versions = checkpoint["channel_versions"]
        cached = CachedCheckpoint(checkpoint["id"], dict(versions))
        chunks = list[Chunk]()
        for channel in versions:
            parent_ranges = parent.refs.get(channel)
            if parent_ranges is not None and parent.versions.get(channel) == versions[channel]:
                cached.refs[channel] = parent_ranges
                self._copy_digests(cached, parent, channel)
                if channel in parent.lists:
                    cached.lists[channel] = parent.lists[channel]
                elif channel in parent.payloads:
                    cached.payloads[channel] = parent.payloads[channel]
                continue
            if channel not in values:
                continue
            number = numbers.get(channel, next_number(parent_ranges or ()))
            value = values[channel]
            if type(value) is list:
                stored_list = parent.lists.get(channel) or StoredList(self.blobs.codec, (), [], [])
                cached.lists[channel], payload = stored_list.with_items(value, number)
                cached.refs[channel] = cached.lists[channel].ranges
            else:
                payload = cached.payloads[channel] = self.blobs.codec.encode(value)
                cached.refs[channel] = ((number, number),)
            if payload is not None:
                data = self.blobs.seal_payload(
                    payload, "chunk", thread, namespace, channel, str(number)
                )
                chunks.append(Chunk(channel, number, data))
                cached.digests[channel, number] = self.blobs.seal.digest_of(data)
            self._copy_digests(cached, parent, channel)
        return cached, chunks

    def _copy_digests(
        self, cached: CachedCheckpoint, parent: CachedCheckpoint, channel: str
    ) -> None:
        if not self.blobs.seal.is_keyed:
            return
        for number in numbers_in(cached.refs[channel]):
            if (channel, number) not in cached.digests:
                cached.digests[channel, number] = parent.digests[channel, number]

    def combined_digest(self, cached: CachedCheckpoint) -> list[bytes]:
        """Return the digest over all chunks of a checkpoint, for its row; empty without a key.

        Each chunk is sealed for its location. Without the digest, chunks of two states at the same
        locations (after the session was reset to an earlier state) could be combined into a state
        that never existed.
        """
        if not self.blobs.seal.is_keyed:
            return []
        chunk_keys = [
            (channel, number)
            for channel in sorted(cached.refs)
            for number in numbers_in(cached.refs[channel])
        ]
        return [combine_digests([cached.digests[chunk_key] for chunk_key in chunk_keys])]

    def _load_parent(
        self, thread: str, namespace: str, checkpoint_id: str | None
    ) -> Steps[CachedCheckpoint]:
        """Return the parent checkpoint, from the cache or from the store."""
        if checkpoint_id is None:
            return CachedCheckpoint("", {})
        cached = self._cache.get(thread, namespace)
        if cached is None or cached.checkpoint_id != checkpoint_id:
            loaded = yield from self.backend.load(thread, namespace, checkpoint_id, None)
            if loaded is None:
                return CachedCheckpoint("", {})
            _, cached = yield from self.decode_checkpoint(thread, loaded)
        return cached

    def put_writes(
        self, config: RunnableConfig, writes: Any, task_id: str, task_path: str
    ) -> Steps[None]:
        """Store a task's writes."""
        thread, namespace, checkpoint_id = parse_config(config)
        fencing_token: FencingToken | None = config.get("configurable", {}).get(FENCING_TOKEN_KEY)
        sealed_writes = []
        for position, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, position)
            write_location = (
                thread,
                namespace,
                checkpoint_id or "",
                task_id,
                str(index),
                task_path,
            )
            sealed_writes.append(
                Write(
                    task_id,
                    index,
                    task_path,
                    self.blobs.encode([channel, value], "write", *write_location),
                )
            )
        yield from self.backend.save_writes(
            thread, namespace, checkpoint_id or "", sealed_writes, fencing_token, self.ttl_s
        )

    def forget(self, thread: str) -> None:
        """Drop the cached checkpoints of a thread."""
        self._cache.forget(thread)

    # -- reading

    def get_tuple(self, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
        """Read a checkpoint, from memory where this process wrote or read it last."""
        thread, namespace, checkpoint_id = parse_config(config)
        cached = self._cache.get(thread, namespace)
        cached_id = cached.checkpoint_id if cached is not None else None
        loaded: LoadedCheckpoint | None = yield from self.backend.load(
            thread, namespace, checkpoint_id, cached_id
        )
        if loaded is None:
            return None
        return (
            yield from self.build_tuple(
                thread, loaded, cached if loaded.row.checkpoint_id == cached_id else None
            )
        )

    def build_tuple(
        self, thread: str, loaded: LoadedCheckpoint, cached: CachedCheckpoint | None
    ) -> Steps[CheckpointTuple]:
        """Build LangGraph's tuple of a loaded row."""
        row = loaded.row
        content = yield from self.decode_row(thread, row)
        if cached is not None:
            values = self._cached_values(cached)
        else:
            values, cached = yield from self.decode_checkpoint(thread, loaded, content)
            self._cache_latest(thread, row.namespace, cached)
        writes = yield from self.decode_writes(thread, row, loaded.writes)
        checkpoint = cast("Checkpoint", {**content[0], "channel_values": values})
        parent = config_of(thread, row.namespace, row.parent_id) if row.parent_id else None
        config = config_of(thread, row.namespace, row.checkpoint_id)
        return CheckpointTuple(config, checkpoint, content[1], parent, writes)

    def _cache_latest(self, thread: str, namespace: str, candidate: CachedCheckpoint) -> None:
        # Reading an old checkpoint must not evict the one that the next step needs.
        cached = self._cache.get(thread, namespace)
        if cached is None or cached.checkpoint_id <= candidate.checkpoint_id:
            self._cache.put(thread, namespace, candidate)

    def _cached_values(self, cached: CachedCheckpoint) -> dict[str, Any]:
        decode = self.blobs.codec.decode
        return {
            c: cached.lists[c].copy_items() if c in cached.lists else decode(cached.payloads[c])
            for c in cached.refs
        }

    def decode_row(self, thread: str, row: CheckpointRow) -> Steps[list[Any]]:
        """Return the verified content of a row: checkpoint, metadata, references, list channels."""
        row_location = ("row", thread, row.namespace, row.checkpoint_id, row.parent_id or "")
        content = yield from self.decode_or_quarantine(
            thread, is_checkpoint_row, row.data, *row_location
        )
        if content[2] != row.chunks:
            yield from self.quarantine_and_raise(
                thread,
                row.data,
                CheckpointCorrupt("/".join(row_location), "its references were changed"),
            )
        return cast("list[Any]", content)

    def decode_checkpoint(
        self, thread: str, loaded: LoadedCheckpoint, content: list[Any] | None = None
    ) -> Steps[tuple[dict[str, Any], CachedCheckpoint]]:
        """Return the verified values of a checkpoint, and its cache entry."""
        row = loaded.row
        content = content or (yield from self.decode_row(thread, row))
        cached = CachedCheckpoint(row.checkpoint_id, dict(content[0]["channel_versions"]))
        values = dict[str, Any]()
        for channel, ranges in parse_refs(content[2]).items():
            pieces = list[Any]()
            payloads = list[bytes]()
            for number in numbers_in(ranges):
                chunk_location = ("chunk", thread, row.namespace, channel, str(number))
                data = loaded.chunks.get((channel, number))
                if data is None:
                    error = CheckpointCorrupt("/".join(chunk_location), "it is missing")
                    yield from self.quarantine_and_raise(thread, b"", error)
                try:
                    decode = self.blobs.decode_list if channel in content[3] else self.blobs.decode
                    piece, payload = decode(data or b"", *chunk_location)
                except CheckpointCorrupt as error:
                    yield from self.quarantine_and_raise(thread, data or b"", error)
                pieces.append(piece)
                payloads.append(payload)
                cached.digests[channel, number] = self.blobs.seal.digest_of(data or b"")
            cached.refs[channel] = ranges
            if channel in content[3]:
                cached.lists[channel] = StoredList(
                    self.blobs.codec, ranges, payloads, [len(p) for p in pieces]
                )
                values[channel] = [item for piece in pieces for item in piece]
            else:
                values[channel] = pieces[0]
                cached.payloads[channel] = payloads[0]
        if (
            content[4:] and self.combined_digest(cached) != content[4:]
        ):  # rows of earlier versions lack it
            location = f"row/{thread}/{row.namespace}/{row.checkpoint_id}"
            yield from self.quarantine_and_raise(
                thread, row.data, CheckpointCorrupt(location, "its chunks are of different states")
            )
        return values, cached

    def decode_writes(
        self, thread: str, row: CheckpointRow, writes: list[Write]
    ) -> Steps[list[tuple[str, str, Any]]]:
        """Return verified writes, in the order in which LangGraph applies them."""
        decoded_writes = []
        for write in sorted(writes, key=lambda w: writes_sort_key(w.path, w.task_id, w.index)):
            write_location = (
                thread,
                row.namespace,
                row.checkpoint_id,
                write.task_id,
                str(write.index),
                write.path,
            )
            channel, value = yield from self.decode_or_quarantine(
                thread, is_write, write.data, "write", *write_location
            )
            decoded_writes.append((write.task_id, channel, value))
        return decoded_writes

    def decode_or_quarantine(
        self,
        thread: str,
        has_shape: Callable[[Any], bool],
        data: bytes | None,
        *location_parts: str,
    ) -> Steps[Any]:
        """Return the value in a blob.

        One that does not verify is quarantined and raises CheckpointCorrupt.
        """
        try:
            return self.blobs.decode_as(has_shape, data or b"", *location_parts)
        except CheckpointCorrupt as error:
            yield from self.quarantine_and_raise(thread, data or b"", error)

    def quarantine_and_raise(
        self, thread: str, data: bytes, error: CheckpointCorrupt
    ) -> Steps[None]:
        """Quarantine a copy of damaged data, and raise.

        Intact data of another configuration is left alone.
        """
        if error.damaged:
            yield from self.backend.quarantine(thread, error.place, data)
        raise error


def _run(operation: Operation[R]) -> R:
    return operation.run()


async def _arun(operation: Operation[R]) -> R:
    return await operation
