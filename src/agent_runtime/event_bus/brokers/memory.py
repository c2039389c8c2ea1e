"""A broker in memory: for one process, and for tests. What it has is gone with the process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from agent_runtime.event_bus.brokers.broker import Start, Stored
from agent_runtime.event_bus.brokers.group_reader import LeasedGroups
from agent_runtime.event_bus.brokers.validation import number_of, stamped
from agent_runtime.event_bus.cloud_event import encoded, from_cloud_event
from agent_runtime.event_bus.event import Event


@dataclass(slots=True)
class _Group:
    floor: int
    owner: str = ""
    until_s: float = 0.0


class MemoryBroker(LeasedGroups):
    """A `Broker` in this process. For one event loop.

    Args:
        max_events: of the log; beyond it the oldest go that every group has acknowledged.
        lease_s: how long a group stays with a consumer that says nothing.
    """

    def __init__(self, *, max_events: int = 100_000, lease_s: float = 10.0) -> None:
        self._max_events = max_events
        self.lease_s = lease_s
        self._log: deque[Stored] = deque()
        self._ids: set[str] = set()
        self._last = 0
        self._groups: dict[str, _Group] = {}
        self._more = asyncio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        """See `Broker.publish`."""
        stamped(events)
        for event in events:
            if event.id not in self._ids:
                self._last += 1
                self._ids.add(event.id)
                # As any other broker would hand it over: a handler need not know where its events
                # come from.
                self._log.append(Stored(str(self._last), from_cloud_event(encoded(event))))
        self._more.set()
        if len(self._log) > self._max_events:
            await self.trim(self._max_events)

    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[Stored]:
        """See `Broker.read`."""
        behind = 0 if after is None else number_of(after)
        ends_s = time.monotonic() + wait_s
        while True:
            first = self._last - len(self._log)
            found = list(islice(self._log, max(0, behind - first), max(0, behind - first) + limit))
            if found or (left_s := ends_s - time.monotonic()) <= 0:
                return found
            self._more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._more.wait()

    async def lag(self, group: str) -> int:
        """See `Broker.lag`."""
        known = self._groups.get(group)
        return len(self._log) if known is None else self._last - known.floor

    async def trim(self, keep: int) -> int:
        """See `Broker.trim`."""
        slowest = min((g.floor for g in self._groups.values()), default=self._last)
        removed = 0
        while len(self._log) > keep and int(self._log[0].position) <= slowest:
            self._ids.discard(self._log.popleft().event.id)
            removed += 1
        return removed

    async def delete_group(self, group: str) -> None:
        """See `Broker.delete_group`."""
        self._groups.pop(group, None)

    async def aclose(self) -> None:
        """See `Broker.aclose`."""

    # -- GroupLog
    # ------------------------------------------------------------------------------------------

    async def claim(self, group: str, owner: str, start: Start, lease_s: float) -> bool:
        """See `GroupLog.claim`."""
        first = self._last - len(self._log)
        known = self._groups.setdefault(group, _Group(first if start == "earliest" else self._last))
        now = time.monotonic()
        if known.owner not in ("", owner) and known.until_s > now:
            return False
        known.owner = owner
        known.until_s = now + lease_s
        return True

    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[Stored]:
        """See `GroupLog.fetch`."""
        known = self._groups.get(group)
        if known is None or known.owner != owner:
            return []
        return await self.read(
            str(known.floor) if after is None else after, limit=limit, wait_s=wait_s
        )

    async def settle(self, group: str, owner: str, done: list[str], floor: str | None) -> bool:
        """See `GroupLog.settle`."""
        known = self._groups.get(group)
        if known is None or known.owner != owner:
            return False
        known.floor = max(known.floor, int(floor or 0))
        return True

    async def release(self, group: str, owner: str) -> None:
        """See `GroupLog.release`."""
        known = self._groups.get(group)
        if known is not None and known.owner == owner:
            known.owner = ""
