"""Relay the events of an EventBus to a broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from agent_runtime.errors import StoreError, StoreTimeout, StoreUnavailable
from agent_runtime.errors.backoff import Backoff
from agent_runtime.event_bus.brokers.broker import MAX_BATCH, Broker, cancel_and_wait
from agent_runtime.event_bus.bus import EventBus
from agent_runtime.event_bus.event import Event

LOG = logging.getLogger("agent_runtime.events")
_BACKOFF = Backoff(0.05, 5.0)
TRIM_EVERY_BATCHES = 200  # batches


class Relay:
    """Publish every event of a bus to a broker, in order, in batches, retrying until acknowledged.

    `async with Relay(bus, broker): ...` sends the remaining events at the end. When the broker is
    out for longer than the buffer lasts, the oldest events are lost, and a `bus.gap` in the log has
    their number. An event that the broker refuses (it is too large) is logged, counted in
    `refused`, and skipped.

    Args:
        bus: the source.
        broker: the destination; it stays open.
        patterns: of types; all by default.
        buffer: the most events that wait for the broker.
        keep: how many events the broker's log keeps beyond what its groups need, or None for all.
    """

    def __init__(
        self,
        bus: EventBus,
        broker: Broker,
        patterns: Sequence[str] = ("*",),
        *,
        buffer: int = 100_000,
        keep: int | None = None,
    ) -> None:
        self._bus = bus
        self._broker = broker
        self._keep_count = keep
        self._subscription = bus.subscribe(*patterns, buffer=buffer)
        self.sent = self.refused = 0
        # since the start: events read from the subscription, and how many of them are done
        self._received_count = 0
        self._finished_count = 0
        self._progress = asyncio.Event()
        self._batch_count = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """Return how many events were lost because the broker was out for too long."""
        return self._subscription.dropped

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def start(self) -> None:
        """Start the relay in a task; repetitions do nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="agent_runtime event relay")

    async def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything published before is in the broker's log.

        Raises StoreTimeout when that takes longer, StoreUnavailable when the relay is not running.
        """
        target_count = self._received_count + self._subscription.waiting
        try:
            async with asyncio.timeout(timeout_s):
                while self._finished_count < target_count and self._task is not None:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise StoreTimeout(f"the broker did not take all events within {timeout_s} s") from None
        if self._finished_count < target_count:
            raise StoreUnavailable(
                "the relay is not running: these events are not in the broker's log"
            )

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Send the remaining events within `timeout_s` seconds, and end.

        Events left then are lost, and logged.
        """
        task = self._task
        self._task = None
        self._subscription.close()
        if task is None:
            return
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            if not task.done():
                unsent_count = (
                    self._received_count - self._finished_count + self._subscription.waiting
                )
                LOG.error("%d events could not be sent before the end", unsent_count)
            await cancel_and_wait(task)
            self._progress.set()

    async def _run(self) -> None:
        async for waiting_events in self._subscription.batches():
            self._received_count += len(waiting_events)
            for batch_start in range(0, len(waiting_events), MAX_BATCH):
                batch = waiting_events[batch_start : batch_start + MAX_BATCH]
                await self._send([self._ensure_sequence(event) for event in batch])
                self._finished_count += len(batch)
                self._progress.set()
            await self._trim()

    def _ensure_sequence(self, event: Event) -> Event:
        return (
            event if event.seq or event.own_id else self._bus.stamp(event)
        )  # a gap of the relay's own has no number yet

    async def _send(self, batch: list[Event]) -> None:
        failures = 0
        while True:
            try:
                await self._broker.publish(batch)
            except StoreError as error:
                failures += 1
                pause_s = _BACKOFF.pause_s(failures)
                LOG.warning(
                    "%d events wait for the broker, tried again in %.2f s: %s",
                    len(batch),
                    pause_s,
                    error,
                )
                await asyncio.sleep(pause_s)
            except Exception as error:  # noqa: BLE001 - one event must not hold up, or end, the log of all others
                await self._send_one_by_one(batch, error)
                return
            else:
                self.sent += len(batch)
                return

    async def _send_one_by_one(self, batch: list[Event], error: Exception) -> None:
        if len(batch) == 1:
            self.refused += 1
            LOG.error(
                "the event %r cannot be sent: %s: %s", batch[0].id, type(error).__name__, error
            )
            return
        for event in batch:
            await self._send([event])

    async def _trim(self) -> None:
        self._batch_count += 1
        if self._keep_count is not None and self._batch_count % TRIM_EVERY_BATCHES == 0:
            with suppress(StoreError):
                await self._broker.trim(self._keep_count)
