"""Store checkpoints in the memory of this process, which ends with it."""

from __future__ import annotations

import bisect
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from typing_extensions import override

from agent_runtime.checkpoints.backends.backend import (
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
from agent_runtime.checkpoints.backends.session_table import SessionRow, SessionTable
from agent_runtime.checkpoints.chunk_refs import numbers_in, parse_refs
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.deletion_clock import ProcessClock
from agent_runtime.storage.operations import InlineStore, operation


@dataclass
class _ThreadData:
    rows: dict[tuple[str, str], CheckpointRow] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    writes: dict[tuple[str, str], dict[tuple[str, int], Write]] = field(default_factory=dict)
    chunks: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    quarantine: list[tuple[str, bytes]] = field(default_factory=list)
    tools: dict[str, bytes] = field(default_factory=dict)
    expires_at: float | None = None


class MemoryCheckpointBackend(InlineStore, CheckpointBackend):
    """Store checkpoints in this process; no operation waits."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = ProcessClock()
        self._threads_by_name: dict[str, _ThreadData] = {}
        self._leases: dict[str, tuple[str, int, float]] = {}  # owner, token, until (monotonic)
        self._sessions = MemorySessionTable()

    # -- checkpoints

    @override
    @operation
    def save(
        self,
        thread: str,
        row: CheckpointRow,
        chunks: Sequence[Chunk],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
        run_id: str | None,
        shared: bool,
    ) -> None:
        thread_data = self._writable_thread(thread, fencing_token)
        ids = thread_data.ids.setdefault(row.namespace, [])
        if fencing_token and row.namespace == "" and (ids[-1] if ids else None) != row.parent_id:
            raise StaleWriter("the head of the session is another than this turn continues")
        if shared and row.parent_id and (row.namespace, row.parent_id) not in thread_data.rows:
            raise ParentDeleted
        if any((row.namespace, c.channel, c.number) in thread_data.chunks for c in chunks):
            raise ChunkConflict
        for chunk in chunks:
            thread_data.chunks[row.namespace, chunk.channel, chunk.number] = chunk.data
        if (row.namespace, row.checkpoint_id) not in thread_data.rows:
            bisect.insort(ids, row.checkpoint_id)
        thread_data.rows[row.namespace, row.checkpoint_id] = row
        if run_id is not None:
            thread_data.runs.add(run_id)
        self._set_expiry(thread_data, ttl_s)

    @override
    @operation
    def save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: Sequence[Write],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
    ) -> None:
        thread_data = self._writable_thread(thread, fencing_token)
        checkpoint_writes = thread_data.writes.setdefault((namespace, checkpoint_id), {})
        for write in writes:
            if write.index < 0 or (write.task_id, write.index) not in checkpoint_writes:
                checkpoint_writes[write.task_id, write.index] = write
        self._set_expiry(thread_data, ttl_s)

    @override
    @operation
    def load(
        self, thread: str, namespace: str, checkpoint_id: str | None, cached_id: str | None
    ) -> LoadedCheckpoint | None:
        thread_data = self._live_thread(thread)
        if thread_data is None:
            return None
        ids = thread_data.ids.get(namespace)
        selected_id = checkpoint_id or (ids[-1] if ids else None)
        row = thread_data.rows.get((namespace, selected_id or ""))
        if row is None:
            return None
        writes = list(thread_data.writes.get((namespace, row.checkpoint_id), {}).values())
        if cached_id == row.checkpoint_id:
            return LoadedCheckpoint(row, writes)
        refs = parse_refs(row.chunks)
        data_by_chunk = {
            (c, n): thread_data.chunks.get((namespace, c, n))
            for c, ranges in refs.items()
            for n in numbers_in(ranges)
        }
        return LoadedCheckpoint(
            row, writes, {key: data for key, data in data_by_chunk.items() if data is not None}
        )

    @override
    @operation
    def list_checkpoints(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> list[tuple[str, str]]:
        thread_data = self._live_thread(thread)
        if thread_data is None:
            return []
        checkpoint_keys = [
            (ns, i) for ns, ids in thread_data.ids.items() if namespace in (None, ns) for i in ids
        ]
        checkpoint_keys = sorted(
            (e for e in checkpoint_keys if before is None or e[1] < before),
            key=lambda e: e[1],
            reverse=True,
        )
        return checkpoint_keys[:limit]

    @override
    @operation
    def list_threads(self, after: str, limit: int) -> Sequence[str]:
        return sorted(name for name in self._threads_by_name if name > after)[:limit]

    @override
    @operation
    def threads_of_run(self, run_id: str) -> Sequence[str]:
        return [
            name
            for name, thread_data in self._threads_by_name.items()
            if run_id in thread_data.runs
        ]

    @override
    @operation
    def next_chunk_number(self, thread: str, namespace: str, channel: str) -> int:
        thread_data = self._live_thread(thread) or _ThreadData()
        return max(
            (n + 1 for ns, c, n in thread_data.chunks if (ns, c) == (namespace, channel)), default=0
        )

    @override
    @operation
    def delete_checkpoints(
        self,
        thread: str,
        keys: Sequence[tuple[str, str]],
        chunks: Mapping[tuple[str, str], Collection[int]],
    ) -> None:
        thread_data = self._live_thread(thread)
        if thread_data is None:
            return
        for namespace, checkpoint_id in keys:
            if thread_data.rows.pop((namespace, checkpoint_id), None) is not None:
                thread_data.ids[namespace].remove(checkpoint_id)
            thread_data.writes.pop((namespace, checkpoint_id), None)
        for (namespace, channel), numbers in chunks.items():
            for number in numbers:
                thread_data.chunks.pop((namespace, channel, number), None)

    @override
    @operation
    def delete_thread(self, thread: str) -> None:
        self._threads_by_name.pop(thread, None)

    @override
    @operation
    def quarantine(self, thread: str, location: str, data: bytes) -> None:
        quarantine = self._threads_by_name.setdefault(thread, _ThreadData()).quarantine
        if all(quarantined_location != location for quarantined_location, _ in quarantine):
            quarantine.append((location, data))

    @override
    @operation
    def quarantined_blobs(self, thread: str) -> Any:
        thread_data = self._live_thread(thread)
        return [] if thread_data is None else thread_data.quarantine[:]

    def _live_thread(self, thread: str) -> _ThreadData | None:
        thread_data = self._threads_by_name.get(thread)
        if (
            thread_data is not None
            and thread_data.expires_at is not None
            and thread_data.expires_at <= self._clock.deletion_time()
        ):
            del self._threads_by_name[thread]
            return None
        return thread_data

    def _writable_thread(self, thread: str, fencing_token: FencingToken | None) -> _ThreadData:
        _, token, until = self._leases.get(thread, ("", 0, 0.0))
        if fencing_token is not None and fencing_token.value != token:
            raise StaleWriter("another writer has the session")
        if fencing_token is None and until > time.monotonic():
            raise StaleWriter("a turn of the session is running")
        thread_data = self._live_thread(thread) or self._threads_by_name.setdefault(
            thread, _ThreadData()
        )
        if thread_data.quarantine:
            raise CheckpointCorrupt(
                thread_data.quarantine[0][0], "the session is quarantined and takes no writes"
            )
        return thread_data

    @staticmethod
    def _set_expiry(thread_data: _ThreadData, ttl_s: float | None) -> None:
        thread_data.expires_at = None if ttl_s is None else time.time() + ttl_s

    # -- turns and tools

    @override
    @operation
    def acquire_lease(self, thread: str, owner: str, ttl_s: float) -> Lease | None:
        previous_owner, token, until = self._leases.get(thread, ("", 0, 0.0))
        if until > time.monotonic():
            return None
        self._leases[thread] = (owner, token + 1, time.monotonic() + ttl_s)
        return Lease(thread, owner, token + 1, clean_shutdown=previous_owner == "")

    @override
    @operation
    def renew_lease(self, lease: Lease, ttl_s: float) -> bool:
        owner, token, _ = self._leases.get(lease.thread, ("", 0, 0.0))
        if (owner, token) != (lease.owner, lease.token):
            return False
        self._leases[lease.thread] = (owner, token, time.monotonic() + ttl_s)
        return True

    @override
    @operation
    def release_lease(self, lease: Lease, clean: bool) -> None:
        if self._leases.get(lease.thread, ("", 0, 0.0))[1] == lease.token:
            self._leases[lease.thread] = ("" if clean else lease.owner, lease.token, 0.0)

    @override
    @operation
    def revoke_lease(self, thread: str) -> None:
        # The owner stays: its turn was cut, which the next lease reports.
        owner, token, _ = self._leases.get(thread, ("", 0, 0.0))
        self._leases[thread] = (owner, token + 1, 0.0)

    @override
    @operation
    def start_tool_call(
        self, thread: str, key: str, fencing_token: FencingToken | None
    ) -> bytes | None:
        tools = self._writable_thread(thread, fencing_token).tools
        if key in tools:
            return tools[key]
        tools[key] = b""
        return None

    @override
    @operation
    def record_tool_result(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> None:
        tools = self._writable_thread(thread, fencing_token).tools
        if result is None:
            tools.pop(key, None)
        else:
            tools[key] = result

    @override
    @operation
    def tool_results(self, thread: str) -> dict[str, bytes]:
        thread_data = self._threads_by_name.get(thread)
        return {} if thread_data is None else dict(thread_data.tools)

    @override
    @operation
    def forget_tool_calls(self, thread: str, fencing_token: FencingToken | None) -> None:
        self._writable_thread(thread, fencing_token).tools.clear()

    @property
    @override
    def sessions(self) -> MemorySessionTable:
        return self._sessions


class MemorySessionTable(InlineStore, SessionTable):
    """Store session records in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = ProcessClock()
        self._rows: dict[str, SessionRow] = {}
        self._order: dict[
            tuple[str, str | None], list[tuple[float, str]]
        ] = {}  # of a tenant, of its users

    @override
    @operation
    def put(self, row: SessionRow, old: SessionRow | None) -> bool:
        if self._rows.get(row.key) != old:
            return False
        self._rows[row.key] = row
        for owner in ((row.tenant, None), (row.tenant, row.user)):
            order = self._order.setdefault(owner, [])
            sort_key = (row.created_at, row.key)
            position = bisect.bisect_left(order, sort_key)
            is_listed = position < len(order) and order[position] == sort_key
            if row.deleted_reason and is_listed:
                del order[position]
            elif not row.deleted_reason and not is_listed:
                order.insert(position, sort_key)
        return True

    @override
    @operation
    def get(self, key: str) -> SessionRow | None:
        return self._rows.get(key)

    @override
    @operation
    def page(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Sequence[SessionRow]:
        order = self._order.get((tenant, user), [])
        end = len(order) if before is None else bisect.bisect_left(order, before)
        return [self._rows[key] for _, key in reversed(order[max(0, end - limit) : end])]

    @override
    @operation
    def list_expired(self, limit: int) -> Sequence[SessionRow]:
        now = self._clock.deletion_time()
        due = (
            r
            for r in self._rows.values()
            if not r.deleted_reason and r.expires_at is not None and r.expires_at <= now
        )
        return list(islice(due, limit))
