"""What the checks of a broker share: events, and reading them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from agent_runtime.event_bus import Event, EventBus
from agent_runtime.event_bus.brokers import Broker, Delivery

Connect = Callable[[], Broker]
WITHIN_S = 20.0


def streams_of(events: Iterable[Event]) -> dict[tuple[str, str], list[int]]:
    """The `seq`s of events, by source and stream, in the order given."""
    found: dict[tuple[str, str], list[int]] = {}
    for event in events:
        found.setdefault((event.source, event.stream), []).append(event.seq)
    return found


def assert_complete(seen: Iterable[Event], published: Iterable[Event]) -> None:
    """Check that every event was seen, in the order of its stream, without a gap."""
    firsts: dict[str, Event] = {}
    for event in seen:
        firsts.setdefault(event.id, event)
    assert streams_of(firsts.values()) == streams_of(published)


def made(count: int, streams: int = 1, bus: EventBus | None = None) -> list[Event]:
    """Stamped events, one stream after the other in turn."""
    bus = bus or EventBus()
    return [
        bus.stamp(Event("custom.check", {"n": n}, session_id=f"s{n % streams}", run_id="r"))
        for n in range(count)
    ]


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[Broker]:
    """A connection that is closed at the end."""
    broker = connect()
    try:
        yield broker
    finally:
        await broker.aclose()


async def taken(
    broker: Broker, group: str, count: int, *, ack: Any = True, **how: Any
) -> list[Event]:
    """Return a group's next `count` events, acknowledged where `ack` says so."""
    found: list[Event] = []
    async with asyncio.timeout(WITHIN_S), broker.consume(group, **how) as deliveries:
        async for delivery in deliveries:
            found.append(delivery.event)
            if ack is True or (callable(ack) and ack(len(found) - 1)):
                await delivery.ack()
            if len(found) == count:
                break
    return found


async def take_some(
    deliveries: Any, count: int, seen: list[str], found: list[Event], within_s: float
) -> None:
    """Handle `count` deliveries."""
    for _ in range(count):
        try:
            async with asyncio.timeout(within_s):
                delivery: Delivery = await anext(deliveries)
        except (
            TimeoutError
        ):  # where a new consumer makes the group share its streams anew, the other may have them
            return
        seen.append("first")
        found.append(delivery.event)
        await delivery.ack()


async def refuses(kind: type[Exception], call: Awaitable[Any]) -> None:
    """Whether awaiting `call` raises an error of this kind."""
    try:
        await call
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")
