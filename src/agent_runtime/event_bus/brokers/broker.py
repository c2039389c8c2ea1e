"""What every broker is: a durable, ordered log of events with named groups of consumers."""

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
    """An event in a broker's log.

    `position` is where it stands, an opaque text that `read(after=...)` takes.
    """

    position: str
    event: Event


class Delivery:
    """An event that was handed to a group, and stays the group's duty until `ack`.

    `position` is as in `StoredEvent`. `ack` says that it is handled; after a crash what was not
    acknowledged comes again. Deliveries of one stream and one `reading` follow each other in the
    log: no other consumer read in between.
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
        """Say that the event is handled. Raises StoreError; then it may come again. Again.

        Does nothing.
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
        """Who fetches them.

        What that task fails with is raised to whoever waits, instead of leaving them waiting.
        """
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
        """Forget those that nobody has taken yet, and that are `should_drop`."""
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
    """The seat for a broker.

    `agent_runtime.testing.conformance.broker` has the tests that each one passes.

    - What `publish` has returned for is in the log, once it is there in the order in which it was
      given.
    - Every group sees every event from its start on, each at least once. Within a stream the first
      deliveries are in order; after a failure older ones may come again, and then all that follow
      them.
    - At any time one consumer of a group has a stream: others of its name stand by, and take over
      when it is gone.
    - `trim` removes nothing that a group has not acknowledged.
    """

    async def publish(self, events: Sequence[Event]) -> None:
        """Append stamped events, all or, when it raises, perhaps some.

        Publishing the same again is safe.

        Raises StoreError (StoreUnavailable, StoreTimeout, StoreFull), InputInvalid for an event
        that cannot be sent.
        """

    def consume(
        self, group: str, *, start: StartPosition = "earliest", prefetch: int = MAX_BATCH
    ) -> AbstractAsyncContextManager[Deliveries]:
        """Consume as a member of `group`.

        `async with broker.consume("audit") as deliveries: async for delivery in deliveries: ...`

        `start` is where a new group begins; `prefetch` how many events may be unacknowledged at
        once. The iterator waits for more and never ends; connections that are lost are made again.
        Leaving hands over to who stands by.
        """

    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        """Return at most `limit` events behind the position `after`, without any group.

        With None it begins with the oldest event.

        Waits up to `wait_s` for the first. Raises InputInvalid for a position that is none,
        StoreError.
        """

    async def lag(self, group: str) -> int:
        """How many events the group has not acknowledged; of a group that is not there, all."""

    async def trim(self, keep: int) -> int:
        """Remove the oldest events beyond the last `keep`, none that a group has not read.

        Returns how many went. A broker whose server has a retention of its own (Kafka) removes
        nothing.
        """

    async def delete_group(self, group: str) -> None:
        """Forget a group, so that it holds back no trim."""

    async def aclose(self) -> None:
        """Close the connections."""
