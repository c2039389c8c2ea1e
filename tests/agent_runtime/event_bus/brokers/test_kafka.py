"""The broker on Kafka conforms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agent_runtime.event_bus.brokers import Broker, open_broker
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check
from agent_runtime.testing.conformance.broker_events import (
    broker_connection,
    make_events,
    take_events,
)


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
