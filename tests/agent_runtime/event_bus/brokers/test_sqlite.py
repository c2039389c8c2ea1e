"""The broker in SQLite conforms; what only it can do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.event_bus.brokers import open_broker
from agent_runtime.testing.conformance.broker import BROKER_CHECKS, run_broker_check
from agent_runtime.testing.conformance.broker_events import (
    broker_connection,
    make_events,
)

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


@pytest.mark.parametrize("check", BROKER_CHECKS)
async def test_it_conforms(check: str, tmp_path: Path, no_tasks_left: None) -> None:
    await run_broker_check(check, lambda: open_broker(f"sqlite:{tmp_path / 'events.db'}"))
