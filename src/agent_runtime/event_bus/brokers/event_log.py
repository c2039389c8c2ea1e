"""An event log that can be asked: SQLite by its indexes, any other broker by reading through it."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from agent_runtime.event_bus.brokers.broker import Broker, StoredEvent
from agent_runtime.event_bus.brokers.opening import open_broker
from agent_runtime.event_bus.brokers.sqlite import EventQuery, SqliteBroker

PAGE = 1000


class EventLog(Protocol):
    """What asks need. Methods raise StoreError, InputInvalid for a position that is none."""

    async def query(
        self,
        query: EventQuery,
        *,
        after: str | None = None,
        limit: int = 1000,
        wait_s: float = 0.0,
        last: bool = False,
    ) -> list[StoredEvent]:
        """At most `limit` events that match, oldest first, behind `after`.

        With `last` the newest ones of them.
        """

    async def aclose(self) -> None:
        """Close the log."""


class ScannedLog:
    """A broker without indexes, read from end to end for each question."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def query(
        self,
        query: EventQuery,
        *,
        after: str | None = None,
        limit: int = 1000,
        wait_s: float = 0.0,
        last: bool = False,
    ) -> list[StoredEvent]:
        """See `EventLog.query`."""
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

    async def aclose(self) -> None:
        """See `EventLog.aclose`."""
        await self.broker.aclose()


def open_event_log(url: str, *, seal_key: bytes | None = None) -> EventLog:
    """Open the log at a broker's address; arguments and errors are those of `open_broker`."""
    broker = open_broker(url, seal_key=seal_key)
    return broker if isinstance(broker, SqliteBroker) else ScannedLog(broker)
