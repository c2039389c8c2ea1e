"""One turn of a session at a time, across tasks, threads and processes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

from agent_runtime.checkpoints.backends.backend import CheckpointBackend, Lease
from agent_runtime.errors import SessionBusy, StaleWriter, StoreError
from agent_runtime.errors.user_code import is_from_signal
from agent_runtime.storage.process_identity import lease_owner

MultitaskStrategy: TypeAlias = Literal["enqueue", "reject"]
_MIN_POLL_S = 0.004
_MAX_POLL_S = 0.1


class Turns:
    """Grant the leases of turns, in the order of requests within one process.

    Between processes the order is not defined.

    Args:
        backend: stores the leases.
        lease_s: how long a lease outlives a process that died; a live one renews it three times as
            often.
        max_waiting: calls of one session that may wait in this process; further ones raise
            SessionBusy.
    """

    def __init__(
        self, backend: CheckpointBackend, *, lease_s: float = 30.0, max_waiting: int = 100
    ) -> None:
        self._backend = backend
        self.lease_s = lease_s
        self._max_waiting = max_waiting
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Queue]] = (
            WeakKeyDictionary()
        )

    @asynccontextmanager
    async def acquire(
        self, thread: str, strategy: MultitaskStrategy = "enqueue"
    ) -> AsyncIterator[TurnLease]:
        """Hold the turn of `thread`.

        Waits for it, or raises SessionBusy (`reject`, or too many waiting).

        When the lease is lost (this process stood still for longer than `lease_s`) the body is
        cancelled and StaleWriter raised: another turn may be running by then. Cancelling the wait
        leaves nothing behind.
        """
        if thread in _OWNED_THREADS.get():
            raise SessionBusy(
                "this turn already holds the session: use the turn, or another session"
            )
        queues = self._queues.setdefault(asyncio.get_running_loop(), {})
        queue = queues.setdefault(thread, _Queue())
        if queue.user_count and strategy == "reject":
            raise SessionBusy("another turn of this session is running")
        if queue.user_count > self._max_waiting:
            raise SessionBusy(
                f"{self._max_waiting} calls wait for their turn of this session already"
            )
        queue.user_count += 1
        try:
            async with queue.lock:
                lease = await self._acquire_lease(thread, strategy)
                turn_lease = TurnLease(lease)
                token = _OWNED_THREADS.set(_OWNED_THREADS.get() | {thread})
                try:
                    async with self._auto_renew(lease):
                        yield turn_lease
                finally:
                    _OWNED_THREADS.reset(token)
                    await self._release_lease(lease, clean=turn_lease.clean_shutdown)
        finally:
            queue.user_count -= 1
            if not queue.user_count:
                queues.pop(thread, None)

    async def _acquire_lease(self, thread: str, strategy: MultitaskStrategy) -> Lease:
        owner = lease_owner(uuid.uuid4().hex)
        wait_s = _MIN_POLL_S
        while True:
            acquisition = asyncio.ensure_future(
                self._backend.acquire_lease(thread, owner, self.lease_s)
            )
            try:
                lease: Lease | None = await asyncio.shield(acquisition)
            except asyncio.CancelledError:
                # It may just have been granted: an unowned lease would block the session until its
                # end.
                acquisition.add_done_callback(self._release_if_granted)
                raise
            if lease is not None:
                return lease
            if strategy == "reject":
                raise SessionBusy("another turn of this session is running")
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311
            wait_s = min(wait_s * 1.5, _MAX_POLL_S)

    def _release_if_granted(self, acquisition: asyncio.Future[Any]) -> None:
        if (
            not acquisition.cancelled()
            and acquisition.exception() is None
            and (lease := acquisition.result()) is not None
        ):
            task = asyncio.ensure_future(self._release_lease(lease, clean=lease.clean_shutdown))
            _PENDING_RELEASES.add(task)
            task.add_done_callback(_PENDING_RELEASES.discard)

    @asynccontextmanager
    async def _auto_renew(self, lease: Lease) -> AsyncIterator[None]:
        holder = asyncio.current_task()
        lease_lost = asyncio.Event()
        finished = asyncio.Event()
        assert holder is not None  # noqa: S101

        async def renew() -> None:
            loop = asyncio.get_running_loop()
            valid_until = asyncio.get_running_loop().time() + self.lease_s
            while loop.time() < valid_until and not finished.is_set():
                await asyncio.sleep(self.lease_s / 3)
                try:
                    if not await self._backend.renew_lease(lease, self.lease_s):
                        break
                except StoreError:
                    continue  # until the lease has run out for certain
                valid_until = loop.time() + self.lease_s
            if not finished.is_set():
                lease_lost.set()
                holder.cancel()

        renewing = asyncio.create_task(renew(), name=f"lease of {lease.thread}")
        try:
            yield
        except BaseException as error:
            # Also when something raised while the turn was being stopped.
            if lease_lost.is_set() and holder.uncancel() == 0 and not is_from_signal(error):
                raise StaleWriter(
                    "the lease of the session was lost: this turn was suspended for too long"
                ) from error
            raise
        finally:
            # whatever the cancellation meets inside a store: the turn must not wait for its lease
            # forever
            finished.set()
            renewing.cancel()
            await asyncio.wait({renewing})

    async def _release_lease(self, lease: Lease, *, clean: bool) -> None:
        releasing = asyncio.ensure_future(self._backend.release_lease(lease, clean))
        _PENDING_RELEASES.add(releasing)
        releasing.add_done_callback(_PENDING_RELEASES.discard)
        with contextlib.suppress(StoreError):  # the lease ends by itself
            await asyncio.shield(releasing)


_PENDING_RELEASES: set[asyncio.Future[Any]] = set()
"""Running releases: the loop itself keeps only weak references to tasks."""


_OWNED_THREADS: ContextVar[frozenset[str]] = ContextVar(
    "agent_runtime_held_threads", default=frozenset()
)
"""Threads whose turns the current task holds: waiting for one of them would deadlock."""


class TurnLease:
    """Hold a lease; `clean_shutdown` tells the next owner whether this turn ended normally."""

    __slots__ = ("clean_shutdown", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.clean_shutdown = lease.clean_shutdown


class _Queue:
    __slots__ = ("lock", "user_count")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.user_count = 0
