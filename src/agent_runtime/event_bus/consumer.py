"""EventConsumer.

A named consumer of a broker's events, with retries, dead letters and a graceful end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import quote

from agent_runtime.errors import ConfigurationError
from agent_runtime.errors.backoff import Backoff
from agent_runtime.errors.user_code import as_user_exception, error_text
from agent_runtime.event_bus.brokers.broker import Broker, Delivery, StartPosition, cancel_and_wait
from agent_runtime.event_bus.brokers.validation import validate_group_name
from agent_runtime.event_bus.cloud_event import to_cloud_event
from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters, add_shielded
from agent_runtime.event_bus.deduplication import DeduplicationStore, MemoryDeduplicationStore
from agent_runtime.event_bus.event import DEFAULT_TENANT, Cause, Event, current_cause
from agent_runtime.event_bus.group import Filter
from agent_runtime.event_bus.sequence_gaps import SequenceGaps

if TYPE_CHECKING:
    from agent_runtime.event_bus.bus import EventBus

LOG = logging.getLogger("agent_runtime.events")
REJOIN_DELAY_S = 2.0
LAG_INTERVAL_S = 15.0
AsyncEventHandler: TypeAlias = Callable[[Event], Awaitable[Any]]


def _event_name(event: Event) -> str:
    """Return the name that an event is known by.

    An id is unique for its source, and a tenant's own.
    """
    tenant = quote(event.tenant or DEFAULT_TENANT, safe="")
    return f"{tenant}/{quote(event.source, safe='')}/{event.id}"


def _content_digest(event: Event) -> str:
    """Return a digest of an event's contents, which distinguishes two events of one id."""
    content = to_cloud_event(event)
    parts = [content.get(part) for part in ("type", "subject", "agent", "userid", "data")]
    return blake2b(
        json.dumps(parts, sort_keys=True, default=str).encode(errors="replace"), digest_size=16
    ).hexdigest()


class _Stopping(Exception):
    pass


