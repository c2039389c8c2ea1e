"""Check that a checkpoint backend conforms, in any test suite.

    @pytest.mark.parametrize("check", CHECKPOINT_CHECKS)
    async def test_my_backend(check):
        await run_checkpoint_check(check, lambda: MyBackend(fresh_name))

`open_backend` opens an empty backend, once. A check raises AssertionError. LangGraph's own suite
(`langgraph-checkpoint-conformance`) checks the saver on top: `Checkpointer(MyBackend(...))`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from agent_runtime.checkpoints.backends.backend import (
    CheckpointBackend,
    CheckpointRow,
    Chunk,
    ChunkConflict,
    FencingToken,
    Lease,
    ParentDeleted,
    Write,
)
from agent_runtime.checkpoints.backends.session_table import SessionRow
from agent_runtime.checkpoints.chunk_refs import format_refs
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.testing.conformance.checks import assert_raises, run_store_check

CheckpointCheck = Callable[[CheckpointBackend], Awaitable[None]]
THREAD = "acme:t"


def checkpoint_row(
    checkpoint_id: str, parent_id: str | None = None, *, chunks: str = "", namespace: str = ""
) -> CheckpointRow:
    """Return a checkpoint's row; `chunks` are references, as `chunk_refs` formats them."""
    return CheckpointRow(
        namespace, checkpoint_id, parent_id, chunks, f"row {checkpoint_id}".encode()
    )


async def _save(
    backend: CheckpointBackend,
    row: CheckpointRow,
    chunks: Sequence[Chunk] = (),
    token: FencingToken | None = None,
    *,
    thread: str = THREAD,
    run_id: str | None = None,
    shared: bool = False,
    ttl_s: float | None = None,
) -> None:
    await backend.save(thread, row, chunks, token, ttl_s, run_id, shared)


def session_row(name: str, created_at: float, *, user: str = "ada") -> SessionRow:
    """Return a session's record."""
    return SessionRow(f"acme:{name}", "acme", user, created_at, None, name.encode())


def _refs(amount: int) -> str:
    return format_refs({"messages": ((0, amount - 1),)})


async def _lease(backend: CheckpointBackend, thread: str = THREAD, ttl_s: float = 60.0) -> Lease:
    lease = await backend.acquire_lease(thread, "owner", ttl_s)
    assert lease is not None
    return lease


async def a_checkpoint_comes_back_with_its_chunks(backend: CheckpointBackend) -> None:
    """Check the latest and an earlier checkpoint, which share a chunk."""
    first = checkpoint_row("1", chunks=_refs(1))
    second = checkpoint_row("2", "1", chunks=_refs(2))
    assert await backend.load(THREAD, "", None, None) is None
    await _save(backend, first, [Chunk("messages", 0, b"zero")])
    await _save(backend, second, [Chunk("messages", 1, b"one")], shared=True)
    loaded = await backend.load(THREAD, "", None, None)
    assert loaded is not None
    assert loaded.row == second
    assert loaded.chunks == {("messages", 0): b"zero", ("messages", 1): b"one"}
    earlier = await backend.load(THREAD, "", "1", None)
    assert earlier is not None
    assert (earlier.row, earlier.chunks) == (first, {("messages", 0): b"zero"})
    cached = await backend.load(THREAD, "", None, "2")
    assert cached is not None
    assert (cached.row, cached.chunks) == (second, {})
    assert await backend.load(THREAD, "", "3", None) is None
    assert await backend.load("acme:other", "", None, None) is None


async def a_chunk_is_written_once(backend: CheckpointBackend) -> None:
    """Check that a second writer of a number is told, and that nothing of it is stored."""
    await _save(backend, checkpoint_row("1", chunks=_refs(1)), [Chunk("messages", 0, b"zero")])
    conflict = _save(backend, checkpoint_row("2", "1"), [Chunk("messages", 0, b"other")])
    await assert_raises(ChunkConflict, conflict)
    assert await backend.load(THREAD, "", "2", None) is None
    assert await backend.next_chunk_number(THREAD, "", "messages") == 1
    assert await backend.next_chunk_number(THREAD, "", "other") == 0
    assert await backend.next_chunk_number("acme:other", "", "messages") == 0


