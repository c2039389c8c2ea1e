"""The leased consumer of a group: a lease, an offset and acknowledgements."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from typing_extensions import override

from agent_runtime.errors import StoreError
from agent_runtime.errors.backoff import Backoff
from agent_runtime.event_bus.brokers.broker import (
    MAX_BATCH,
    Broker,
    Deliveries,
    Delivery,
    DeliveryQueue,
    StartPosition,
    StoredEvent,
    cancel_and_wait,
)
from agent_runtime.event_bus.brokers.validation import validate_group_name
from agent_runtime.storage.process_identity import lease_owner

LOG = logging.getLogger("agent_runtime.events")
MAX_PAUSE_S = 2.0
MAX_TRACKED_POSITIONS = 20_000
"""How far a reader continues past an unacknowledged event, so that a slow one does not block
others.
"""


class GroupLog(Protocol):
    """Store a group's position and lease, for `LeasedConsumer`.

    `owner` is a reader; calls of one without the lease do nothing.
    """

    def claim(
        self, group: str, owner: str, start: StartPosition, lease_s: float
    ) -> Awaitable[bool]:
        """Acquire or renew the group's lease for `lease_s` seconds; False when another has it."""

    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[StoredEvent]:
        """Return events after `after`, or from the first unacknowledged one.

        Waits for the first.
        """

    def commit(
        self, group: str, owner: str, acked: list[str], committed_offset: str | None
    ) -> Awaitable[bool]:
        """Keep that `acked` are acknowledged, and with them everything up to `committed_offset`.

        False when another one reads.
        """

    def release(self, group: str, owner: str) -> Awaitable[None]:
        """Let another one read at once."""


class LeasedBroker(GroupLog, Broker):
    """Implement `consume` by groups that one consumer leases at a time.

    `lease_s` is how long a silent consumer keeps a group.
    """

    lease_s: float

    @override
    def consume(
        self, group: str, *, start: StartPosition = "earliest", prefetch: int = MAX_BATCH
    ) -> AbstractAsyncContextManager[Deliveries]:
        return LeasedConsumer(
            self, validate_group_name(group), start, prefetch, self.lease_s
        ).deliveries()


class LeasedConsumer:
    """Claim the group, fetch in order, and commit acknowledged events.

    When the lease is lost or the store fails, it restarts with unacknowledged events: the same
    deliveries come again, and acknowledging an older one changes nothing.
    """

    def __init__(
        self, log: GroupLog, group: str, start: StartPosition, prefetch: int, lease_s: float
    ) -> None:
        self._log = log
        self._group = group
        self._start = start
        self._lease_s = lease_s
        self._prefetch = prefetch
        self._owner = lease_owner(uuid.uuid4().hex)
        self._ready = DeliveryQueue()
        self._acked_by_position: dict[
            str, bool
        ] = {}  # by position, in order, from the first open one: whether it is acknowledged
        self._unacked = 0
        self._acked: list[str] = []
        self._changed = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self._fetch_position: str | None = None
        self._claimed_at = 0.0
        self._has_lease = False
        self._epoch = 0  # grows by one with each restart

    @asynccontextmanager
    async def deliveries(self) -> AsyncIterator[Deliveries]:
        """Yield the deliveries of this reader, for the duration of the context."""
        with suppress(StoreError):
            await self._claim()  # creates the group: `latest` means after this
        task = asyncio.create_task(self._run(), name=f"agent_runtime events {self._group}")
        self._ready.attach_reader(task)
        try:
            yield self._ready
        finally:
            await cancel_and_wait(task)
            with suppress(StoreError):
                await self._commit()
                await self._log.release(self._group, self._owner)

    async def _run(self) -> None:
        backoff = Backoff(0.02, min(MAX_PAUSE_S, self._lease_s / 3))
        pauses = 0
        while True:
            pause_s = backoff.pause_s(pauses + 1)
            try:
                if await self._claim():
                    await self._commit()  # retries failed commits
                    await self._fetch()
                    pauses = 0
                    continue
            except StoreError as error:
                LOG.warning(
                    "the group %s cannot be read, tried again in %.2f s: %s",
                    self._group,
                    pause_s,
                    error,
                )
                self._reset()
            await asyncio.sleep(pause_s)
            pauses += 1

    async def _claim(self) -> bool:
        now = time.monotonic()
        if self._has_lease and now - self._claimed_at < self._lease_s / 3:
            return True
        has_lease = await self._log.claim(self._group, self._owner, self._start, self._lease_s)
        # A reader that slept longer than its lease may have been replaced, and be the reader again.
        if not has_lease or (self._has_lease and now - self._claimed_at > self._lease_s):
            self._reset()
        self._has_lease = has_lease
        self._claimed_at = now
        return has_lease

    def _reset(self) -> None:
        self._has_lease = False
        self._fetch_position = None
        self._epoch += 1
        self._unacked = 0
        self._acked_by_position.clear()
        self._acked.clear()
        self._ready.drop()

    async def _fetch(self) -> None:
        fetch_limit = min(
            self._prefetch - self._unacked, MAX_TRACKED_POSITIONS - len(self._acked_by_position)
        )
        if fetch_limit <= 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 3):
                    await self._changed.wait()
            return
        fetch_epoch = self._epoch
        stored_events = await self._log.fetch(
            self._group, self._owner, self._fetch_position, fetch_limit, min(1.0, self._lease_s / 3)
        )
        if self._epoch != fetch_epoch:
            # it has restarted: acknowledging these would cover open events before them
            return
        for stored in stored_events:
            self._fetch_position = stored.position
            self._acked_by_position[stored.position] = False
            self._unacked += 1
            self._ready.put(Delivery(stored.event, stored.position, self._ack, self._epoch))

    async def _ack(self, delivery: Delivery) -> None:
        if self._acked_by_position.get(delivery.position) is not False:
            return  # of an earlier epoch: it comes again, or has been acknowledged
        self._acked_by_position[delivery.position] = True
        self._unacked -= 1
        self._changed.set()
        self._acked.append(delivery.position)
        await self._commit()

    async def _commit(self) -> None:
        """Commit acknowledged events; callers during a request are served by the next one."""
        while self._acked:
            async with self._commit_lock:
                if not self._acked:
                    return
                acked = self._acked
                self._acked = []
                committed_offset = self._committable_offset()
                commit_epoch = self._epoch
                try:
                    has_lease = await self._log.commit(
                        self._group, self._owner, acked, committed_offset
                    )
                except BaseException:
                    if self._epoch == commit_epoch:
                        self._acked = acked + self._acked
                    raise
                if self._epoch == commit_epoch:
                    if has_lease:
                        self._forget_committed(committed_offset)
                    else:
                        self._reset()

    def _committable_offset(self) -> str | None:
        committable_offset = None
        for position, acked in self._acked_by_position.items():
            if not acked:
                break
            committable_offset = position
        return committable_offset

    def _forget_committed(self, committed_offset: str | None) -> None:
        while committed_offset is not None and self._acked_by_position:
            position = next(iter(self._acked_by_position))
            del self._acked_by_position[position]
            if position == committed_offset:
                break
        self._changed.set()
