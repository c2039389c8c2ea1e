"""One conformance suite, five brokers, each on its real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Event, EventBus, StoreUnavailable
from agent_runtime.event_bus.brokers import Broker, MemoryBroker, open_broker
from agent_runtime.event_bus.brokers.nats import NatsBroker
from agent_runtime.event_bus.brokers.redis import RedisBroker
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check
from agent_runtime.testing.conformance.broker_events import (
    broker_connection,
    make_events,
    take_events,
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


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_every_broker_conforms(
    check: str, connect: Callable[[], Broker], no_tasks_left: None
) -> None:
    await run_broker_check(check, connect)


async def kafka_headers_that_are_no_text(connect: Callable[[], Broker]) -> None:
    """Others may put anything into a record's headers."""
    from aiokafka import AIOKafkaProducer

    from agent_runtime.event_bus.brokers.kafka import KafkaBroker
    from agent_runtime.event_bus.cloud_event import encode_event

    async with broker_connection(connect) as broker:
        assert isinstance(broker, KafkaBroker)
        events = make_events(2)
        await broker.publish(events[:1])
        producer = AIOKafkaProducer(bootstrap_servers=broker._servers)
        await producer.start()
        await producer.send_and_wait(
            broker.topic.name,
            encode_event(events[1]),
            key=events[1].stream.encode(),
            headers=[("trace", b"\xff\xfe")],
        )
        await producer.stop()
        assert [event.seq for event in await take_events(broker, "g", 2)] == [1, 2]


@pytest.mark.integration
@pytest.mark.timeout(150)
async def test_kafka_conforms(kafka_url: str, no_tasks_left: None) -> None:
    """All checks at once, each on a topic of its own: joining a group takes this server seconds."""

    def connects(check: str) -> Callable[[], Broker]:
        return lambda: open_broker(f"{kafka_url}&name={check}")

    checks = [run_broker_check(check, connects(check)) for check in BROKER_CHECKS]
    checks.append(kafka_headers_that_are_no_text(connects("headers")))
    outcomes = await asyncio.gather(*checks, return_exceptions=True)
    failed = {
        check: repr(found)
        for check, found in zip([*BROKER_CHECKS, "headers"], outcomes, strict=True)
        if found is not None
    }
    assert failed == {}


# -- what only one of them can do


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


LOOK = """import asyncio, sys
from agent_runtime import open_broker
async def main():
    broker = open_broker("sqlite:" + sys.argv[1])
    print(len(await broker.read()))
    await broker.aclose()
asyncio.run(main())
"""


async def test_several_connections_to_one_file_lose_nothing_to_another_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.db"
    first = open_broker(f"sqlite:{path}")
    second = open_broker(
        f"sqlite:{path}"
    )  # opening it again must not take away the first one's locks
    async with broker_connection(lambda: first), broker_connection(lambda: second):
        await first.publish(make_events(1))
        for count in (1, 2, 3):
            done = subprocess.run(
                [sys.executable, "-c", LOOK, str(path)], capture_output=True, text=True, check=True
            )
            assert int(done.stdout) == count
            assert len(await second.read()) == count
            await first.publish(make_events(1))


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
