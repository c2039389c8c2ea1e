"""Check that an event broker conforms, in any test suite.

    @pytest.mark.parametrize("check", BROKER_CHECKS)
    async def test_my_broker(check):
        await run_broker_check(check, lambda: MyBroker(url, name=fresh_name))

`connect` opens one more connection to the same log, which is empty at the start. A check raises
AssertionError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.event_bus.brokers import Broker, LeasedBroker
from agent_runtime.event_bus.cloud_event import to_cloud_event
from agent_runtime.testing.conformance.broker_events import (
    WITHIN_S,
    Connect,
    assert_complete,
    broker_connection,
    make_events,
    streams_of,
    take_events,
    take_some,
)
from agent_runtime.testing.conformance.checks import assert_raises


async def everything_comes_in_order_and_unchanged(connect: Connect) -> None:
    """Check that events are delivered as published, stream by stream."""
    events = make_events(50, streams=5)
    async with broker_connection(connect) as broker:
        await broker.publish(events[:20])
        await broker.publish(events[20:])
        received_events = await take_events(broker, "g", 50)
        assert streams_of(received_events) == streams_of(events)
        by_id = {event.id: to_cloud_event(event) for event in events}
        assert [to_cloud_event(event) == by_id[event.id] for event in received_events] == [
            True
        ] * 50
        assert await broker.lag("g") == 0


async def every_group_sees_everything(connect: Connect) -> None:
    """Check that every group receives every event."""
    events = make_events(10)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        for group in ("a", "b"):
            assert_complete(await take_events(broker, group, 10), events)


async def what_is_not_acknowledged_comes_again(connect: Connect) -> None:
    """Check that unacknowledged events come again, before their successors.

    Acknowledged ones do not.
    """
    events = make_events(10)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        first = await take_events(broker, "g", 6, ack=lambda n: n < 3)
        assert [e.seq for e in first] == [1, 2, 3, 4, 5, 6]
    async with broker_connection(connect) as broker:
        assert await broker.lag("g") == 7
        again = await take_events(broker, "g", 7)
        assert [e.seq for e in again] == [4, 5, 6, 7, 8, 9, 10]


async def acknowledging_out_of_order_loses_nothing(connect: Connect) -> None:
    """Check that acknowledging a later event does not acknowledge an earlier one."""
    events = make_events(10)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        await take_events(broker, "g", 10, ack=lambda n: n in (0, 1, 5, 9))
    async with broker_connection(connect) as broker:
        again: list[int] = []
        async with asyncio.timeout(WITHIN_S), broker.consume("g") as deliveries:
            async for delivery in deliveries:
                again.append(delivery.event.seq)
                await delivery.ack()
                if {3, 4, 5, 7, 8, 9} <= set(again):
                    break
        assert again == sorted(again)


async def one_consumer_of_a_group_reads_and_another_takes_over(connect: Connect) -> None:
    """Check that a second consumer receives a stream's events only after the first one's end."""
    events = make_events(20)
    consumer_names: list[str] = []
    received_events: list[Event] = []

    async def second(broker: Broker) -> None:
        async with broker.consume("g") as deliveries:
            async for delivery in deliveries:
                consumer_names.append("second")
                received_events.append(delivery.event)
                await delivery.ack()

    async with broker_connection(connect) as one, broker_connection(connect) as two:
        await one.publish(events[:10])
        async with asyncio.timeout(WITHIN_S), one.consume("g") as deliveries:
            await take_some(deliveries, 5, consumer_names, received_events, within_s=WITHIN_S)
            standing_by = asyncio.create_task(second(two))
            await take_some(deliveries, 5, consumer_names, received_events, within_s=3.0)
        await one.publish(events[10:])
        async with asyncio.timeout(WITHIN_S):
            while len({e.id for e in received_events}) < 20:
                await asyncio.sleep(0.05)
        standing_by.cancel()
        await asyncio.wait({standing_by})
    assert consumer_names[:5] == ["first"] * 5
    assert_complete(received_events, events)


async def a_group_can_begin_with_what_is_new(connect: Connect) -> None:
    """Check that `start="latest"` skips existing events of a new group, and only then."""
    events = make_events(10)
    async with broker_connection(connect) as broker:
        await broker.publish(events[:5])
        async with asyncio.timeout(WITHIN_S), broker.consume("g", start="latest") as deliveries:
            waiting = asyncio.ensure_future(anext(deliveries))
            await broker.publish(events[5:])
            delivery = await waiting
            assert delivery.event.seq == 6
            await delivery.ack()
        assert [e.seq for e in await take_events(broker, "g", 4, start="latest")] == [7, 8, 9, 10]


async def reading_goes_on_where_it_stopped(connect: Connect) -> None:
    """Check that `read` needs no group, and that a position is valid on other connections, too."""
    events = make_events(30)
    async with broker_connection(connect) as broker:
        assert await broker.read(wait_s=0.05) == []
        await broker.publish(events[:20])
        part = await broker.read(limit=7, wait_s=5)
        assert [s.event.seq for s in part] == list(range(1, 8))
    async with broker_connection(connect) as broker:
        rest = await broker.read(part[-1].position, limit=100, wait_s=5)
        assert [s.event.seq for s in rest] == list(range(8, 21))
        waiting = asyncio.create_task(broker.read(rest[-1].position, wait_s=10))
        await asyncio.sleep(0.2)
        await broker.publish(events[20:])
        assert (await waiting)[0].event.seq == 21
        await assert_raises(InputInvalid, broker.read("no position"))


async def publishing_again_is_safe(connect: Connect) -> None:
    """Check that publishing a batch again, after a lost reply, changes neither events nor order."""
    events = make_events(10)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        last = make_events(1, bus=EventBus(source="after"))
        await broker.publish(last)
        received_events: list[Event] = []
        async with asyncio.timeout(WITHIN_S), broker.consume("g") as deliveries:
            async for delivery in deliveries:
                received_events.append(delivery.event)
                await delivery.ack()
                if delivery.event.source == "after":
                    break
        assert_complete(received_events, [*events, *last])


async def concurrent_publishers_lose_nothing(connect: Connect) -> None:
    """Check that concurrent publishers lose no event and keep their order."""
    batches = [make_events(60, streams=3, bus=EventBus(source=f"bus-{n}")) for n in range(4)]

    async def publish(events: list[Event]) -> None:
        async with broker_connection(connect) as broker:
            for at in range(0, len(events), 10):
                await broker.publish(events[at : at + 10])

    await asyncio.gather(*(publish(batch) for batch in batches))
    async with broker_connection(connect) as broker:
        assert_complete(
            await take_events(broker, "g", 240), [e for batch in batches for e in batch]
        )


async def lag_counts_what_is_open(connect: Connect) -> None:
    """Check that `lag` counts unacknowledged events of existing and unknown groups."""
    async with broker_connection(connect) as broker:
        await broker.publish(make_events(8))
        await take_events(broker, "g", 3)
        assert await broker.lag("g") == 5
        assert await broker.lag("unknown") == 8


async def trimming_spares_what_a_group_has_not_handled(connect: Connect) -> None:
    """Check that `trim` removes no event that a group has not handled."""
    events = make_events(40)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        await take_events(broker, "fast", 40)
        await take_events(broker, "slow", 10)
        removed = await broker.trim(5)
        assert removed in (0, 10)
        assert [e.seq for e in await take_events(broker, "slow", 30)] == list(range(11, 41))
        await broker.trim(5)
        remaining_events = await broker.read(limit=100, wait_s=5)
        assert remaining_events[-1].event.seq == 40
        assert removed == 0 or len(remaining_events) == 5


async def events_after_a_full_trim_are_delivered(connect: Connect) -> None:
    """Check that positions are not used again after trimming has emptied the log."""
    events = make_events(6)
    async with broker_connection(connect) as broker:
        await broker.publish(events[:3])
        await take_events(broker, "g", 3)
        await broker.trim(0)
        await broker.publish(events[3:])
        assert [e.seq for e in await take_events(broker, "g", 3)] == [4, 5, 6]


async def a_consumer_without_the_lease_changes_nothing(connect: Connect) -> None:
    """Check the methods of a group's consumers, of a broker whose groups are leased."""
    async with broker_connection(connect) as broker:
        if not isinstance(broker, LeasedBroker):
            return
        await broker.publish(make_events(2))
        assert await broker.claim("g", "one", "earliest", 60.0)
        assert not await broker.claim("g", "two", "earliest", 60.0)
        fetched = await broker.fetch("g", "one", None, 10, 0.0)
        positions = [stored.position for stored in fetched]
        assert len(positions) == 2
        for after in (None, positions[0]):
            assert await broker.fetch("g", "two", after, 10, 0.0) == []
        assert not await broker.commit("g", "two", positions, positions[-1])
        await broker.release("g", "two")
        assert not await broker.claim("g", "two", "earliest", 60.0)
        assert await broker.lag("g") == 2
        assert await broker.commit("g", "one", positions, positions[-1])
        assert await broker.lag("g") == 0
        await broker.release("g", "one")
        assert await broker.claim("g", "two", "earliest", 60.0)


