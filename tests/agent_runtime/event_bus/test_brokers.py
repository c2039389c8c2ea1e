"""One conformance suite, five brokers, each on its real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.event_bus.brokers import Broker, MemoryBroker, open_broker
from agent_runtime.testing.broker_conformance import BROKER_CHECKS, run_broker_check

BROKERS = ("memory", "sqlite", "redis", "nats", "kafka")


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
    join = "&" if "?" in url else "?"
    return lambda: open_broker(f"{url}{join}name={name}")


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_every_broker_conforms(check: str, connect: Callable[[], Broker], no_tasks_left: None) -> None:
    await run_broker_check(check, connect)
