"""The broker on Redis conforms; what only it can do."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from agent_runtime import StoreUnavailable
from agent_runtime.event_bus.brokers import open_broker
from agent_runtime.event_bus.brokers.redis import RedisBroker
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check
from agent_runtime.testing.conformance.broker_events import (
    broker_connection,
    make_events,
    take_events,
)


async def test_redis_goes_on_behind_an_entry_that_was_removed(redis_url: str) -> None:
    broker = RedisBroker(redis_url, name=uuid.uuid4().hex)
    events = make_events(4)
    async with broker_connection(lambda: broker):
        await broker.publish(events)
        await take_events(broker, "g", 3, ack=lambda n: False)
        (first, *_) = await broker.read()
        await broker._run_command("xdel", broker._log, first.position)
        found = await take_events(broker, "g", 4)
    assert [event.type for event in found] == ["bus.unreadable", *["custom.check"] * 3]
    assert [event.seq for event in found[1:]] == [2, 3, 4]


async def test_redis_knows_a_batch_only_when_it_is_there(redis_url: str) -> None:
    broker = RedisBroker(redis_url, name=uuid.uuid4().hex)
    events = make_events(3)
    async with broker_connection(lambda: broker):
        await broker._run_command("set", broker._log, "not a stream")
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await broker.publish(events)
        await broker._run_command("delete", broker._log)
        await broker.publish(events)
        await broker._run_command("xadd", broker._log, {"foreign": "entry"})
        assert [stored.event.type for stored in await broker.read()] == [
            *["custom.check"] * 3,
            "bus.unreadable",
        ]


async def test_redis_does_not_spin_beside_an_open_event(redis_url: str) -> None:
    broker = RedisBroker(redis_url, name=uuid.uuid4().hex, lease_s=3.0)
    async with broker_connection(lambda: broker):
        await broker.publish(make_events(4))
        await take_events(broker, "g", 4, ack=lambda n: n == 3)
        async with broker.consume("g") as deliveries:
            for _ in range(3):
                await anext(deliveries)
            before = (await broker._run_command("info", "commandstats"))["cmdstat_xreadgroup"][
                "calls"
            ]
            await asyncio.sleep(1.0)
            after = (await broker._run_command("info", "commandstats"))["cmdstat_xreadgroup"][
                "calls"
            ]
    assert after - before < 20


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_it_conforms(check: str, redis_url: str, no_tasks_left: None) -> None:
    name = uuid.uuid4().hex
    await run_broker_check(check, lambda: open_broker(f"{redis_url}?name={name}"))
