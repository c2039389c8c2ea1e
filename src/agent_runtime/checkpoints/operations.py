"""How checkpoints are stored and read, without I/O.

Append-only, verified, the same on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    writes_sort_key,
)

from agent_runtime.checkpoints.backends.backend import (
    Chunk,
    ChunkTaken,
    Guard,
    Loaded,
    ParentGone,
    Records,
    Row,
    Write,
)
from agent_runtime.checkpoints.blobs import Blobs, storable_metadata
from agent_runtime.checkpoints.cache import CheckpointCache
from agent_runtime.checkpoints.chunk_refs import (
    Refs,
    format_refs,
    next_number,
    numbers_in,
    parse_refs,
)
from agent_runtime.checkpoints.codec import Codec
from agent_runtime.checkpoints.seal import Seal
from agent_runtime.checkpoints.shapes import is_row, is_write
from agent_runtime.checkpoints.stored_list import StoredList
from agent_runtime.checkpoints.thread_ids import config_of, place_of
from agent_runtime.errors import CheckpointCorrupt

GUARD_KEY = "__agent_runtime_guard"
"""Under `configurable`: what the session layer holds.

LangGraph passes it on and does not persist it.
"""

R = TypeVar("R")
Steps: TypeAlias = Generator[tuple[Any, ...], Any, R]
"""An operation without its I/O: yields `(operation, *args)` for Records and is sent the answers."""


@dataclass(slots=True)
class _Hot:
    """What is known of a checkpoint without reading it.

    Its references, its stored lists, and other values' bytes.
    """

    checkpoint_id: str
    versions: dict[str, Any]
    refs: Refs = field(default_factory=dict)
    lists: dict[str, StoredList] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)
    digests: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Of its chunks, by channel and number, where they are sealed by a key."""


def digest_over(digests: Iterable[bytes]) -> bytes:
    """Return one digest over those of chunks, in their order."""
    return blake2b(b"".join(digests), digest_size=16).digest()


