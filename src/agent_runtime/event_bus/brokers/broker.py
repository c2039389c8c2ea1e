"""Define brokers: durable, ordered event logs with named consumer groups."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias, runtime_checkable

from agent_runtime.errors import StoreUnavailable
from agent_runtime.event_bus.event import Event

StartPosition: TypeAlias = Literal["earliest", "latest"]
MAX_BATCH = 500
RECANCEL_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Hold an event of a broker's log; `position` is an opaque text for `read(after=...)`."""

    position: str
    event: Event


class Delivery:
    """Hold an event that was delivered to a group, which must `ack` it.

    `position` is as in `StoredEvent`. After a crash unacknowledged events are delivered again.
    Deliveries of one stream and one `reading` are consecutive in the log: no other consumer read in
    between.
    """

    __slots__ = ("_ack", "event", "position", "reading")

    def __init__(
        self,
        event: Event,
        position: str,
        ack: Callable[[Delivery], Awaitable[None]],
        reading: int = 0,
    ) -> None:
        self.event = event
        self.position = position
        self.reading = reading
        self._ack = ack

    async def ack(self) -> None:
        """Acknowledge the event; repetitions do nothing.

        After a StoreError it may be delivered again.
        """
        await self._ack(self)


Deliveries: TypeAlias = AsyncIterator[Delivery]


class DeliveryQueue:
    """Deliveries that have been fetched. No generator.

    Cancelling a wait for the next one must not end it.
    """

    def __init__(self) -> None:
        self._ready: deque[Delivery] = deque()
        self._has_news = asyncio.Event()
        self._failure: BaseException | None = None

    def attach_reader(self, reader: asyncio.Task[None]) -> None:
        """Raise the reader task's failure to waiting consumers, which would wait forever."""
        reader.add_done_callback(self._on_reader_done)

    def _on_reader_done(self, reader: asyncio.Task[None]) -> None:
        failure = None if reader.cancelled() else reader.exception()
        self._failure = failure or StoreUnavailable("this consumer has left its group")
        self._has_news.set()

    def put(self, delivery: Delivery) -> None:
        """Append one."""
        self._ready.append(delivery)
        self._has_news.set()

    def drop(self, should_drop: Callable[[Delivery], bool] = lambda delivery: True) -> None:
        """Drop queued deliveries that match `should_drop`."""
        self._ready = deque(
            queued_delivery for queued_delivery in self._ready if not should_drop(queued_delivery)
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            self._has_news.clear()
            await self._has_news.wait()
        return self._ready.popleft()


async def cancel_and_wait(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks` and wait for their end.

    Again where one loses its cancellation, as clients do on Python 3.11.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=RECANCEL_AFTER_S)


@runtime_checkable
class Broker(Protocol):
    """Store events and deliver them to groups.

    `agent_runtime.testing.conformance.broker` tests the contract:

    - When `publish` returns, the events are in the log once, in the given order.
    - Every group receives every event from its start on at least once. Within a stream the first
      deliveries are in order; after a failure earlier ones may be repeated, followed by all their
      successors.
    - One consumer of a group has a stream at a time: others of its name stand by, and take over.
    - `trim` removes nothing that a group has not acknowledged.
    """

    async def publish(self, events: Sequence[Event]) -> None:
        """Append stamped events; after an error some may be in the log.

        Repeating the same events is safe. Raises StoreError (StoreUnavailable, StoreTimeout,
        StoreFull), InputInvalid for an event that cannot be sent.
        """

    def consume(
        self, group: str, *, start: StartPosition = "earliest", prefetch: int = MAX_BATCH
    ) -> AbstractAsyncContextManager[Deliveries]:
        """Consume as a member of `group`.

        `async with broker.consume("audit") as deliveries: async for delivery in deliveries: ...`

        `start` is the start of a new group; `prefetch` bounds unacknowledged events. The iterator
        waits for more and never ends; lost connections are restored. Leaving hands over to a
        standby consumer.
        """

    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        """Return at most `limit` events after the position `after`, independent of groups.

        None starts with the oldest event. Waits up to `wait_s` for the first. Raises InputInvalid
        for an invalid position, StoreError.
        """

    def lag(self, group: str) -> Awaitable[int]:
        """Return how many events the group has not acknowledged; all for an unknown group."""

    def trim(self, keep: int) -> Awaitable[int]:
        """Remove the oldest events beyond the last `keep`, except those a group has not read.

        Returns how many were removed. A broker whose server has its own retention (Kafka) removes
        none.
        """

    def delete_group(self, group: str) -> Awaitable[None]:
        """Delete a group, so that it does not hold back `trim`."""

    async def aclose(self) -> None:
        """Close the connections."""