async def a_forgotten_group_begins_anew(connect: Connect) -> None:
    """Check that a deleted group restarts, and does not hold back `trim`."""
    events = make_events(10)
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        await take_events(broker, "g", 10)
        await broker.delete_group("g")
        await broker.delete_group("g")
        assert [e.seq for e in await take_events(broker, "g", 10)] == list(range(1, 11))


async def any_content_survives(connect: Connect) -> None:
    """Check that any content survives: Unicode, deep and large data, lone surrogates."""
    bus = EventBus()
    contents = [
        "\u0000\u2028 😀",
        {"a": {"b": [None, True, 1.5, "word " * 40_000]}},
        ["\ud800"],
        "",
        None,
        0,
    ]
    events = [
        bus.stamp(Event("custom.content", content, session_id="s", tenant="t-1", agent="é"))
        for content in contents
    ]
    async with broker_connection(connect) as broker:
        await broker.publish(events)
        received_events = await take_events(broker, "g", len(contents))
    assert [e.data for e in received_events[:2]] == contents[:2]
    assert received_events[2].data == ["?"]
    assert [e.data for e in received_events[3:]] == contents[3:]
    assert {(e.tenant, e.agent, e.session_id) for e in received_events} == {("t-1", "é", "s")}


async def what_cannot_work_is_refused(connect: Connect) -> None:
    """Check that a batch with an event without a sequence number, and group names, are refused."""
    async with broker_connection(connect) as broker:
        await broker.publish([])
        good = make_events(2)
        bad = [good[0], Event("custom.check"), good[1]]
        await assert_raises(InputInvalid, broker.publish(bad))
        assert await broker.read(wait_s=0.1) == []
        for name in ("", "a b", "x" * 129, "ü", "a.b"):
            try:
                broker.consume(name)
            except ConfigurationError:
                continue
            raise AssertionError(f"the group {name!r} was taken")


BROKER_CHECKS: dict[str, Callable[[Connect], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        everything_comes_in_order_and_unchanged,
        every_group_sees_everything,
        what_is_not_acknowledged_comes_again,
        acknowledging_out_of_order_loses_nothing,
        one_consumer_of_a_group_reads_and_another_takes_over,
        a_group_can_begin_with_what_is_new,
        reading_goes_on_where_it_stopped,
        publishing_again_is_safe,
        concurrent_publishers_lose_nothing,
        lag_counts_what_is_open,
        trimming_spares_what_a_group_has_not_handled,
        events_after_a_full_trim_are_delivered,
        a_consumer_without_the_lease_changes_nothing,
        a_forgotten_group_begins_anew,
        any_content_survives,
        what_cannot_work_is_refused,
    )
}
"""Every check by its name."""


async def run_broker_check(name: str, connect: Connect) -> None:
    """Run one check of `BROKER_CHECKS` on an empty log."""
    await BROKER_CHECKS[name](connect)
