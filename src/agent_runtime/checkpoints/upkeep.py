"""Listing, copying, pruning and deleting checkpoints, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.checkpoints.backends.backend import CheckpointRow, Chunk, LoadedCheckpoint
from agent_runtime.checkpoints.chunk_refs import numbers_in, parse_refs
from agent_runtime.checkpoints.operations import CheckpointOperations, combine_digests
from agent_runtime.checkpoints.shapes import is_write
from agent_runtime.errors import CheckpointCorrupt, InputInvalid
from agent_runtime.storage.operations import Steps

CheckpointKeys = Sequence[tuple[str, str]]
"""Checkpoints by namespace and id."""


def copy_thread(
    operations: CheckpointOperations, source: str, target: str, until: str | None = None
) -> Steps[None]:
    """Copy every checkpoint, sealed for its new thread.

    `until` leaves out checkpoints that are not its ancestors. Raises InputInvalid when the target
    has checkpoints.
    """
    checkpoint_keys: CheckpointKeys = yield from operations.backend.list_checkpoints(
        source, None, None, None
    )
    existing_rows: CheckpointKeys = yield from operations.backend.list_checkpoints(
        target, None, None, 1
    )
    if existing_rows:
        raise InputInvalid(f"the thread '{target}' has checkpoints already", "target_thread_id")
    if until is not None:
        checkpoint_keys = yield from _ancestors(operations, source, checkpoint_keys, until)
    copied_digests: dict[tuple[str, str, int], bytes] = {}
    for namespace, checkpoint_id in reversed(checkpoint_keys):
        loaded: LoadedCheckpoint | None = yield from operations.backend.load(
            source, namespace, checkpoint_id, None
        )
        if loaded is None:  # pruned in the meantime
            continue
        content = yield from operations.decode_row(source, loaded.row)
        chunks = []
        for (channel, number), data in loaded.chunks.items():
            if (namespace, channel, number) in copied_digests:
                continue
            try:
                payload = operations.blobs.unseal_payload(
                    data, "chunk", source, namespace, channel, str(number)
                )
            except CheckpointCorrupt as error:
                yield from operations.quarantine_and_raise(source, data, error)
                raise
            sealed = operations.blobs.seal_payload(
                payload, "chunk", target, namespace, channel, str(number)
            )
            copied_digests[namespace, channel, number] = operations.blobs.seal.digest_of(sealed)
            chunks.append(Chunk(channel, number, sealed))
        row = loaded.row
        row_key = (namespace, checkpoint_id)
        content[1] = {**content[1], **({"thread_id": target} if "thread_id" in content[1] else {})}
        if content[4:]:
            content[4] = _combined_digest(namespace, content[2], copied_digests)
        sealed = operations.blobs.encode(content, "row", target, *row_key, row.parent_id or "")
        copied_row = CheckpointRow(namespace, checkpoint_id, row.parent_id, row.chunks, sealed)
        yield from operations.backend.save(
            target, copied_row, chunks, None, operations.ttl_s, content[1].get("run_id"), False
        )
        writes = []
        # Writes after the requested checkpoint belong to its successors.
        for write in loaded.writes if checkpoint_id != until else ():
            write_location = (*row_key, write.task_id, str(write.index), write.path)
            value = yield from operations.decode_or_quarantine(
                source, is_write, write.data, "write", source, *write_location
            )
            writes.append(
                write._replace(
                    data=operations.blobs.encode(value, "write", target, *write_location)
                )
            )
        if writes:
            yield from operations.backend.save_writes(
                target, *row_key, writes, None, operations.ttl_s
            )


def _combined_digest(
    namespace: str, references: str, digests: Mapping[tuple[str, str, int], bytes]
) -> bytes:
    refs = parse_refs(references)
    chunk_keys = [
        (namespace, channel, number)
        for channel in sorted(refs)
        for number in numbers_in(refs[channel])
    ]
    return combine_digests([digests[chunk_key] for chunk_key in chunk_keys])


def _ancestors(
    operations: CheckpointOperations, thread: str, checkpoint_keys: CheckpointKeys, until: str
) -> Steps[CheckpointKeys]:
    ancestors = []
    ancestor_ids = {until}
    for namespace, checkpoint_id in checkpoint_keys:
        if namespace != "":
            if checkpoint_id <= until:
                ancestors.append((namespace, checkpoint_id))
        elif checkpoint_id in ancestor_ids:
            ancestors.append((namespace, checkpoint_id))
            loaded: LoadedCheckpoint | None = yield from operations.backend.load(
                thread, namespace, checkpoint_id, checkpoint_id
            )
            if loaded is not None and loaded.row.parent_id is not None:
                ancestor_ids.add(loaded.row.parent_id)
    if ("", until) not in ancestors:
        raise InputInvalid(f"there is no checkpoint '{until}'", "checkpoint_id")
    return ancestors


def delete_thread(operations: CheckpointOperations, thread: str) -> Steps[None]:
    """Delete everything of a thread."""
    yield from operations.backend.delete_thread(thread)
    operations.forget(thread)


def delete_for_runs(operations: CheckpointOperations, run_ids: Sequence[str]) -> Steps[None]:
    """Delete the checkpoints that these runs wrote, and values that no other checkpoint shares."""
    unique_run_ids = set(run_ids)
    threads: set[str] = set()
    for run_id in run_ids:
        threads |= set((yield from operations.backend.threads_of_run(run_id)))
    for thread in sorted(threads):
        deleted = list[CheckpointRow]()
        retained = list[CheckpointRow]()
        for loaded in (yield from _load_checkpoints(operations, thread)):
            content = yield from operations.decode_row(thread, loaded.row)
            (deleted if content[1].get("run_id") in unique_run_ids else retained).append(loaded.row)
        yield from _drop_rows(operations, thread, deleted, retained)


def prune(
    operations: CheckpointOperations, thread_ids: Sequence[str], strategy: str
) -> Steps[None]:
    """Keep only the latest checkpoint of each namespace and its dependencies, or delete everything.

    A `DeltaChannel` is rebuilt from the writes of its ancestors back to its last snapshot: those
    stay.
    """
    if strategy not in ("keep_latest", "delete"):
        raise InputInvalid("the strategy is keep_latest or delete", "strategy")
    for thread in thread_ids:
        if strategy == "delete":
            yield from delete_thread(operations, thread)
            continue
        loaded_checkpoints: list[LoadedCheckpoint] = yield from _load_checkpoints(
            operations, thread
        )
        by_id = {(r.row.namespace, r.row.checkpoint_id): r.row for r in loaded_checkpoints}
        latest: dict[str, CheckpointRow] = {}
        for loaded in loaded_checkpoints:  # newest first
            latest.setdefault(loaded.row.namespace, loaded.row)
        retained: dict[tuple[str, str], CheckpointRow] = {}
        for row in latest.values():
            yield from _retain_with_history(operations, thread, row, by_id, retained)
        yield from _drop_rows(
            operations,
            thread,
            [r for key, r in by_id.items() if key not in retained],
            list(retained.values()),
        )


def _retain_with_history(
    operations: CheckpointOperations,
    thread: str,
    row: CheckpointRow,
    by_id: dict[tuple[str, str], CheckpointRow],
    retained: dict[tuple[str, str], CheckpointRow],
) -> Steps[None]:
    content = yield from operations.decode_row(thread, row)
    retained[row.namespace, row.checkpoint_id] = row
    open_channels = set(content[1].get("counters_since_delta_snapshot") or ()) - set(
        parse_refs(row.chunks)
    )
    while open_channels and row.parent_id is not None:
        parent = by_id.get((row.namespace, row.parent_id))
        if parent is None:
            return
        row = parent
        retained[row.namespace, row.checkpoint_id] = row
        open_channels -= set(parse_refs(row.chunks))


def _load_checkpoints(
    operations: CheckpointOperations, thread: str
) -> Steps[list[LoadedCheckpoint]]:
    checkpoint_keys: CheckpointKeys = yield from operations.backend.list_checkpoints(
        thread, None, None, None
    )
    loaded_checkpoints = []
    for namespace, checkpoint_id in checkpoint_keys:
        loaded = yield from operations.backend.load(thread, namespace, checkpoint_id, checkpoint_id)
        if loaded is not None:
            loaded_checkpoints.append(loaded)
    return loaded_checkpoints


def _drop_rows(
    operations: CheckpointOperations,
    thread: str,
    deleted: list[CheckpointRow],
    retained: list[CheckpointRow],
) -> Steps[None]:
    if not deleted:
        return
    retained_chunks = _chunk_numbers(retained)
    deleted_chunks = _chunk_numbers(deleted)
    unused = {
        key: numbers - retained_chunks.get(key, set()) for key, numbers in deleted_chunks.items()
    }
    yield from operations.backend.delete_checkpoints(
        thread,
        [(r.namespace, r.checkpoint_id) for r in deleted],
        {k: n for k, n in unused.items() if n},
    )
    operations.forget(thread)


def _chunk_numbers(rows: list[CheckpointRow]) -> dict[tuple[str, str], set[int]]:
    numbers_by_channel: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        for channel, ranges in parse_refs(row.chunks).items():
            numbers_by_channel.setdefault((row.namespace, channel), set()).update(
                numbers_in(ranges)
            )
    return numbers_by_channel


def matches_metadata(metadata: Any, metadata_filter: dict[str, Any] | None) -> bool:
    """Return whether a checkpoint's metadata has every value of the filter."""
    return all(metadata.get(name) == value for name, value in (metadata_filter or {}).items())
