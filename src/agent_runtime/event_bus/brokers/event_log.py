"""Query the event log: SQLite by its indexes, any other broker by a scan."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from typing_extensions import override

from agent_runtime.event_bus.brokers.broker import Broker, StoredEvent
from agent_runtime.event_bus.brokers.opening import open_broker
from agent_runtime.event_bus.brokers.sqlite import EventQuery, SqliteBroker

PAGE = 1000


class EventLog(Protocol):
    """Query stored events. Methods raise StoreError, InputInvalid for an invalid position."""

    async def query(
        self,
        query: EventQuery,
        *,
        after: str | None = None,
        limit: int = 1000,
        wait_s: float = 0.0,
        last: bool = False,
    ) -> list[StoredEvent]:
        """Return at most `limit` matching events after `after`, oldest first.

        `last` selects the newest.
        """

    async def aclose(self) -> None:
        """Close the log."""


class ScannedLog(EventLog):
    """A broker without indexes, read from end to end for each question."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    @override
    async def query(
        self,
        query: EventQuery,
        *,
        after: str | None = None,
        limit: int = 1000,
        wait_s: float = 0.0,
        last: bool = False,
    ) -> list[StoredEvent]:
        matching_events: deque[StoredEvent] = deque(maxlen=limit if last else None)
        while last or len(matching_events) < limit:
            page = await self.broker.read(
                after, limit=PAGE, wait_s=0.0 if matching_events else wait_s
            )
            matching_events.extend(stored for stored in page if query.matches(stored.event))
            if not page:
                break
            after = page[-1].position
        return list(matching_events)[:limit]

    @override
    async def aclose(self) -> None:
        await self.broker.aclose()


def open_event_log(url: str, *, seal_key: bytes | None = None) -> EventLog:
    """Open the log at a broker's address; arguments and errors are those of `open_broker`."""
    broker = open_broker(url, seal_key=seal_key)
    return broker if isinstance(broker, SqliteBroker) else ScannedLog(broker)
