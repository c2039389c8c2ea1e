"""EventConsumer: a named consumer of a broker's events, with retries, dead letters and a graceful end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from agent_runtime.errors import ConfigurationError, StoreError
from agent_runtime.event_bus.brokers.broker import Broker, Delivery, Start
from agent_runtime.event_bus.cloud_event import to_cloud_event
from agent_runtime.event_bus.dead_letters import DeadLetter, DeadLetters, MemoryDeadLetters, put_aside
from agent_runtime.event_bus.event import Cause, Event, current_cause
from agent_runtime.event_bus.group import Filter
from agent_runtime.event_bus.seen_ids import MemorySeenIds, SeenIds

if TYPE_CHECKING:
    from agent_runtime.event_bus.bus import EventBus

LOG = logging.getLogger("agent_runtime.events")
Handle: TypeAlias = Callable[[Event], Awaitable[Any]]


class EventConsumer:
    """Calls `handler` with every event of a broker that matches, at least once, and each stream's in order.

    `async with EventConsumer(broker, "billing", handler): ...`, or `start()` and `stop()`. Several consumers of one
    name, in any number of processes, share the work.

    A handler that raises is called again after a pause; its stream waits, others go on. After `retries` further tries
    the event becomes a dead letter and the stream goes on. It is acknowledged after that, never before: whatever is
    killed, it comes again. An id that is known as handled is not handled again.

    Args:
        broker: whose events; the broker stays open.
        name: of the consumer and its group: 1 to 128 ASCII letters, digits, `_` and `-`.
        handler: an async function of the event. What it publishes or starts says that the event is its cause.
        patterns: of types; the others are acknowledged unseen.
        concurrency: how many events are handled at once, of different streams.
        retries: further tries of one event.
        backoff_s: the first pause; each doubles, to at most `max_backoff_s`, half of it at random.
        timeout_s: for one try, or None.
        dead_letters: where events go that cannot be handled; in memory by default.
        seen_ids: which were handled; in memory by default, which does not outlive the process.
        bus: where `dead_letter.added` is published.
        start: where the group begins when it is new.

    Raises ConfigurationError for settings that cannot work.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        handler: Handle,
        *,
        patterns: tuple[str, ...] = ("*",),
        concurrency: int = 8,
        retries: int = 5,
        backoff_s: float = 0.2,
        max_backoff_s: float = 30.0,
        timeout_s: float | None = None,
        dead_letters: DeadLetters | None = None,
        seen_ids: SeenIds | None = None,
        bus: EventBus | None = None,
        start: Start = "earliest",
    ) -> None:
        if concurrency < 1 or retries < 0 or backoff_s <= 0 or (timeout_s is not None and timeout_s <= 0):
            raise ConfigurationError("concurrency is 1 or more, retries 0 or more, pauses and timeouts above 0 seconds")
        self.name, self._broker, self._handler = name, broker, handler
        self._filter, self._start = Filter(patterns), start
        self._concurrency, self._retries, self._timeout_s = concurrency, retries, timeout_s
        self._backoff_s, self._max_backoff_s = backoff_s, max_backoff_s
        self.dead_letters: DeadLetters = dead_letters or MemoryDeadLetters()
        self._seen: SeenIds = seen_ids or MemorySeenIds()
        self._bus = bus
        self.handled = self.failed = self.retried = self.repeated = 0
        """Events handled, given up as dead letters, tries that failed, deliveries that were known."""
        self._waiting: dict[str, deque[Delivery]] = {}  # by stream: one at a time is handled
        self._working: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(concurrency)
        self._task: asyncio.Task[None] | None = None
        self._stopping, self._joined = asyncio.Event(), asyncio.Event()

    async def lag(self) -> int:
        """How many events are not acknowledged yet: the metric to alert on. Raises StoreError."""
        return await self._broker.lag(self.name)

    # -- the lifecycle -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.start()
        joined = asyncio.ensure_future(self._joined.wait())
        assert self._task is not None  # noqa: S101 - it has just been made
        await asyncio.wait({joined, self._task}, return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to consume, in a task of its own. Again: does nothing."""
        if self._task is None:
            self._stopping.clear()
            deliveries = self._broker.consume(
                self.name, start=self._start
            )  # what is wrong with the name is raised here
            self._task = asyncio.create_task(self._run(deliveries), name=f"agent_runtime consumer {self.name}")

    async def stop(self, grace_s: float = 30.0) -> int:
        """Take nothing new, and let what is being handled end for `grace_s` seconds.

        Returns how many handlers had to be cancelled; their events come again.
        """
        task, self._task = self._task, None
        if task is None:
            return 0
        self._stopping.set()
        for waiting in self._waiting.values():
            waiting.clear()
        if self._working:
            await asyncio.wait(self._working, timeout=grace_s)
        left = [each for each in self._working if not each.done()]
        for each in [*left, task]:
            each.cancel()
        await asyncio.wait({*left, task})
        self._waiting.clear()
        return len(left)

    # -- the work ------------------------------------------------------------------------------------------

    async def _run(self, consuming: Any) -> None:
        async with consuming as deliveries:
            self._joined.set()
            async for delivery in deliveries:
                if self._stopping.is_set():
                    return
                if not self._filter.wants(delivery.event.type):
                    await self._acknowledge(delivery)
                    continue
                stream = delivery.event.stream or delivery.position  # what belongs to no run waits for nothing
                if stream in self._waiting:
                    self._waiting[stream].append(delivery)
                    continue
                await self._slots.acquire()
                self._waiting[stream] = deque([delivery])
                work = asyncio.create_task(self._work_off(stream))
                self._working.add(work)
                work.add_done_callback(self._working.discard)

    async def _work_off(self, stream: str) -> None:
        waiting = self._waiting[stream]
        try:
            while waiting and not self._stopping.is_set():
                await self._deliver(waiting.popleft())
        finally:
            if self._waiting.get(stream) is waiting:
                del self._waiting[stream]
            self._slots.release()

    async def _deliver(self, delivery: Delivery) -> None:
        event = delivery.event
        while True:
            try:
                if await self._seen.seen(self.name, event.id):
                    self.repeated += 1
                elif not await self._handle(event):
                    return  # told to stop between two tries: it comes again
                else:
                    await self._seen.add(self.name, event.id)
                break
            except StoreError as error:
                LOG.warning("the consumer %s cannot record %s: %s", self.name, event.id, error)
                await self._pause(self._max_backoff_s)
                if self._stopping.is_set():
                    return
        await self._acknowledge(delivery)

    async def _handle(self, event: Event) -> bool:
        """Whether it is done with: handled, or a dead letter."""
        for attempt in range(1, self._retries + 2):
            token = current_cause.set(Cause(event.id, event.depth + 1))
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._handler(event)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises
                self.retried += 1
                if attempt > self._retries:
                    await self._give_up(event, error, attempt)
                    return True
                LOG.warning("the consumer %s failed on %s, try %d: %s", self.name, event.id, attempt, error)
            else:
                self.handled += 1
                return True
            finally:
                current_cause.reset(token)
            await self._pause(min(self._backoff_s * 2 ** (attempt - 1), self._max_backoff_s))
            if self._stopping.is_set():
                return False
        raise AssertionError("the last try returns")

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s * random.uniform(0.5, 1.0)):  # noqa: S311 - so that many do not come at once
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _give_up(self, event: Event, error: Exception, attempts: int) -> None:
        self.failed += 1
        LOG.error("the consumer %s gives up %s after %d tries", self.name, event.id, attempts, exc_info=error)
        letter = DeadLetter.of(self.name, to_cloud_event(event), error, attempts)
        await put_aside(self.dead_letters, letter)
        if self._bus is not None:
            data = {"letter_id": letter.id, "queue": self.name, "attempts": attempts, "error": letter.error}
            self._bus.publish(Event("dead_letter.added", data, event.run_id, event.session_id, tenant=event.tenant))

    async def _acknowledge(self, delivery: Delivery) -> None:
        try:
            await delivery.ack()
        except StoreError as error:  # it comes again, and is known then
            LOG.warning("the consumer %s cannot acknowledge %s: %s", self.name, delivery.event.id, error)
