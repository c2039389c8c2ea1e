"""Define the records and operations of every checkpoint backend, for sync and async callers.

A thread consists of *rows* (checkpoints without values), *chunks* (values; written once, never
changed) and *writes* (of tasks, before the next checkpoint). Backends see sealed bytes only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent_runtime.checkpoints.backends.session_table import SessionTable
from agent_runtime.storage.operations import Operation

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


class ChunkConflict(Exception):
    """A chunk of this number exists already: two writers continue one checkpoint.

    Take the next free numbers.
    """


class ParentDeleted(Exception):
    """Report that the checkpoint whose chunks a new one shares has been deleted."""


class CheckpointBackend(ABC):
    """Store checkpoints, the leases of turns and the results of their tools.

    Every operation is atomic, and safe under concurrency and across processes (except memory's). It
    raises StoreError subclasses when the store fails. Those that write to a thread raise
    StaleWriter when their fencing token is outdated, or missing while a lease runs, and
    CheckpointCorrupt when the thread is quarantined.
    """

    # -- checkpoints

    @abstractmethod
    def save(
        self,
        thread: str,
        row: CheckpointRow,
        chunks: Sequence[Chunk],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
        run_id: str | None,
        shared: bool,
    ) -> Operation[None]:
        """Store a checkpoint and its new chunks.

        With a fencing token its parent must be the latest of its namespace, else StaleWriter.
        Raises ChunkConflict for a number that exists, and ParentDeleted when chunks are `shared`
        with a parent that does not.
        """

    @abstractmethod
    def save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: Sequence[Write],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
    ) -> Operation[None]:
        """Store a task's writes; of those with the same index the first one stays."""

    @abstractmethod
    def load(
        self, thread: str, namespace: str, checkpoint_id: str | None, cached_id: str | None
    ) -> Operation[LoadedCheckpoint | None]:
        """Return a checkpoint, by default the latest; without chunks if the caller has its id."""

    @abstractmethod
    def list_checkpoints(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> Operation[Sequence[tuple[str, str]]]:
        """Return namespaces and ids, newest first, of all namespaces by default."""

    @abstractmethod
    def list_threads(self, after: str, limit: int) -> Operation[Sequence[str]]:
        """Return the names of threads in order, from the one after `after`."""

    @abstractmethod
    def threads_of_run(self, run_id: str) -> Operation[Sequence[str]]:
        """Return the threads that a run wrote to."""

    @abstractmethod
    def next_chunk_number(self, thread: str, namespace: str, channel: str) -> Operation[int]:
        """Return a chunk number of a channel that is free, as are all after it."""

    @abstractmethod
    def delete_checkpoints(
        self,
        thread: str,
        keys: Sequence[tuple[str, str]],
        chunks: Mapping[tuple[str, str], Collection[int]],
    ) -> Operation[None]:
        """Delete checkpoints by namespace and id, their writes, and chunks by their numbers."""

    @abstractmethod
    def delete_thread(self, thread: str) -> Operation[None]:
        """Delete everything of a thread but the count of its fencing tokens."""

    @abstractmethod
    def quarantine(self, thread: str, location: str, data: bytes) -> Operation[None]:
        """Store a copy of damaged data, and refuse writes to the thread from now on."""

    @abstractmethod
    def quarantined_blobs(self, thread: str) -> Operation[Sequence[tuple[str, bytes]]]:
        """Return the damaged data of a thread with its location."""

    # -- the leases of turns

    @abstractmethod
    def acquire_lease(self, thread: str, owner: str, ttl_s: float) -> Operation[Lease | None]:
        """Return a lease with the next fencing token, or None while another one runs."""

    @abstractmethod
    def renew_lease(self, lease: Lease, ttl_s: float) -> Operation[bool]:
        """Extend a lease; False when it was lost."""

    @abstractmethod
    def release_lease(self, lease: Lease, clean: bool) -> Operation[None]:
        """End a lease; the next one reports whether it ended `clean`."""

    @abstractmethod
    def revoke_lease(self, thread: str) -> Operation[None]:
        """End any lease of a thread: its owner may write no more, and the next one is not clean."""

    # -- the tool calls of turns

    @abstractmethod
    def start_tool_call(
        self, thread: str, key: str, fencing_token: FencingToken | None
    ) -> Operation[bytes | None]:
        """Record that a tool call starts: None for a new one, else its result, empty without."""

    @abstractmethod
    def record_tool_result(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> Operation[None]:
        """Store a tool call's result; None forgets the call."""

    @abstractmethod
    def tool_results(self, thread: str) -> Operation[Mapping[str, bytes]]:
        """Return the recorded results by key; those of unfinished calls are empty."""

    @abstractmethod
    def forget_tool_calls(self, thread: str, fencing_token: FencingToken | None) -> Operation[None]:
        """Forget all tool calls of a thread."""

    # -- session records

    @property
    @abstractmethod
    def sessions(self) -> SessionTable:
        """Return the table of session records."""

    async def aclose(self) -> None:  # noqa: B027 - memory has nothing to close
        """Close the resources that were opened here."""
