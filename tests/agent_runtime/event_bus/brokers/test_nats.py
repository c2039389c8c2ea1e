"""The broker on NATS conforms; what only it can do."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from agent_runtime import Event, EventBus
from agent_runtime.event_bus.brokers import open_broker
from agent_runtime.event_bus.brokers.nats import NatsBroker
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check
from agent_runtime.testing.conformance.broker_events import (
    broker_connection,
    make_events,
)


async def test_a_nats_consumer_stops_also_under_traffic(nats_url: str, no_tasks_left: None) -> None:
    name = uuid.uuid4().hex
    async with broker_connection(lambda: open_broker(f"{nats_url}?name={name}")) as broker:
        bus = EventBus()
        stop = asyncio.Event()

        async def publish() -> None:
            while not stop.is_set():
                await broker.publish([bus.stamp(Event("custom.x"))])

        publishing = asyncio.create_task(publish())
        for _ in range(12):
            async with asyncio.timeout(8), broker.consume("g") as deliveries:
                await (await anext(deliveries)).ack()
        stop.set()
        await publishing


async def test_nats_takes_an_event_once(nats_url: str) -> None:
    async with broker_connection(
        lambda: open_broker(f"{nats_url}?name={uuid.uuid4().hex}")
    ) as broker:
        events = make_events(5)
        for _ in range(3):
            await broker.publish(events)
        assert len(await broker.read()) == 5


async def test_a_cancellation_that_the_nats_client_loses_is_found(nats_url: str) -> None:
    broker = NatsBroker(nats_url, name=uuid.uuid4().hex)
    lost = asyncio.Event()

    async def ask() -> str:
        async with broker._client():
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                lost.set()
        return "went on"

    async with broker_connection(lambda: broker):
        await broker.lag("g")
        task = asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert lost.is_set()


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_it_conforms(check: str, nats_url: str, no_tasks_left: None) -> None:
    name = uuid.uuid4().hex
    await run_broker_check(check, lambda: open_broker(f"{nats_url}?name={name}"))
