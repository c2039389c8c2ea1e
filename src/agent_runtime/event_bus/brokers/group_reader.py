"""The leased consumer of a group: a lease, an offset and acknowledgements."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

from agent_runtime.errors import StoreError
from agent_runtime.event_bus.brokers.broker import (
    MAX_BATCH,
    Deliveries,
    Delivery,
    DeliveryQueue,
    Start,
    Stored,
    ended,
)
from agent_runtime.event_bus.brokers.validation import checked_group
from agent_runtime.storage.process_identity import lease_owner

LOG = logging.getLogger("agent_runtime.events")
MAX_PAUSE_S = 2.0
MAX_BEHIND = 20_000
"""How far a reader goes on past an event that is not acknowledged yet.

Others go on beside a slow one.
"""


class GroupLog(Protocol):
    """What `GroupReader` asks of a broker. `owner` is a reader.

    A call of one that is not the group's does nothing.
    """

    async def claim(self, group: str, owner: str, start: Start, lease_s: float) -> bool:
        """Acquire or renew the group's lease for `lease_s` seconds; False when another has it."""

    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[Stored]:
        """Events behind `after`; with None, from the first that the group has not acknowledged.

        Waits for the first.
        """

    async def settle(self, group: str, owner: str, done: list[str], floor: str | None) -> bool:
        """Keep that `done` are acknowledged, and with them everything up to `floor`.

        False when another one reads.
        """

    async def release(self, group: str, owner: str) -> None:
        """Let another one read at once."""


class LeasedGroups:
    """What a broker with leased groups offers its consumers. `lease_s`.

    How long a silent consumer keeps a group.
    """

    lease_s: float

    def consume(
        self: Any, group: str, *, start: Start = "earliest", prefetch: int = MAX_BATCH
    ) -> AbstractAsyncContextManager[Deliveries]:
        """See `Broker.consume`."""
        return GroupReader(self, checked_group(group), start, prefetch, self.lease_s).deliveries()


class GroupReader:
    """Claims the group, fetches in order, and settles what was acknowledged.

    When the lease is lost or the store fails, it begins again with what was not acknowledged: the
    same deliveries come again, and the acknowledgement of an older one changes nothing.
    """

    def __init__(
        self, log: GroupLog, group: str, start: Start, prefetch: int, lease_s: float
    ) -> None:
        self._log = log
        self._group = group
        self._start = start
        self._lease_s = lease_s
        self._prefetch = prefetch
        self._owner = lease_owner(uuid.uuid4().hex)
        self._ready = DeliveryQueue()
        self._open: dict[
            str, bool
        ] = {}  # by position, in order, from the first open one: whether it is acknowledged
        self._unacked = 0
        self._acked: list[str] = []
        self._changed = asyncio.Event()
        self._settling = asyncio.Lock()
        self._after: str | None = None
        self._claimed_s = 0.0
        self._reading = False
        self._round = 0  # one more each time that it begins again

    @asynccontextmanager
    async def deliveries(self) -> AsyncIterator[Deliveries]:
        """The deliveries of this reader, for as long as the context lasts."""
        with suppress(StoreError):
            await self._claim()  # the group is there from now on: `latest` means after this
        task = asyncio.create_task(self._run(), name=f"agent_runtime events {self._group}")
        self._ready.read_by(task)
        try:
            yield self._ready
        finally:
            await ended(task)
            with suppress(StoreError):
                await self._settle()
                await self._log.release(self._group, self._owner)

    async def _run(self) -> None:
        pause_s = 0.02
        while True:
            try:
                if await self._claim():
                    await self._settle()  # what could not be sent when it was acknowledged
                    await self._fetch()
                    pause_s = 0.02
                    continue
            except StoreError as error:
                LOG.warning(
                    "the group %s cannot be read, tried again in %.2f s: %s",
                    self._group,
                    pause_s,
                    error,
                )
                self._begin_again()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S, self._lease_s / 3)

    async def _claim(self) -> bool:
        now = time.monotonic()
        if self._reading and now - self._claimed_s < self._lease_s / 3:
            return True
        mine = await self._log.claim(self._group, self._owner, self._start, self._lease_s)
        # A reader that slept longer than its lease may have been replaced, and be the reader again
        # by now.
        if not mine or (self._reading and now - self._claimed_s > self._lease_s):
            self._begin_again()
        self._reading = mine
        self._claimed_s = now
        return mine

    def _begin_again(self) -> None:
        self._reading = False
        self._after = None
        self._round += 1
        self._unacked = 0
        self._open.clear()
        self._acked.clear()
        self._ready.drop()

    async def _fetch(self) -> None:
        room = min(self._prefetch - self._unacked, MAX_BEHIND - len(self._open))
        if room <= 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 3):
                    await self._changed.wait()
            return
        fetching = self._round
        found = await self._log.fetch(
            self._group, self._owner, self._after, room, min(1.0, self._lease_s / 3)
        )
        if self._round != fetching:
            # it has begun again meanwhile: acknowledging these would cover what is open before them
            return
        for stored in found:
            self._after = stored.position
            self._open[stored.position] = False
            self._unacked += 1
            self._ready.put(Delivery(stored.event, stored.position, self._ack, self._round))

    async def _ack(self, delivery: Delivery) -> None:
        if self._open.get(delivery.position) is not False:
            return  # of an earlier reading: it comes again, or has been acknowledged
        self._open[delivery.position] = True
        self._unacked -= 1
        self._changed.set()
        self._acked.append(delivery.position)
        await self._settle()

    async def _settle(self) -> None:
        """Send what is acknowledged.

        Who comes while a request is under way is served by the next one.
        """
        while self._acked:
            async with self._settling:
                if not self._acked:
                    return
                done = self._acked
                self._acked = []
                floor = self._floor()
                settled_round = self._round
                try:
                    mine = await self._log.settle(self._group, self._owner, done, floor)
                except BaseException:
                    if self._round == settled_round:
                        self._acked = done + self._acked
                    raise
                if self._round == settled_round:
                    if mine:
                        self._forget(floor)
                    else:
                        self._begin_again()

    def _floor(self) -> str | None:
        floor = None
        for position, acked in self._open.items():
            if not acked:
                break
            floor = position
        return floor

    def _forget(self, floor: str | None) -> None:
        while floor is not None and self._open:
            position = next(iter(self._open))
            del self._open[position]
            if position == floor:
                break
        self._changed.set()