async def chunks_of_a_deleted_parent_are_not_shared(backend: CheckpointBackend) -> None:
    """Check that a checkpoint whose parent is gone is refused."""
    await _save(backend, checkpoint_row("1", chunks=_refs(1)), [Chunk("messages", 0, b"zero")])
    await backend.delete_thread(THREAD)
    orphan = checkpoint_row("2", "1", chunks=_refs(2))
    await assert_raises(
        ParentDeleted, _save(backend, orphan, [Chunk("messages", 1, b"one")], shared=True)
    )
    await _save(backend, checkpoint_row("2", "1"))


async def writes_of_a_task_come_back(backend: CheckpointBackend) -> None:
    """Check that the first write of an index stays, and that special ones replace each other."""
    await _save(backend, checkpoint_row("1"))
    writes = [Write("task", 0, "p", b"a"), Write("task", 1, "", b"b"), Write("task", -1, "", b"c")]
    await backend.save_writes(THREAD, "", "1", writes, None, None)
    repeated = [Write("task", 0, "p", b"x"), Write("task", -1, "", b"d"), Write("two", 0, "", b"e")]
    await backend.save_writes(THREAD, "", "1", repeated, None, None)
    loaded = await backend.load(THREAD, "", None, "1")
    assert loaded is not None
    assert sorted(loaded.writes) == [
        Write("task", -1, "", b"d"),
        Write("task", 0, "p", b"a"),
        Write("task", 1, "", b"b"),
        Write("two", 0, "", b"e"),
    ]


async def checkpoints_and_threads_are_listed(backend: CheckpointBackend) -> None:
    """Check namespaces, pages, and the threads of a run."""
    for number in range(1, 5):
        await _save(backend, checkpoint_row(str(number)), run_id="run 1")
    await _save(backend, checkpoint_row("9", namespace="inner"), run_id="run 2")
    await _save(backend, checkpoint_row("1"), thread="acme:u", run_id="run 2")
    keys = await backend.list_checkpoints(THREAD, None, None, None)
    assert list(keys) == [("inner", "9"), ("", "4"), ("", "3"), ("", "2"), ("", "1")]
    assert list(await backend.list_checkpoints(THREAD, "", "4", 2)) == [("", "3"), ("", "2")]
    assert list(await backend.list_threads("", 10)) == [THREAD, "acme:u"]
    assert list(await backend.list_threads(THREAD, 10)) == ["acme:u"]
    assert list(await backend.list_threads("", 1)) == [THREAD]
    assert sorted(await backend.threads_of_run("run 2")) == [THREAD, "acme:u"]
    assert list(await backend.threads_of_run("run 3")) == []


async def checkpoints_and_chunks_are_deleted(backend: CheckpointBackend) -> None:
    """Check that exactly the named ones go."""
    await _save(backend, checkpoint_row("1", chunks=_refs(1)), [Chunk("messages", 0, b"zero")])
    second = checkpoint_row("2", "1", chunks=_refs(2))
    await _save(backend, second, [Chunk("messages", 1, b"one")], shared=True)
    await backend.save_writes(THREAD, "", "1", [Write("task", 0, "", b"a")], None, None)
    await backend.delete_checkpoints(THREAD, [("", "1")], {("", "messages"): {0}})
    assert await backend.load(THREAD, "", "1", None) is None
    loaded = await backend.load(THREAD, "", "2", None)
    assert loaded is not None
    assert loaded.chunks == {("messages", 1): b"one"}
    await _save(backend, checkpoint_row("1"))
    restored = await backend.load(THREAD, "", "1", None)
    assert restored is not None
    assert restored.writes == []


async def a_deleted_thread_starts_again(backend: CheckpointBackend) -> None:
    """Check that nothing stays but the count of fencing tokens."""
    lease = await _lease(backend)
    token = FencingToken(lease.token)
    await _save(backend, checkpoint_row("1"), [Chunk("messages", 0, b"zero")], token, run_id="r")
    await backend.start_tool_call(THREAD, "call", token)
    await backend.release_lease(lease, True)
    await backend.delete_thread(THREAD)
    assert await backend.load(THREAD, "", None, None) is None
    assert list(await backend.threads_of_run("r")) == []
    assert dict(await backend.tool_results(THREAD)) == {}
    assert (await _lease(backend)).token > lease.token


