"""The broker in memory conforms."""

from __future__ import annotations

import pytest

from agent_runtime.event_bus.brokers import MemoryBroker
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_it_conforms(check: str, no_tasks_left: None) -> None:
    log = MemoryBroker()
    await run_broker_check(check, lambda: log)
