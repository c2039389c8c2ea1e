"""Records in this process's memory: gone with it."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from agent_runtime.checkpoints.backends.backend import (
    CheckpointBackend,
    CheckpointRow,
    Chunk,
    ChunkConflict,
    FencingToken,
    Lease,
    LoadedCheckpoint,
    ParentDeleted,
    SessionRow,
    Write,
)
from agent_runtime.checkpoints.chunk_refs import numbers_in, parse_refs
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.deletion_clock import ProcessClock


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


class MemoryCheckpointBackend(CheckpointBackend):
    """Run every operation under one lock; none waits, so async callers run it inline."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._clock = ProcessClock()
        self._threads_by_name: dict[str, _ThreadData] = {}
        self._leases: dict[str, tuple[str, int, float]] = {}  # owner, token, until (monotonic)
        self._session_rows: dict[str, SessionRow] = {}
        self._session_order: dict[
            tuple[str, str | None], list[tuple[float, str]]
        ] = {}  # of a tenant, of its users

    def call(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name."""
        with self._lock:
            return getattr(self, f"_{operation}")(*args)

    async def acall(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name."""
        return self.call(operation, *args)

    # -- checkpoints

    def _save(
        self,
        thread: str,
        row: CheckpointRow,
        chunks: list[Chunk],
        fencing_token: FencingToken | None,
        ttl_s: Any,
        run_id: Any,
        shared: Any,
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

    def _save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: list[Write],
        fencing_token: FencingToken | None,
        ttl_s: Any,
    ) -> None:
        thread_data = self._writable_thread(thread, fencing_token)
        checkpoint_writes = thread_data.writes.setdefault((namespace, checkpoint_id), {})
        for write in writes:
            if write.index < 0 or (write.task_id, write.index) not in checkpoint_writes:
                checkpoint_writes[write.task_id, write.index] = write
        self._set_expiry(thread_data, ttl_s)

    def _load(
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

    def _list(
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

    def _threads(self, after: str, limit: int) -> Iterable[str]:
        return sorted(name for name in self._threads_by_name if name > after)[:limit]

    def _threads_of_run(self, run_id: str) -> Iterable[str]:
        return [
            name
            for name, thread_data in self._threads_by_name.items()
            if run_id in thread_data.runs
        ]

    def _next_number(self, thread: str, namespace: str, channel: str) -> int:
        thread_data = self._live_thread(thread) or _ThreadData()
        return max(
            (n + 1 for ns, c, n in thread_data.chunks if (ns, c) == (namespace, channel)), default=0
        )

    def _drop(self, thread: str, rows: Any, chunks: dict[tuple[str, str], set[int]]) -> None:
        thread_data = self._live_thread(thread)
        if thread_data is None:
            return
        for namespace, checkpoint_id in rows:
            if thread_data.rows.pop((namespace, checkpoint_id), None) is not None:
                thread_data.ids[namespace].remove(checkpoint_id)
            thread_data.writes.pop((namespace, checkpoint_id), None)
        for (namespace, channel), numbers in chunks.items():
            for number in numbers:
                thread_data.chunks.pop((namespace, channel, number), None)

    def _delete_thread(self, thread: str) -> None:
        self._threads_by_name.pop(thread, None)

    def _quarantine(self, thread: str, location: str, data: bytes) -> None:
        quarantine = self._threads_by_name.setdefault(thread, _ThreadData()).quarantine
        if all(quarantined_location != location for quarantined_location, _ in quarantine):
            quarantine.append((location, data))

    def _quarantined(self, thread: str) -> Any:
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

    def _acquire(self, thread: str, owner: str, ttl_s: float) -> Lease | None:
        previous_owner, token, until = self._leases.get(thread, ("", 0, 0.0))
        if until > time.monotonic():
            return None
        self._leases[thread] = (owner, token + 1, time.monotonic() + ttl_s)
        return Lease(thread, owner, token + 1, clean_shutdown=previous_owner == "")

    def _renew(self, lease: Lease, ttl_s: float) -> bool:
        owner, token, _ = self._leases.get(lease.thread, ("", 0, 0.0))
        if (owner, token) != (lease.owner, lease.token):
            return False
        self._leases[lease.thread] = (owner, token, time.monotonic() + ttl_s)
        return True

    def _release(self, lease: Lease, clean: bool) -> None:
        if self._leases.get(lease.thread, ("", 0, 0.0))[1] == lease.token:
            self._leases[lease.thread] = ("" if clean else lease.owner, lease.token, 0.0)

    def _seize(self, thread: str) -> None:
        _, token, _ = self._leases.get(thread, ("", 0, 0.0))
        self._leases[thread] = ("", token + 1, 0.0)

    def _tool_start(
        self, thread: str, key: str, fencing_token: FencingToken | None
    ) -> bytes | None:
        tools = self._writable_thread(thread, fencing_token).tools
        if key in tools:
            return tools[key]
        tools[key] = b""
        return None

    def _tool_put(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> None:
        tools = self._writable_thread(thread, fencing_token).tools
        if result is None:
            tools.pop(key, None)
        else:
            tools[key] = result

    def _tool_list(self, thread: str) -> dict[str, bytes]:
        thread_data = self._threads_by_name.get(thread)
        return {} if thread_data is None else dict(thread_data.tools)

    def _tool_forget(self, thread: str, fencing_token: FencingToken | None) -> None:
        self._writable_thread(thread, fencing_token).tools.clear()

    # -- session records

    def _put_session(self, row: SessionRow, old: SessionRow | None) -> bool:
        if self._session_rows.get(row.key) != old:
            return False
        self._session_rows[row.key] = row
        for owner in ((row.tenant, None), (row.tenant, row.user)):
            order = self._session_order.setdefault(owner, [])
            sort_key = (row.created_at, row.key)
            position = bisect.bisect_left(order, sort_key)
            is_listed = position < len(order) and order[position] == sort_key
            if row.deleted_reason and is_listed:
                del order[position]
            elif not row.deleted_reason and not is_listed:
                order.insert(position, sort_key)
        return True

    def _get_session(self, key: str) -> SessionRow | None:
        return self._session_rows.get(key)

    def _page_sessions(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Iterable[SessionRow]:
        order = self._session_order.get((tenant, user), [])
        end = len(order) if before is None else bisect.bisect_left(order, before)
        return [self._session_rows[key] for _, key in reversed(order[max(0, end - limit) : end])]

    def _expired_sessions(self, limit: int) -> Iterable[SessionRow]:
        now = self._clock.deletion_time()
        due = (
            r
            for r in self._session_rows.values()
            if not r.deleted_reason and r.expires_at is not None and r.expires_at <= now
        )
        return list(islice(due, limit))