async def an_expired_thread_is_gone(backend: CheckpointBackend) -> None:
    """Check that a thread expires after its last write, by the store's clock of deletions."""
    await _save(backend, checkpoint_row("1"), ttl_s=0.2)
    assert await backend.load(THREAD, "", None, None) is not None
    await asyncio.sleep(0.4)
    assert await backend.load(THREAD, "", None, None) is None
    assert list(await backend.list_checkpoints(THREAD, None, None, None)) == []
    await _save(backend, checkpoint_row("2"))
    assert list(await backend.list_checkpoints(THREAD, None, None, None)) == [("", "2")]


async def a_lease_excludes_others_until_it_ends(backend: CheckpointBackend) -> None:
    """Check acquiring, renewing, releasing and revoking."""
    first = await _lease(backend)
    assert first.clean_shutdown
    assert await backend.acquire_lease(THREAD, "other", 60.0) is None
    assert await backend.renew_lease(first, 60.0)
    await backend.release_lease(first, True)
    assert await backend.acquire_lease(THREAD, "other", 60.0) is not None
    second = await backend.acquire_lease("acme:u", "other", 60.0)
    assert second is not None
    await backend.release_lease(second, False)
    third = await _lease(backend, "acme:u")
    assert third.token > second.token
    assert not third.clean_shutdown
    await backend.revoke_lease("acme:u")
    assert not await backend.renew_lease(third, 60.0)
    fourth = await _lease(backend, "acme:u")
    assert fourth.token > third.token
    assert not fourth.clean_shutdown


async def a_lease_ends_by_itself(backend: CheckpointBackend) -> None:
    """Check that another owner takes over an expired lease, and sees that it was not released."""
    first = await _lease(backend, ttl_s=0.1)
    await asyncio.sleep(0.2)
    second = await backend.acquire_lease(THREAD, "other", 60.0)
    assert second is not None
    assert second.token > first.token
    assert not second.clean_shutdown
    assert not await backend.renew_lease(first, 60.0)
    await backend.release_lease(first, True)
    assert await backend.renew_lease(second, 60.0)


async def only_the_owner_of_the_lease_writes(backend: CheckpointBackend) -> None:
    """Check the fencing token of each operation that writes to a thread."""
    old = await _lease(backend)
    await backend.release_lease(old, True)
    token = FencingToken((await _lease(backend)).token)
    for stale in (FencingToken(old.token), None):
        for operation in (
            _save(backend, checkpoint_row("1"), token=stale),
            backend.save_writes(THREAD, "", "1", [Write("t", 0, "", b"a")], stale, None),
            backend.start_tool_call(THREAD, "call", stale),
            backend.record_tool_result(THREAD, "call", b"result", stale),
            backend.forget_tool_calls(THREAD, stale),
        ):
            await assert_raises(StaleWriter, operation)
    assert await backend.load(THREAD, "", None, None) is None
    await _save(backend, checkpoint_row("1"), token=token)


async def a_turn_continues_the_latest_checkpoint(backend: CheckpointBackend) -> None:
    """Check that under a lease a checkpoint follows the latest one of the thread."""
    token = FencingToken((await _lease(backend)).token)
    await _save(backend, checkpoint_row("1"), token=token)
    await assert_raises(StaleWriter, _save(backend, checkpoint_row("2"), token=token))
    await _save(backend, checkpoint_row("2", "1"), token=token)
    await assert_raises(StaleWriter, _save(backend, checkpoint_row("3", "1"), token=token))
    await _save(backend, checkpoint_row("3", "1", namespace="inner"), token=token)


async def a_tool_call_is_started_once(backend: CheckpointBackend) -> None:
    """Check that the second start gets the result, which is empty before the call has ended."""
    token = FencingToken((await _lease(backend)).token)
    assert await backend.start_tool_call(THREAD, "a", token) is None
    assert await backend.start_tool_call(THREAD, "a", token) == b""
    await backend.record_tool_result(THREAD, "a", b"result", token)
    assert await backend.start_tool_call(THREAD, "a", token) == b"result"
    assert await backend.start_tool_call(THREAD, "b", token) is None
    assert dict(await backend.tool_results(THREAD)) == {"a": b"result", "b": b""}
    await backend.record_tool_result(THREAD, "b", None, token)
    assert await backend.start_tool_call(THREAD, "b", token) is None
    await backend.forget_tool_calls(THREAD, token)
    assert dict(await backend.tool_results(THREAD)) == {}


