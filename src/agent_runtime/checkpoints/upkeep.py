"""Listing, copying, pruning and deleting checkpoints, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.checkpoints.backends.backend import Chunk, Loaded, Row
from agent_runtime.checkpoints.chunk_refs import numbers_in, parse_refs
from agent_runtime.checkpoints.operations import CheckpointSteps, Steps, digest_over
from agent_runtime.checkpoints.shapes import is_write
from agent_runtime.errors import CheckpointCorrupt, InputInvalid

Rows = list[tuple[str, str]]
"""Checkpoints by namespace and id."""


def copy_thread(
    saver: CheckpointSteps, source: str, target: str, until: str | None = None
) -> Steps[None]:
    """Copy every checkpoint, sealed anew for its new thread.

    `until` leaves out what is not on the way to it.

    Raises InputInvalid when the target has checkpoints already.
    """
    rows: Rows = yield "list", source, None, None, None
    taken: Rows = yield "list", target, None, None, 1
    if taken:
        raise InputInvalid(f"the thread '{target}' has checkpoints already", "target_thread_id")
    if until is not None:
        rows = yield from _ancestors(source, rows, until)
    done: dict[tuple[str, str, int], bytes] = {}
    for namespace, checkpoint_id in reversed(rows):
        loaded: Loaded | None = yield "load", source, namespace, checkpoint_id, None
        if loaded is None:  # pruned in the meantime
            continue
        content = yield from saver.row_content(source, loaded.row)
        chunks = []
        for (channel, number), data in loaded.chunks.items():
            if (namespace, channel, number) in done:
                continue
            try:
                payload = saver.blobs.payload(
                    data, "chunk", source, namespace, channel, str(number)
                )
            except CheckpointCorrupt as error:
                yield from saver.refused(source, data, error)
                raise
            sealed = saver.blobs.close_payload(
                payload, "chunk", target, namespace, channel, str(number)
            )
            done[namespace, channel, number] = saver.blobs.seal.digest_of(sealed)
            chunks.append(Chunk(channel, number, sealed))
        row = loaded.row
        place = (namespace, checkpoint_id)
        content[1] = {**content[1], **({"thread_id": target} if "thread_id" in content[1] else {})}
        if content[4:]:
            content[4] = _whole_digest(namespace, content[2], done)
        sealed = saver.blobs.close(content, "row", target, *place, row.parent_id or "")
        moved = Row(namespace, checkpoint_id, row.parent_id, row.chunks, sealed)
        yield "save", target, moved, chunks, None, saver.ttl_s, content[1].get("run_id"), False
        writes = []
        # What tasks wrote after the checkpoint that was asked for belongs to what came after it.
        for write in loaded.writes if checkpoint_id != until else ():
            where = (*place, write.task_id, str(write.index), write.path)
            value = yield from saver.opened_blob(
                source, is_write, write.data, "write", source, *where
            )
            writes.append(write._replace(data=saver.blobs.close(value, "write", target, *where)))
        if writes:
            yield "save_writes", target, *place, writes, None, saver.ttl_s


def _whole_digest(
    namespace: str, references: str, digests: Mapping[tuple[str, str, int], bytes]
) -> bytes:
    refs = parse_refs(references)
    places = [
        (namespace, channel, number)
        for channel in sorted(refs)
        for number in numbers_in(refs[channel])
    ]
    return digest_over([digests[place] for place in places])


def _ancestors(thread: str, rows: Rows, until: str) -> Steps[Rows]:
    kept = []
    wanted = {until}
    for namespace, checkpoint_id in rows:
        if namespace != "":
            if checkpoint_id <= until:
                kept.append((namespace, checkpoint_id))
        elif checkpoint_id in wanted:
            kept.append((namespace, checkpoint_id))
            loaded: Loaded | None = yield "load", thread, namespace, checkpoint_id, checkpoint_id
            if loaded is not None and loaded.row.parent_id is not None:
                wanted.add(loaded.row.parent_id)
    if ("", until) not in kept:
        raise InputInvalid(f"there is no checkpoint '{until}'", "checkpoint_id")
    return kept


def delete_thread(saver: CheckpointSteps, thread: str) -> Steps[None]:
    """Delete everything of a thread."""
    yield "delete_thread", thread
    saver.forget(thread)


def delete_for_runs(saver: CheckpointSteps, run_ids: Sequence[str]) -> Steps[None]:
    """Delete the checkpoints that these runs wrote, and values that no other checkpoint shares."""
    wanted = set(run_ids)
    threads: set[str] = set()
    for run_id in run_ids:
        threads |= set((yield "threads_of_run", run_id))
    for thread in sorted(threads):
        doomed = list[Row]()
        kept = list[Row]()
        for loaded in (yield from _rows(thread)):
            content = yield from saver.row_content(thread, loaded.row)
            (doomed if content[1].get("run_id") in wanted else kept).append(loaded.row)
        yield from _drop(saver, thread, doomed, kept)


def prune(saver: CheckpointSteps, thread_ids: Sequence[str], strategy: str) -> Steps[None]:
    """Keep only the latest checkpoint of each namespace, and what it is rebuilt from.

    Or delete everything.

    A `DeltaChannel` is rebuilt from the writes of its ancestors back to its last snapshot: those
    stay.
    """
    if strategy not in ("keep_latest", "delete"):
        raise InputInvalid("the strategy is keep_latest or delete", "strategy")
    for thread in thread_ids:
        if strategy == "delete":
            yield from delete_thread(saver, thread)
            continue
        rows: list[Loaded] = yield from _rows(thread)
        by_id = {(r.row.namespace, r.row.checkpoint_id): r.row for r in rows}
        latest: dict[str, Row] = {}
        for loaded in rows:  # newest first
            latest.setdefault(loaded.row.namespace, loaded.row)
        kept: dict[tuple[str, str], Row] = {}
        for row in latest.values():
            yield from _keep_with_history(saver, thread, row, by_id, kept)
        yield from _drop(
            saver, thread, [r for key, r in by_id.items() if key not in kept], list(kept.values())
        )


def _keep_with_history(
    saver: CheckpointSteps,
    thread: str,
    row: Row,
    by_id: dict[tuple[str, str], Row],
    kept: dict[tuple[str, str], Row],
) -> Steps[None]:
    content = yield from saver.row_content(thread, row)
    kept[row.namespace, row.checkpoint_id] = row
    open_channels = set(content[1].get("counters_since_delta_snapshot") or ()) - set(
        parse_refs(row.chunks)
    )
    while open_channels and row.parent_id is not None:
        parent = by_id.get((row.namespace, row.parent_id))
        if parent is None:
            return
        row = parent
        kept[row.namespace, row.checkpoint_id] = row
        open_channels -= set(parse_refs(row.chunks))


def _rows(thread: str) -> Steps[list[Loaded]]:
    ids: Rows = yield "list", thread, None, None, None
    found = []
    for namespace, checkpoint_id in ids:
        loaded = yield "load", thread, namespace, checkpoint_id, checkpoint_id
        if loaded is not None:
            found.append(loaded)
    return found


def _drop(saver: CheckpointSteps, thread: str, doomed: list[Row], kept: list[Row]) -> Steps[None]:
    if not doomed:
        return
    needed = _chunks_of(kept)
    free = _chunks_of(doomed)
    unused = {key: numbers - needed.get(key, set()) for key, numbers in free.items()}
    yield (
        "drop",
        thread,
        [(r.namespace, r.checkpoint_id) for r in doomed],
        {k: n for k, n in unused.items() if n},
    )
    saver.forget(thread)


def _chunks_of(rows: list[Row]) -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        for channel, ranges in parse_refs(row.chunks).items():
            found.setdefault((row.namespace, channel), set()).update(numbers_in(ranges))
    return found


def matches(metadata: Any, wanted: dict[str, Any] | None) -> bool:
    """Whether a checkpoint's metadata has every wanted value."""
    return all(metadata.get(name) == value for name, value in (wanted or {}).items())