class CheckpointSteps:
    """The logic of a saver without its I/O; `Checkpointer` is its public form."""

    def __init__(
        self,
        records: Records,
        *,
        allowed_types: Iterable[type | tuple[str, ...]],
        mac_key: bytes | None,
        ttl_s: float | None,
    ) -> None:
        self.records = records
        self.ttl_s = ttl_s
        self.blobs = Blobs(Codec(allowed_types), Seal(mac_key))
        self._cache: CheckpointCache[_Hot] = CheckpointCache()

    # -- driving
    # -------------------------------------------------------------------------------------------

    def run(self, steps: Steps[R]) -> R:
        """Carry out an operation for a sync caller."""
        try:
            request = next(steps)
            while True:
                try:
                    answer = self.records.call(*request)
                except Exception as error:  # noqa: BLE001 - the operation decides what to do about it
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            return cast("R", stop.value)

    async def arun(self, steps: Steps[R]) -> R:
        """Carry out an operation for an async caller."""
        try:
            request = next(steps)
            while True:
                try:
                    answer = await self.records.acall(*request)
                except Exception as error:  # noqa: BLE001 - the operation decides what to do about it
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            return cast("R", stop.value)

    # -- writing
    # -------------------------------------------------------------------------------------------

    def put_steps(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> Steps[RunnableConfig]:
        """Store a checkpoint after the one that `config` names."""
        thread, namespace, parent_id = place_of(config)
        guard: Guard | None = config.get("configurable", {}).get(GUARD_KEY)
        before = yield from self._known(thread, namespace, parent_id)
        kept = storable_metadata(config, metadata)
        numbers: dict[str, int] = {}
        while True:
            hot, chunks = self._planned(thread, namespace, checkpoint, before, numbers)
            refs = format_refs(hot.refs)
            place = (thread, namespace, checkpoint["id"], parent_id or "")
            bare = {k: v for k, v in checkpoint.items() if k != "channel_values"}
            data = self.blobs.close(
                [bare, kept, refs, sorted(hot.lists), *self.whole_digest(hot)], "row", *place
            )
            row = Row(namespace, checkpoint["id"], parent_id, refs, data)
            shared = len(chunks) < sum(
                last - first + 1 for ranges in hot.refs.values() for first, last in ranges
            )
            try:
                yield "save", thread, row, chunks, guard, self.ttl_s, kept.get("run_id"), shared
                break
            except (
                ParentGone
            ):  # somebody deleted the thread: what this process knows of it is of another life
                before = _Hot("", {})
                self.forget(thread)
                for channel in hot.refs:
                    numbers[channel] = yield "next_number", thread, namespace, channel
            except ChunkTaken:  # a fork, or another writer without a lease: take numbers behind its
                for chunk in chunks:
                    numbers[chunk.channel] = yield "next_number", thread, namespace, chunk.channel
        self._cache.put(thread, namespace, hot)
        return config_of(thread, namespace, checkpoint["id"])

    def _planned(
        self,
        thread: str,
        namespace: str,
        checkpoint: Checkpoint,
        before: _Hot,
        numbers: dict[str, int],
    ) -> tuple[_Hot, list[Chunk]]:
        values = checkpoint["channel_values"]
        versions = checkpoint["channel_versions"]
        hot = _Hot(checkpoint["id"], dict(versions))
        chunks = list[Chunk]()
        for channel in versions:
            old = before.refs.get(channel)
            if old is not None and before.versions.get(channel) == versions[channel]:
                hot.refs[channel] = old
                self._keep_digests(hot, before, channel)
                if channel in before.lists:
                    hot.lists[channel] = before.lists[channel]
                elif channel in before.others:
                    hot.others[channel] = before.others[channel]
                continue
            if channel not in values:
                continue
            number = numbers.get(channel, next_number(old or ()))
            value = values[channel]
            if type(value) is list:
                stored = before.lists.get(channel) or StoredList(self.blobs.codec, (), [], [])
                hot.lists[channel], payload = stored.extended(value, number)
                hot.refs[channel] = hot.lists[channel].ranges
            else:
                payload = hot.others[channel] = self.blobs.codec.encode(value)
                hot.refs[channel] = ((number, number),)
            if payload is not None:
                data = self.blobs.close_payload(
                    payload, "chunk", thread, namespace, channel, str(number)
                )
                chunks.append(Chunk(channel, number, data))
                hot.digests[channel, number] = self.blobs.seal.digest_of(data)
            self._keep_digests(hot, before, channel)
        return hot, chunks

    def _keep_digests(self, hot: _Hot, before: _Hot, channel: str) -> None:
        if not self.blobs.seal.is_keyed:
            return
        for number in numbers_in(hot.refs[channel]):
            if (channel, number) not in hot.digests:
                hot.digests[channel, number] = before.digests[channel, number]

    def whole_digest(self, known: _Hot) -> list[bytes]:
        """Return the digest over all chunks of a checkpoint, for its row; nothing without a key.

        Each chunk is sealed for its place. Without this, chunks of two states that had the same
        places (the session was put back to an earlier state in between) could be put together into
        one that never was.
        """
        if not self.blobs.seal.is_keyed:
            return []
        places = [
            (channel, number)
            for channel in sorted(known.refs)
            for number in numbers_in(known.refs[channel])
        ]
        return [digest_over([known.digests[place] for place in places])]

    def _known(self, thread: str, namespace: str, checkpoint_id: str | None) -> Steps[_Hot]:
        """What is stored of the checkpoint to be continued.

        Read when this process does not know it.
        """
        if checkpoint_id is None:
            return _Hot("", {})
        hot = self._cache.get(thread, namespace)
        if hot is None or hot.checkpoint_id != checkpoint_id:
            loaded = yield "load", thread, namespace, checkpoint_id, None
            if loaded is None:
                return _Hot("", {})
            _, hot = yield from self.opened(thread, loaded)
        return hot

    def put_writes_steps(
        self, config: RunnableConfig, writes: Any, task_id: str, task_path: str
    ) -> Steps[None]:
        """Store what a task wrote."""
        thread, namespace, checkpoint_id = place_of(config)
        guard: Guard | None = config.get("configurable", {}).get(GUARD_KEY)
        sealed = []
        for position, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, position)
            place = (thread, namespace, checkpoint_id or "", task_id, str(index), task_path)
            sealed.append(
                Write(
                    task_id, index, task_path, self.blobs.close([channel, value], "write", *place)
                )
            )
        yield "save_writes", thread, namespace, checkpoint_id or "", sealed, guard, self.ttl_s

    def forget(self, thread: str) -> None:
        """Drop what this process remembers of a thread."""
        self._cache.forget(thread)

    # -- reading
    # -------------------------------------------------------------------------------------------

    def get_tuple_steps(self, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
        """Read a checkpoint, from memory where this process wrote or read it last."""
        thread, namespace, checkpoint_id = place_of(config)
        hot = self._cache.get(thread, namespace)
        known = hot.checkpoint_id if hot is not None else None
        loaded: Loaded | None = yield "load", thread, namespace, checkpoint_id, known
        if loaded is None:
            return None
        return (
            yield from self.tuple_of(
                thread, loaded, hot if loaded.row.checkpoint_id == known else None
            )
        )

    def tuple_of(self, thread: str, loaded: Loaded, hot: _Hot | None) -> Steps[CheckpointTuple]:
        """What LangGraph gets for a loaded row."""
        row = loaded.row
        content = yield from self.row_content(thread, row)
        if hot is not None:
            values = self._hot_values(hot)
        else:
            values, hot = yield from self.opened(thread, loaded, content)
            self._remember_latest(thread, row.namespace, hot)
        writes = yield from self.writes_of(thread, row, loaded.writes)
        checkpoint = cast("Checkpoint", {**content[0], "channel_values": values})
        parent = config_of(thread, row.namespace, row.parent_id) if row.parent_id else None
        config = config_of(thread, row.namespace, row.checkpoint_id)
        return CheckpointTuple(config, checkpoint, content[1], parent, writes)

    def _remember_latest(self, thread: str, namespace: str, hot: _Hot) -> None:
        # Reading an old checkpoint must not push out what the next step of the conversation needs.
        cached = self._cache.get(thread, namespace)
        if cached is None or cached.checkpoint_id <= hot.checkpoint_id:
            self._cache.put(thread, namespace, hot)

    def _hot_values(self, hot: _Hot) -> dict[str, Any]:
        decode = self.blobs.codec.decode
        return {
            c: hot.lists[c].hand_out() if c in hot.lists else decode(hot.others[c])
            for c in hot.refs
        }

    def row_content(self, thread: str, row: Row) -> Steps[list[Any]]:
        """The verified content of a row: checkpoint, metadata, references, list channels."""
        place = ("row", thread, row.namespace, row.checkpoint_id, row.parent_id or "")
        content = yield from self.opened_blob(thread, is_row, row.data, *place)
        if content[2] != row.chunks:
            yield from self.refused(
                thread, row.data, CheckpointCorrupt("/".join(place), "its references were changed")
            )
        return cast("list[Any]", content)

    def opened(
        self, thread: str, loaded: Loaded, content: list[Any] | None = None
    ) -> Steps[tuple[dict[str, Any], _Hot]]:
        """The values of a checkpoint, verified, and what to remember of it."""
        row = loaded.row
        content = content or (yield from self.row_content(thread, row))
        hot = _Hot(row.checkpoint_id, dict(content[0]["channel_versions"]))
        values = dict[str, Any]()
        for channel, ranges in parse_refs(content[2]).items():
            pieces = list[Any]()
            payloads = list[bytes]()
            for number in numbers_in(ranges):
                place = ("chunk", thread, row.namespace, channel, str(number))
                data = loaded.chunks.get((channel, number))
                if data is None:
                    error = CheckpointCorrupt("/".join(place), "it is missing")
                    yield from self.refused(thread, b"", error)
                try:
                    opened = self.blobs.open_list if channel in content[3] else self.blobs.open
                    piece, payload = opened(data or b"", *place)
                except CheckpointCorrupt as error:
                    yield from self.refused(thread, data or b"", error)
                pieces.append(piece)
                payloads.append(payload)
                hot.digests[channel, number] = self.blobs.seal.digest_of(data or b"")
            hot.refs[channel] = ranges
            if channel in content[3]:
                hot.lists[channel] = StoredList(
                    self.blobs.codec, ranges, payloads, [len(p) for p in pieces]
                )
                values[channel] = [item for piece in pieces for item in piece]
            else:
                values[channel] = pieces[0]
                hot.others[channel] = payloads[0]
        if (
            content[4:] and self.whole_digest(hot) != content[4:]
        ):  # one of an earlier version says nothing of it
            where = f"row/{thread}/{row.namespace}/{row.checkpoint_id}"
            yield from self.refused(
                thread, row.data, CheckpointCorrupt(where, "its chunks are of different states")
            )
        return values, hot

    def writes_of(
        self, thread: str, row: Row, writes: list[Write]
    ) -> Steps[list[tuple[str, str, Any]]]:
        """Verified writes, in the order in which LangGraph applies them."""
        found = []
        for write in sorted(writes, key=lambda w: writes_sort_key(w.path, w.task_id, w.index)):
            place = (
                thread,
                row.namespace,
                row.checkpoint_id,
                write.task_id,
                str(write.index),
                write.path,
            )
            channel, value = yield from self.opened_blob(
                thread, is_write, write.data, "write", *place
            )
            found.append((write.task_id, channel, value))
        return found

    def opened_blob(
        self, thread: str, has_shape: Callable[[Any], bool], data: bytes | None, *place: str
    ) -> Steps[Any]:
        """Return the value in a blob.

        One that does not verify is quarantined and raises CheckpointCorrupt.
        """
        try:
            return self.blobs.open_as(has_shape, data or b"", *place)
        except CheckpointCorrupt as error:
            yield from self.refused(thread, data or b"", error)

    @staticmethod
    def refused(thread: str, data: bytes, error: CheckpointCorrupt) -> Steps[None]:
        """Keep a copy of what was damaged, and raise.

        What is whole but of another configuration is left alone.
        """
        if error.damaged:
            yield "quarantine", thread, error.place, data
        raise error
