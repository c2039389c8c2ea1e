"""Create and read the events of broker checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from agent_runtime.event_bus import Event, EventBus
from agent_runtime.event_bus.brokers import Broker, Delivery

Connect = Callable[[], Broker]
WITHIN_S = 20.0


def streams_of(events: Iterable[Event]) -> dict[tuple[str, str], list[int]]:
    """Return the `seq`s of events, by source and stream, in the given order."""
    seqs_by_stream: dict[tuple[str, str], list[int]] = {}
    for event in events:
        seqs_by_stream.setdefault((event.source, event.stream), []).append(event.seq)
    return seqs_by_stream


def assert_complete(received: Iterable[Event], published: Iterable[Event]) -> None:
    """Check that every event was seen, in the order of its stream, without a gap."""
    firsts: dict[str, Event] = {}
    for event in received:
        firsts.setdefault(event.id, event)
    assert streams_of(firsts.values()) == streams_of(published)


def make_events(count: int, streams: int = 1, bus: EventBus | None = None) -> list[Event]:
    """Return stamped events that cycle through the streams."""
    bus = bus or EventBus()
    return [
        bus.stamp(Event("custom.check", {"n": n}, session_id=f"s{n % streams}", run_id="r"))
        for n in range(count)
    ]


@asynccontextmanager
async def broker_connection(connect: Connect) -> AsyncIterator[Broker]:
    """Open a connection for the duration of the context."""
    broker = connect()
    try:
        yield broker
    finally:
        await broker.aclose()


async def take_events(
    broker: Broker, group: str, count: int, *, ack: Any = True, **consume_options: Any
) -> list[Event]:
    """Return a group's next `count` events, acknowledged as `ack` says."""
    received_events: list[Event] = []
    async with asyncio.timeout(WITHIN_S), broker.consume(group, **consume_options) as deliveries:
        async for delivery in deliveries:
            received_events.append(delivery.event)
            if ack is True or (callable(ack) and ack(len(received_events) - 1)):
                await delivery.ack()
            if len(received_events) == count:
                break
    return received_events


async def take_some(
    deliveries: Any,
    count: int,
    consumer_names: list[str],
    received_events: list[Event],
    within_s: float,
) -> None:
    """Handle `count` deliveries."""
    for _ in range(count):
        try:
            async with asyncio.timeout(within_s):
                delivery: Delivery = await anext(deliveries)
        except TimeoutError:  # after a rebalance the other consumer may have them
            return
        consumer_names.append("first")
        received_events.append(delivery.event)
        await delivery.ack()
