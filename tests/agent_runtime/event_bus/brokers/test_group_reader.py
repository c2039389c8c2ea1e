"""One consumer of a group reads at a time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Event, EventBus
from agent_runtime.event_bus.brokers import Broker, MemoryBroker, open_broker
from agent_runtime.testing.conformance.broker_events import (
    broker_connection,
)

BROKERS = ("memory", "sqlite", "redis", "nats")


class SharedMemory:
    """One log in memory, to which several connect."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def __call__(self) -> Broker:
        return self.broker


@pytest.fixture(params=BROKERS)
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Broker]:
    """Opens connections to one new log."""
    kind: str = request.param
    name = uuid.uuid4().hex
    if kind == "memory":
        return SharedMemory()
    if kind == "sqlite":
        return lambda: open_broker(f"sqlite:{tmp_path / 'events.db'}")
    url: Any = request.getfixturevalue(f"{kind}_url")
    return lambda: open_broker(f"{url}?name={name}")


async def test_a_group_has_one_reader_at_a_time(connect: Callable[[], Broker]) -> None:
    taken_by: list[str] = []
    async with broker_connection(connect) as one, broker_connection(connect) as two:
        bus = EventBus()

        async def read(name: str, broker: Broker) -> None:
            async with broker.consume("g") as deliveries:
                async for delivery in deliveries:
                    taken_by.append(name)
                    await delivery.ack()

        first = asyncio.create_task(read("first", one))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(read("second", two))
        for _ in range(15):
            await one.publish([bus.stamp(Event("custom.x", session_id="s"))])
            await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            while len(taken_by) < 15:
                await asyncio.sleep(0.01)
        assert set(taken_by) == {"first"}
        for task in (first, second):
            task.cancel()
        await asyncio.wait({first, second})