async def a_quarantined_thread_refuses_writes(backend: CheckpointBackend) -> None:
    """Check that damaged data is copied once, and that it can be read."""
    await _save(backend, checkpoint_row("1"))
    await backend.quarantine(THREAD, "row/1", b"damaged")
    await backend.quarantine(THREAD, "row/1", b"again")
    assert list(await backend.quarantined_blobs(THREAD)) == [("row/1", b"damaged")]
    await assert_raises(CheckpointCorrupt, _save(backend, checkpoint_row("2", "1")))
    assert await backend.load(THREAD, "", "1", None) is not None
    assert list(await backend.quarantined_blobs("acme:other")) == []


async def session_records_are_compared_before_they_change(backend: CheckpointBackend) -> None:
    """Check creating, replacing, deleting, and that one of many writers wins."""
    table = backend.sessions
    row = session_row("s", 1.0)
    assert await table.put(row, None)
    assert not await table.put(row, None)
    versions = [replace(row, data=f"version {n}".encode()) for n in range(20)]
    assert sum(await asyncio.gather(*(table.put(version, row) for version in versions))) == 1
    current = await table.get(row.key)
    assert current in versions
    assert await table.put(replace(row, deleted_reason="asked"), current)
    deleted = await table.get(row.key)
    assert deleted is not None
    assert deleted.deleted_reason == "asked"
    assert list(await table.page("acme", None, None, 10)) == []


async def session_records_are_paged(backend: CheckpointBackend) -> None:
    """Check pages of a tenant and of a user, newest first, without another tenant's."""
    table = backend.sessions
    rows = [session_row(str(n), float(n // 2), user="ab"[n % 2]) for n in range(6)]
    for row in rows:
        assert await table.put(row, None)
    assert await table.put(SessionRow("other:x", "other", "a", 9.0, None, b""), None)
    newest_first = sorted(rows, key=lambda row: (row.created_at, row.key), reverse=True)
    first = list(await table.page("acme", None, None, 4))
    assert first == newest_first[:4]
    cursor = (first[-1].created_at, first[-1].key)
    assert list(await table.page("acme", None, cursor, 4)) == newest_first[4:]
    of_user = [row for row in newest_first if row.user == "a"]
    assert list(await table.page("acme", "a", None, 10)) == of_user
    assert list(await table.page("eve", None, None, 10)) == []


async def expired_sessions_are_listed(backend: CheckpointBackend) -> None:
    """Check that those without an end, and deleted ones, are left out."""
    table = backend.sessions
    past = time.time() - 1
    expired = replace(session_row("expired", 1.0), expires_at=past)
    for row in (
        expired,
        session_row("endless", 2.0),
        replace(session_row("later", 3.0), expires_at=past + 3600),
        replace(session_row("deleted", 4.0), expires_at=past, deleted_reason="asked"),
    ):
        assert await table.put(row, None)
    assert list(await table.list_expired(10)) == [expired]


CHECKPOINT_CHECKS: tuple[CheckpointCheck, ...] = (
    a_checkpoint_comes_back_with_its_chunks,
    a_chunk_is_written_once,
    chunks_of_a_deleted_parent_are_not_shared,
    writes_of_a_task_come_back,
    checkpoints_and_threads_are_listed,
    checkpoints_and_chunks_are_deleted,
    a_deleted_thread_starts_again,
    an_expired_thread_is_gone,
    a_lease_excludes_others_until_it_ends,
    a_lease_ends_by_itself,
    only_the_owner_of_the_lease_writes,
    a_turn_continues_the_latest_checkpoint,
    a_tool_call_is_started_once,
    a_quarantined_thread_refuses_writes,
    session_records_are_compared_before_they_change,
    session_records_are_paged,
    expired_sessions_are_listed,
)
"""All checks."""


async def run_checkpoint_check(
    check: CheckpointCheck, open_backend: Callable[[], CheckpointBackend]
) -> None:
    """Run one check on a new backend."""
    await run_store_check(check, open_backend)
