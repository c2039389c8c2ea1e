"""Implement a broker in memory, for one process and for tests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from typing_extensions import override

from agent_runtime.event_bus.brokers.broker import StartPosition, StoredEvent
from agent_runtime.event_bus.brokers.group_reader import LeasedBroker
from agent_runtime.event_bus.brokers.validation import parse_offset, validate_events
from agent_runtime.event_bus.cloud_event import encode_event, from_cloud_event
from agent_runtime.event_bus.event import Event


@dataclass(slots=True)
class _GroupState:
    committed_offset: int
    owner: str = ""
    lease_expires_at: float = 0.0


class MemoryBroker(LeasedBroker):
    """Implement `Broker` in this process, for one event loop.

    Args:
        max_events: the length of the log; beyond it the oldest acknowledged ones are removed.
        lease_s: how long a silent consumer keeps a group.
    """

    def __init__(self, *, max_events: int = 100_000, lease_s: float = 10.0) -> None:
        self._max_events = max_events
        self.lease_s = lease_s
        self._log: deque[StoredEvent] = deque()
        self._ids: set[str] = set()
        self._last_offset = 0
        self._groups: dict[str, _GroupState] = {}
        self._has_news = asyncio.Event()

    @override
    async def publish(self, events: Sequence[Event]) -> None:
        validate_events(events)
        for event in events:
            if event.id not in self._ids:
                self._last_offset += 1
                self._ids.add(event.id)
                # As any other broker would hand it over: a handler need not know where its events
                # come from.
                self._log.append(
                    StoredEvent(str(self._last_offset), from_cloud_event(encode_event(event)))
                )
        self._has_news.set()
        if len(self._log) > self._max_events:
            await self.trim(self._max_events)

    @override
    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        after_offset = 0 if after is None else parse_offset(after)
        deadline = time.monotonic() + wait_s
        while True:
            trimmed_offset = self._last_offset - len(self._log)
            stored_events = list(
                islice(
                    self._log,
                    max(0, after_offset - trimmed_offset),
                    max(0, after_offset - trimmed_offset) + limit,
                )
            )
            if stored_events or (remaining_s := deadline - time.monotonic()) <= 0:
                return stored_events
            self._has_news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await self._has_news.wait()

    @override
    async def lag(self, group: str) -> int:
        group_state = self._groups.get(group)
        return (
            len(self._log)
            if group_state is None
            else self._last_offset - group_state.committed_offset
        )

    @override
    async def trim(self, keep: int) -> int:
        lowest_committed_offset = min(
            (g.committed_offset for g in self._groups.values()), default=self._last_offset
        )
        removed = 0
        while len(self._log) > keep and int(self._log[0].position) <= lowest_committed_offset:
            self._ids.discard(self._log.popleft().event.id)
            removed += 1
        return removed

    @override
    async def delete_group(self, group: str) -> None:
        self._groups.pop(group, None)

    @override
    async def aclose(self) -> None: ...

    # -- GroupLog

    @override
    async def claim(self, group: str, owner: str, start: StartPosition, lease_s: float) -> bool:
        trimmed_offset = self._last_offset - len(self._log)
        group_state = self._groups.setdefault(
            group, _GroupState(trimmed_offset if start == "earliest" else self._last_offset)
        )
        now = time.monotonic()
        if group_state.owner not in ("", owner) and group_state.lease_expires_at > now:
            return False
        group_state.owner = owner
        group_state.lease_expires_at = now + lease_s
        return True

    @override
    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[StoredEvent]:
        group_state = self._groups.get(group)
        if group_state is None or group_state.owner != owner:
            return []
        return await self.read(
            str(group_state.committed_offset) if after is None else after,
            limit=limit,
            wait_s=wait_s,
        )

    @override
    async def commit(
        self, group: str, owner: str, acked: list[str], committed_offset: str | None
    ) -> bool:
        group_state = self._groups.get(group)
        if group_state is None or group_state.owner != owner:
            return False
        group_state.committed_offset = max(group_state.committed_offset, int(committed_offset or 0))
        return True

    @override
    async def release(self, group: str, owner: str) -> None:
        group_state = self._groups.get(group)
        if group_state is not None and group_state.owner == owner:
            group_state.owner = ""
