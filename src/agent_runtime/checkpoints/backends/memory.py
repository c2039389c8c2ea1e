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
    Chunk,
    ChunkTaken,
    Guard,
    Lease,
    Loaded,
    ParentGone,
    Records,
    Row,
    SessionRow,
    Write,
)
from agent_runtime.checkpoints.chunk_refs import numbers_in, parse_refs
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.deletion_clock import ProcessClock


@dataclass
class _Thread:
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    writes: dict[tuple[str, str], dict[tuple[str, int], Write]] = field(default_factory=dict)
    chunks: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    quarantine: list[tuple[str, bytes]] = field(default_factory=list)
    tools: dict[str, bytes] = field(default_factory=dict)
    expires_at: float | None = None


class MemoryRecords(Records):
    """Every operation under one lock; none waits, so async callers run it directly."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._clock = ProcessClock()
        self._by_name: dict[str, _Thread] = {}
        self._leases: dict[str, tuple[str, int, float]] = {}  # owner, token, until (monotonic)
        self._records: dict[str, SessionRow] = {}
        self._order: dict[
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
    # ---------------------------------------------------------------------------------------

    def _save(
        self,
        thread: str,
        row: Row,
        chunks: list[Chunk],
        guard: Guard | None,
        ttl_s: Any,
        run_id: Any,
        shared: Any,
    ) -> None:
        found = self._writable(thread, guard)
        ids = found.ids.setdefault(row.namespace, [])
        if guard and row.namespace == "" and (ids[-1] if ids else None) != row.parent_id:
            raise StaleWriter("the head of the session is another than this turn continues")
        if shared and row.parent_id and (row.namespace, row.parent_id) not in found.rows:
            raise ParentGone
        if any((row.namespace, c.channel, c.number) in found.chunks for c in chunks):
            raise ChunkTaken
        for chunk in chunks:
            found.chunks[row.namespace, chunk.channel, chunk.number] = chunk.data
        if (row.namespace, row.checkpoint_id) not in found.rows:
            bisect.insort(ids, row.checkpoint_id)
        found.rows[row.namespace, row.checkpoint_id] = row
        if run_id is not None:
            found.runs.add(run_id)
        self._touch(found, ttl_s)

    def _save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: list[Write],
        guard: Guard | None,
        ttl_s: Any,
    ) -> None:
        found = self._writable(thread, guard)
        kept = found.writes.setdefault((namespace, checkpoint_id), {})
        for write in writes:
            if write.index < 0 or (write.task_id, write.index) not in kept:
                kept[write.task_id, write.index] = write
        self._touch(found, ttl_s)

    def _load(
        self, thread: str, namespace: str, checkpoint_id: str | None, known: str | None
    ) -> Loaded | None:
        found = self._alive(thread)
        if found is None:
            return None
        ids = found.ids.get(namespace)
        wanted = checkpoint_id or (ids[-1] if ids else None)
        row = found.rows.get((namespace, wanted or ""))
        if row is None:
            return None
        writes = list(found.writes.get((namespace, row.checkpoint_id), {}).values())
        if known == row.checkpoint_id:
            return Loaded(row, writes)
        refs = parse_refs(row.chunks)
        kept = {
            (c, n): found.chunks.get((namespace, c, n))
            for c, ranges in refs.items()
            for n in numbers_in(ranges)
        }
        return Loaded(row, writes, {key: data for key, data in kept.items() if data is not None})

    def _list(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> list[tuple[str, str]]:
        found = self._alive(thread)
        if found is None:
            return []
        every = [(ns, i) for ns, ids in found.ids.items() if namespace in (None, ns) for i in ids]
        every = sorted(
            (e for e in every if before is None or e[1] < before), key=lambda e: e[1], reverse=True
        )
        return every[:limit]

    def _threads(self, after: str, limit: int) -> Iterable[str]:
        return sorted(name for name in self._by_name if name > after)[:limit]

    def _threads_of_run(self, run_id: str) -> Iterable[str]:
        return [name for name, found in self._by_name.items() if run_id in found.runs]

    def _next_number(self, thread: str, namespace: str, channel: str) -> int:
        found = self._alive(thread) or _Thread()
        return max(
            (n + 1 for ns, c, n in found.chunks if (ns, c) == (namespace, channel)), default=0
        )

    def _drop(self, thread: str, rows: Any, chunks: dict[tuple[str, str], set[int]]) -> None:
        found = self._alive(thread)
        if found is None:
            return
        for namespace, checkpoint_id in rows:
            if found.rows.pop((namespace, checkpoint_id), None) is not None:
                found.ids[namespace].remove(checkpoint_id)
            found.writes.pop((namespace, checkpoint_id), None)
        for (namespace, channel), numbers in chunks.items():
            for number in numbers:
                found.chunks.pop((namespace, channel, number), None)

    def _delete_thread(self, thread: str) -> None:
        self._by_name.pop(thread, None)

    def _quarantine(self, thread: str, place: str, data: bytes) -> None:
        kept = self._by_name.setdefault(thread, _Thread()).quarantine
        if all(known != place for known, _ in kept):
            kept.append((place, data))

    def _quarantined(self, thread: str) -> Any:
        found = self._alive(thread)
        return [] if found is None else found.quarantine[:]

    def _alive(self, thread: str) -> _Thread | None:
        found = self._by_name.get(thread)
        if (
            found is not None
            and found.expires_at is not None
            and found.expires_at <= self._clock.deletion_time()
        ):
            del self._by_name[thread]
            return None
        return found

    def _writable(self, thread: str, guard: Guard | None) -> _Thread:
        _, token, until = self._leases.get(thread, ("", 0, 0.0))
        if guard is not None and guard.token != token:
            raise StaleWriter("another writer has the session")
        if guard is None and until > time.monotonic():
            raise StaleWriter("a turn of the session is running")
        found = self._alive(thread) or self._by_name.setdefault(thread, _Thread())
        if found.quarantine:
            raise CheckpointCorrupt(
                found.quarantine[0][0], "the session is quarantined and takes no writes"
            )
        return found

    @staticmethod
    def _touch(found: _Thread, ttl_s: float | None) -> None:
        found.expires_at = None if ttl_s is None else time.time() + ttl_s

    # -- turns and tools
    # -----------------------------------------------------------------------------------

    def _acquire(self, thread: str, owner: str, ttl_s: float) -> Lease | None:
        before, token, until = self._leases.get(thread, ("", 0, 0.0))
        if until > time.monotonic():
            return None
        self._leases[thread] = (owner, token + 1, time.monotonic() + ttl_s)
        return Lease(thread, owner, token + 1, clean=before == "")

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

    def _tool_start(self, thread: str, key: str, guard: Guard | None) -> bytes | None:
        tools = self._writable(thread, guard).tools
        if key in tools:
            return tools[key]
        tools[key] = b""
        return None

    def _tool_put(self, thread: str, key: str, result: bytes | None, guard: Guard | None) -> None:
        tools = self._writable(thread, guard).tools
        if result is None:
            tools.pop(key, None)
        else:
            tools[key] = result

    def _tool_list(self, thread: str) -> dict[str, bytes]:
        found = self._by_name.get(thread)
        return {} if found is None else dict(found.tools)

    def _tool_forget(self, thread: str, guard: Guard | None) -> None:
        self._writable(thread, guard).tools.clear()

    # -- session records
    # -----------------------------------------------------------------------------------

    def _put_session(self, row: SessionRow, old: SessionRow | None) -> bool:
        if self._records.get(row.key) != old:
            return False
        self._records[row.key] = row
        for owner in ((row.tenant, None), (row.tenant, row.user)):
            order = self._order.setdefault(owner, [])
            place = (row.created_at, row.key)
            at = bisect.bisect_left(order, place)
            there = at < len(order) and order[at] == place
            if row.gone and there:
                del order[at]
            elif not row.gone and not there:
                order.insert(at, place)
        return True

    def _get_session(self, key: str) -> SessionRow | None:
        return self._records.get(key)

    def _page_sessions(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Iterable[SessionRow]:
        order = self._order.get((tenant, user), [])
        end = len(order) if before is None else bisect.bisect_left(order, before)
        return [self._records[key] for _, key in reversed(order[max(0, end - limit) : end])]

    def _expired_sessions(self, limit: int) -> Iterable[SessionRow]:
        now = self._clock.deletion_time()
        due = (
            r
            for r in self._records.values()
            if not r.gone and r.expires_at is not None and r.expires_at <= now
        )
        return list(islice(due, limit))
