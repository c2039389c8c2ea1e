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

from agent_runtime.checkpoints.backends.backend import Lease, Records
from agent_runtime.errors import SessionBusy, StaleWriter, StoreError
from agent_runtime.errors.user_code import is_from_signal
from agent_runtime.storage.process_identity import lease_owner

MultitaskStrategy: TypeAlias = Literal["enqueue", "reject"]
_FIRST_POLL_S = 0.004
_LAST_POLL_S = 0.1


class Turns:
    """Hands out leases: first come, first served in one process.

    Between processes whoever asks next.

    Args:
        records: where leases are kept.
        lease_s: how long a lease outlives a process that died; a living one renews it three times
        as often.
        max_waiting: calls of one session that may wait in this process; the next ones get
            SessionBusy.
    """

    def __init__(self, records: Records, *, lease_s: float = 30.0, max_waiting: int = 100) -> None:
        self._records = records
        self.lease_s = lease_s
        self._max_waiting = max_waiting
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Queue]] = (
            WeakKeyDictionary()
        )

    @asynccontextmanager
    async def hold(
        self, thread: str, strategy: MultitaskStrategy = "enqueue"
    ) -> AsyncIterator[Held]:
        """Hold the turn of `thread`.

        Waits for it, or raises SessionBusy (`reject`, or too many waiting).

        When the lease is lost (this process stood still for longer than `lease_s`) the body is
        cancelled and StaleWriter raised: another turn may be running by then. Cancelling the wait
        leaves nothing behind.
        """
        if thread in _HELD.get():
            raise SessionBusy(
                "this very turn holds the session: use what the turn has, or another session"
            )
        queues = self._queues.setdefault(asyncio.get_running_loop(), {})
        queue = queues.setdefault(thread, _Queue())
        if queue.users and strategy == "reject":
            raise SessionBusy("another turn of this session is running")
        if queue.users > self._max_waiting:
            raise SessionBusy(
                f"{self._max_waiting} calls wait for their turn of this session already"
            )
        queue.users += 1
        try:
            async with queue.lock:
                lease = await self._acquired(thread, strategy)
                held = Held(lease)
                token = _HELD.set(_HELD.get() | {thread})
                try:
                    async with self._renewed(lease):
                        yield held
                finally:
                    _HELD.reset(token)
                    await self._released(lease, clean=held.clean)
        finally:
            queue.users -= 1
            if not queue.users:
                queues.pop(thread, None)

    async def _acquired(self, thread: str, strategy: MultitaskStrategy) -> Lease:
        owner = lease_owner(uuid.uuid4().hex)
        wait_s = _FIRST_POLL_S
        while True:
            asking = asyncio.ensure_future(
                self._records.acall("acquire", thread, owner, self.lease_s)
            )
            try:
                lease: Lease | None = await asyncio.shield(asking)
            except asyncio.CancelledError:
                # It may just have been granted: a lease that nobody holds would block the session
                # until it ends.
                asking.add_done_callback(self._give_back)
                raise
            if lease is not None:
                return lease
            if strategy == "reject":
                raise SessionBusy("another turn of this session is running")
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311
            wait_s = min(wait_s * 1.5, _LAST_POLL_S)

    def _give_back(self, asking: asyncio.Future[Any]) -> None:
        if (
            not asking.cancelled()
            and asking.exception() is None
            and (lease := asking.result()) is not None
        ):
            task = asyncio.ensure_future(self._released(lease, clean=lease.clean))
            _KEPT.add(task)
            task.add_done_callback(_KEPT.discard)

    @asynccontextmanager
    async def _renewed(self, lease: Lease) -> AsyncIterator[None]:
        holder = asyncio.current_task()
        lost = asyncio.Event()
        over = asyncio.Event()
        assert holder is not None  # noqa: S101

        async def renew() -> None:
            loop = asyncio.get_running_loop()
            until = asyncio.get_running_loop().time() + self.lease_s
            while loop.time() < until and not over.is_set():
                await asyncio.sleep(self.lease_s / 3)
                try:
                    if not await self._records.acall("renew", lease, self.lease_s):
                        break
                except StoreError:
                    continue  # until the lease has run out for certain
                until = loop.time() + self.lease_s
            if not over.is_set():
                lost.set()
                holder.cancel()

        renewing = asyncio.create_task(renew(), name=f"lease of {lease.thread}")
        try:
            yield
        except BaseException as error:
            # Also when something raised while the turn was being stopped.
            if lost.is_set() and holder.uncancel() == 0 and not is_from_signal(error):
                raise StaleWriter(
                    "the lease of the session was lost: this turn stood still for too long"
                ) from error
            raise
        finally:
            # whatever the cancellation meets inside a store: the turn must not wait for its lease
            # for ever
            over.set()
            renewing.cancel()
            await asyncio.wait({renewing})

    async def _released(self, lease: Lease, *, clean: bool) -> None:
        releasing = asyncio.ensure_future(self._records.acall("release", lease, clean))
        _KEPT.add(releasing)
        releasing.add_done_callback(_KEPT.discard)
        with contextlib.suppress(StoreError):  # the lease ends by itself
            await asyncio.shield(releasing)


_KEPT: set[asyncio.Future[Any]] = set()
"""Releases under way: the loop itself keeps only weak references to tasks."""


_HELD: ContextVar[frozenset[str]] = ContextVar("agent_runtime_held_threads", default=frozenset())
"""The threads whose turns the current task holds.

Waiting for one of them would be waiting for itself.
"""


class Held:
    """A lease that is held. `clean` is what the next one will be told.

    Whether this turn left everything in order.
    """

    __slots__ = ("clean", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.clean = lease.clean


class _Queue:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
