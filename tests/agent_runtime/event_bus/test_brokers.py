"""One conformance suite, five brokers, each on its real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.event_bus.brokers import Broker, MemoryBroker, open_broker
from agent_runtime.testing.broker_conformance import BROKER_CHECKS, run_broker_check

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
async def test_every_broker_conforms(check: str, connect: Callable[[], Broker], no_tasks_left: None) -> None:
    await run_broker_check(check, connect)


@pytest.mark.timeout(150)
async def test_kafka_conforms(kafka_url: str, no_tasks_left: None) -> None:
    """All checks at once, each on a topic of its own: joining a group takes this server seconds."""

    def connects(check: str) -> Callable[[], Broker]:
        return lambda: open_broker(f"{kafka_url}&name={check}")

    checks = [run_broker_check(check, connects(check)) for check in BROKER_CHECKS]
    outcomes = await asyncio.gather(*checks, return_exceptions=True)
    failed = {check: repr(found) for check, found in zip(BROKER_CHECKS, outcomes, strict=True) if found is not None}
    assert failed == {}
