"""Define the records and operations of every checkpoint backend, for sync and async callers.

A thread consists of *rows* (checkpoints without values), *chunks* (values; written once, never
changed) and *writes* (of tasks, before the next checkpoint). Backends see sealed bytes only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SEPARATOR = "\x1f"
"""Between the parts of a key; no id, namespace or channel may contain it."""


class Chunk(NamedTuple):
    """One piece of a channel's value: the `number`-th of this channel. `data` is sealed."""

    channel: str
    number: int
    data: bytes


class Write(NamedTuple):
    """Describe one write of a task.

    An `index` below 0 marks a special one, which replaces the last.
    """

    task_id: str
    index: int  # type: ignore[assignment]  # shadows tuple.index, which is not used
    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class FencingToken:
    """Identify the turn that writes by the fencing `token` of its lease."""

    value: int


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """Describe a checkpoint: sealed `data`, and the `chunks` with its values (ChunkRefs)."""

    namespace: str
    checkpoint_id: str
    parent_id: str | None
    chunks: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A row with its writes, and its chunks unless the caller has them already."""

    row: CheckpointRow
    writes: list[Write]
    chunks: dict[tuple[str, int], bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """Grant the right to write to a thread until `ttl_s` from its last renewal.

    `token` grows with every lease. `clean_shutdown`: the previous lease was released; otherwise its
    owner died during a turn.
    """

    thread: str
    owner: str
    token: int
    clean_shutdown: bool = True


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session's record: `data` is sealed, the rest is for finding it.

    Times are seconds since the epoch.
    """

    key: str
    tenant: str
    user: str
    created_at: float
    expires_at: float | None
    data: bytes
    deleted_reason: str = ""


class ChunkConflict(Exception):
    """A chunk of this number exists already: two writers continue one checkpoint.

    Take the next free numbers.
    """


class ParentDeleted(Exception):
    """Report that the checkpoint whose chunks a new one shares has been deleted."""


class CheckpointBackend(ABC):
    """Store checkpoints.

    All operations are atomic, and safe under concurrency and across processes (except memory).
    `call` runs one for a sync caller, `acall` for an async one without blocking. Raises StoreError
    subclasses when the store fails, StaleWriter when a fencing token is outdated (or missing under
    a lease), ChunkConflict.
    """

    @abstractmethod
    def call(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name and return its result."""

    @abstractmethod
    async def acall(self, operation: str, *args: Any) -> Any:
        """Run `call` for async callers."""

    async def aclose(self) -> None:  # noqa: B027 - memory has nothing to close
        """Close the resources that were opened here."""


OPERATIONS: dict[str, str] = {
    "save": "(thread, row, chunks, guard, ttl_s, run_id, shared) -> None; with a guard the "
    "parent is the head",
    "save_writes": "(thread, namespace, checkpoint_id, writes, guard, ttl_s) -> None",
    "load": "(thread, namespace, checkpoint_id or None for the latest, known checkpoint_id) -> "
    "Loaded or None",
    "list": "(thread, namespace or None for all, before id or None, limit or None) -> "
    "[(namespace, id)], newest first",
    "threads": "(after, limit) -> thread names in order, from the one after `after`",
    "threads_of_run": "(run_id) -> thread names that the run wrote to",
    "next_number": "(thread, namespace, channel) -> the first chunk number that is free",
    "drop": "(thread, [(namespace, id)], {(namespace, channel): {numbers}}) -> None; rows, their "
    "writes, and chunks",
    "delete_thread": "(thread) -> None",
    "quarantine": "(thread, place, data) -> None; keeps a copy, and refuses writes to the thread "
    "from now on",
    "quarantined": "(thread) -> [(place, data)]",
    "acquire": "(thread, owner, ttl_s) -> Lease, or None while another one holds it",
    "renew": "(lease, ttl_s) -> bool",
    "release": "(lease, clean) -> None; not clean: the next lease says so",
    "seize": "(thread) -> None; ends whatever lease there is: its holder may write no more",
    "tool_start": "(thread, key, guard) -> None when it is new, else the recorded result: empty "
    "bytes, or its result",
    "tool_put": "(thread, key, result or None, guard) -> None; None forgets the call",
    "tool_list": "(thread) -> {key: result, or empty bytes}",
    "tool_forget": "(thread, guard) -> None",
    "put_session": "(SessionRow, SessionRow that it replaces, None when it must be new) -> bool: "
    "whether that was so",
    "get_session": "(key) -> SessionRow or None",
    "page_sessions": "(tenant, user or None, before (created_at, key) or None, limit) -> "
    "[SessionRow], newest first",
    "expired_sessions": "(limit) -> [SessionRow] that may be deleted, by the store's clock of "
    "deletions",
}
"""The operations by name, with their arguments.

Each backend has a method of this name, after an underscore.
"""