class EventConsumer:
    """Call `handler` with each matching event of a broker, at least once and in order.

    `async with EventConsumer(broker, "billing", handler): ...`, or `start()` and `stop()`. Of
    several consumers of one name, in any number of processes, one reads and the others stand by (on
    Kafka they share its partitions).

    A failing handler is called again after a pause; its stream waits, others continue. After
    `retries` further attempts the event becomes a dead letter and the stream continues. The event
    is acknowledged only afterwards, so a killed process receives it again. Handled events are
    recognised by source, tenant and id and not handled again; the same id with other contents is
    reported as a `bus.conflict` on `bus`. A missing sequence number is counted in `missing`,
    logged, and reported as a `bus.gap` with the policy `log` on `bus`.

    Args:
        broker: the event log; it stays open.
        name: of the consumer and its group: 1 to 128 ASCII letters, digits, `_` and `-`.
        handler: an async function of the event, which becomes the cause of everything it publishes.
        patterns: of types; other events are acknowledged unhandled.
        concurrency: how many events are handled at once, of different streams.
        retries: further attempts at one event.
        backoff_s: the first pause; each one doubles, up to `max_backoff_s`, half of it at random.
        timeout_s: for one attempt, or None.
        dead_letters: the store of failed events; in memory by default.
        seen_ids: the store of handled ids; in memory by default, which does not outlive the
            process.
        bus: receives `dead_letter.added`, `bus.conflict` and `bus.gap`.
        start: the start of a new group.
        check_sequence: detect missing numbers; False for a log that a relay fills with some types
            only.

    Raises ConfigurationError for invalid settings.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        handler: AsyncEventHandler,
        *,
        patterns: tuple[str, ...] = ("*",),
        concurrency: int = 8,
        retries: int = 5,
        backoff_s: float = 0.2,
        max_backoff_s: float = 30.0,
        timeout_s: float | None = None,
        dead_letters: DeadLetters | None = None,
        seen_ids: DeduplicationStore | None = None,
        bus: EventBus | None = None,
        start: StartPosition = "earliest",
        check_sequence: bool = True,
    ) -> None:
        if (
            concurrency < 1
            or retries < 0
            or backoff_s <= 0
            or (timeout_s is not None and timeout_s <= 0)
        ):
            raise ConfigurationError(
                "concurrency is 1 or more, retries 0 or more, pauses and timeouts above 0 seconds"
            )
        self.name = validate_group_name(name)
        self._broker = broker
        self._handler = handler
        self._filter = Filter(patterns)
        self._start = start
        self._concurrency = concurrency
        self._retries = retries
        self._timeout_s = timeout_s
        self._backoff = Backoff(backoff_s, max_backoff_s, jitter=0.5)
        self.dead_letters: DeadLetters = dead_letters or MemoryDeadLetters()
        self._deduplication: DeduplicationStore = seen_ids or MemoryDeduplicationStore()
        self._bus = bus
        self._check_sequence = check_sequence
        self._gaps = SequenceGaps()
        self.handled = self.failed = self.retried = self.duplicates = 0
        """Events handled, given up as dead letters, tries that failed, deliveries that were known.
        """
        self.last_lag = 0
        """`lag()` as it was measured last, every `LAG_INTERVAL_S` seconds: for metrics."""
        self._pending_by_stream: dict[
            str, deque[Delivery]
        ] = {}  # by stream: one at a time is handled
        self._stream_tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(concurrency)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._has_joined = asyncio.Event()

    @property
    def missing(self) -> int:
        """Return how many sequence numbers are missing in the streams of the log."""
        return self._gaps.missing

    async def lag(self) -> int:
        """Return how many events are unacknowledged, the metric to alert on. Raises StoreError."""
        return await self._broker.lag(self.name)

    # -- the lifecycle

    async def __aenter__(self) -> Self:
        self.start()
        assert self._task is not None  # noqa: S101 - it has just been made
        joined = asyncio.ensure_future(self._has_joined.wait())
        try:
            await asyncio.wait({joined, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.stop(0)
            raise
        finally:
            joined.cancel()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Start consuming in a task; repetitions do nothing."""
        if self._task is None:
            self._stopping.clear()
            self._has_joined.clear()
            self._task = asyncio.create_task(
                self._run(), name=f"agent_runtime consumer {self.name}"
            )
            self._lag_task = asyncio.create_task(
                self._measure_lag(), name=f"agent_runtime lag of {self.name}"
            )

    async def stop(self, grace_s: float = 30.0) -> int:
        """Stop consuming; running handlers may finish within `grace_s` seconds.

        Returns how many handlers had to be cancelled; their events are delivered again. Cancelling
        `stop` cancels them at once.
        """
        if self._task is None:
            return 0
        self._stopping.set()
        for waiting in self._pending_by_stream.values():
            waiting.clear()
        unfinished_tasks: list[asyncio.Task[None]] = []
        try:
            if self._stream_tasks:
                await asyncio.wait(self._stream_tasks, timeout=grace_s)
        finally:
            unfinished_tasks = [task for task in self._stream_tasks if not task.done()]
            await cancel_and_wait(*unfinished_tasks, self._task, self._lag_task)
            self._task = None
            self._pending_by_stream.clear()
        return len(unfinished_tasks)

    # -- the work

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with self._broker.consume(self.name, start=self._start) as deliveries:
                    self._has_joined.set()
                    self._gaps.reset()
                    async for delivery in deliveries:
                        if self._stopping.is_set():
                            return
                        await self._dispatch(delivery)
            except Exception:
                LOG.exception("the consumer %s lost its broker, and joins again", self.name)
                with suppress(_Stopping):
                    await self._pause(REJOIN_DELAY_S)

    async def _measure_lag(self) -> None:
        while True:
            with suppress(Exception):  # a broken broker raises where it is read
                self.last_lag = await self.lag()
            await asyncio.sleep(LAG_INTERVAL_S)

    async def _dispatch(self, delivery: Delivery) -> None:
        if self._check_sequence and (gap := self._gaps.find_gap(delivery.event, delivery.reading)):
            self._report_gap(delivery.event, gap)
        stream = delivery.event.stream or delivery.position  # events of no run have no predecessor
        if stream not in self._pending_by_stream and not self._filter.matches_type(
            delivery.event.type
        ):
            await self._acknowledge(delivery)
            return
        if (
            stream in self._pending_by_stream
        ):  # also one that is not wanted: a stream is acknowledged in order
            self._pending_by_stream[stream].append(delivery)
            return
        await self._slots.acquire()
        self._pending_by_stream[stream] = deque([delivery])
        stream_task = asyncio.create_task(self._drain_stream(stream))
        self._stream_tasks.add(stream_task)
        stream_task.add_done_callback(self._stream_tasks.discard)

    async def _drain_stream(self, stream: str) -> None:
        waiting = self._pending_by_stream[stream]
        try:
            while waiting and not self._stopping.is_set():
                await self._deliver(waiting.popleft())
        finally:
            if self._pending_by_stream.get(stream) is waiting:
                del self._pending_by_stream[stream]
            self._slots.release()

    async def _deliver(self, delivery: Delivery) -> None:
        event = delivery.event
        if not self._filter.matches_type(event.type):
            await self._acknowledge(delivery)
            return
        try:
            name = _event_name(event)
            content_key = f"{name} {_content_digest(event)}"
            if await self._retry_forever(lambda: self._deduplication.contains(self.name, name)):
                self.duplicates += 1
                if not await self._retry_forever(
                    lambda: self._deduplication.contains(self.name, content_key)
                ):
                    self._publish_conflict(event)
            else:
                if (letter := await self._handle_with_retries(event)) is not None:
                    await self._retry_forever(lambda: add_shielded(self.dead_letters, letter))
                    self._publish_dead_letter(event, letter)
                # The contents first: a consumer killed in between receives the event again.
                await self._retry_forever(lambda: self._deduplication.add(self.name, content_key))
                await self._retry_forever(lambda: self._deduplication.add(self.name, name))
        except _Stopping:
            return  # not acknowledged, so it comes again
        await self._acknowledge(delivery)

    async def _retry_forever(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        """Return a store's answer, retrying until it succeeds."""
        failures = 0
        while True:
            try:
                return await operation()
            except BaseException as error:  # noqa: BLE001 - a store of the application's may fail as it likes
                failure = as_user_exception(error)
                text = error_text(failure)
                LOG.warning(
                    "the consumer %s cannot use its store: %s: %s",
                    self.name,
                    type(failure).__name__,
                    text,
                )
            failures += 1
            await self._pause(self._backoff.pause_s(failures))

    async def _handle_with_retries(self, event: Event) -> DeadLetter | None:
        """Return None for a handled event, or the dead letter."""
        attempt = 0
        while True:
            attempt += 1
            failure = await self._try_handler(event)
            if failure is None:
                self.handled += 1
                return None
            self.retried += 1
            if attempt > self._retries:
                self.failed += 1
                LOG.error(
                    "the consumer %s gives up %s after %d tries",
                    self.name,
                    event.id,
                    attempt,
                    exc_info=failure,
                )
                content = to_cloud_event(event)
                owner = {"tenant": event.tenant, "user": event.user_id}
                return DeadLetter.of(self.name, content, failure, attempt, **owner)
            text = error_text(failure)
            LOG.warning(
                "the consumer %s failed on %s, try %d: %s", self.name, event.id, attempt, text
            )
            await self._pause(self._backoff.pause_s(attempt))

    async def _try_handler(self, event: Event) -> BaseException | None:
        """Return the error of one attempt, or None.

        A handler's own CancelledError is a failure. Only the consumer's end cancels it.
        """
        token = current_cause.set(Cause(event.id, event.depth + 1))
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._handler(event)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises
            return as_user_exception(error)
        finally:
            current_cause.reset(token)
        return None

    async def _pause(self, pause_s: float) -> None:
        """Wait; raises _Stopping when the consumer is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise _Stopping

    def _publish_dead_letter(self, event: Event, letter: DeadLetter) -> None:
        if self._bus is not None:
            data = {
                "letter_id": letter.id,
                "queue": self.name,
                "attempts": letter.attempts,
                "error": letter.error,
            }
            self._bus.publish(
                Event(
                    "dead_letter.added", data, event.run_id, event.session_id, tenant=event.tenant
                )
            )

    def _publish_conflict(self, event: Event) -> None:
        LOG.warning(
            "the consumer %s has handled %s with other contents: this one is dropped",
            self.name,
            event.id,
        )
        if self._bus is not None:
            data = {"event_id": event.id, "queue": self.name, "event_type": event.type}
            self._bus.publish(
                Event("bus.conflict", data, event.run_id, event.session_id, tenant=event.tenant)
            )

    def _report_gap(self, event: Event, gap: range) -> None:
        numbers = str(gap[0]) if len(gap) == 1 else f"{gap[0]} to {gap[-1]}"
        LOG.warning(
            "the consumer %s: %s of the stream %r did not come", self.name, numbers, event.stream
        )
        if self._bus is not None:
            data = {"missed": len(gap), "policy": "log"}
            self._bus.publish(
                Event("bus.gap", data, event.run_id, event.session_id, tenant=event.tenant)
            )

    async def _acknowledge(self, delivery: Delivery) -> None:
        try:
            await delivery.ack()
        except Exception as error:  # noqa: BLE001 - it is sent again, or the event comes again and is known then
            LOG.warning(
                "the consumer %s cannot acknowledge %s: %s", self.name, delivery.event.id, error
            )
