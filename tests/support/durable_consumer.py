"""A durable subscriber that is killed at random points, behind a proxy that cuts connections.

Run as a program it is that subscriber: it handles events by appending them to a file, until it is
killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from agent_runtime.event_bus import Event, EventBus
from agent_runtime.event_bus.brokers import open_broker
from agent_runtime.event_bus.consumer import EventConsumer
from agent_runtime.event_bus.relay import Relay

LEASE_S = 1.0


async def subscribe(url: str, path: str) -> None:
    """Handle events until the end of the process: a line for each, written when it is handled."""
    out = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def handle(event: Event) -> None:
        await asyncio.sleep(random.random() * 0.02)
        os.write(out, f"{event.source} {event.stream} {event.seq}\n".encode())

    broker = open_broker(url, lease_s=LEASE_S)
    async with EventConsumer(broker, "audit", handle, concurrency=8):
        await asyncio.Event().wait()


def seen_in(path: Path) -> dict[tuple[str, str], list[int]]:
    """First deliveries by source and stream, in the order in which they were handled."""
    found: dict[tuple[str, str], dict[int, None]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        source, stream, seq = line.split(" ")
        found.setdefault((source, stream), {})[int(seq)] = None
    return {stream: list(seqs) for stream, seqs in found.items()}


async def prove(
    publish_url: str,
    subscribe_url: str,
    folder: Path,
    *,
    kills: int,
    events: int,
    seed: int,
    within_s: float = 40.0,
) -> dict[str, float]:
    """Publish while the subscriber is killed `kills` times.

    Asserts that it has seen everything in order.

    Returns how many deliveries there were, and how long it took.
    """
    dice = random.Random(seed)
    path = folder / "handled.txt"
    began_s = time.monotonic()
    command = [sys.executable, __file__, subscribe_url, str(path)]
    bus = EventBus()
    wanted = dict[tuple[str, str], list[int]]()
    broker = open_broker(publish_url, lease_s=LEASE_S)
    process = subprocess.Popen(command)
    before = 0
    try:
        async with Relay(bus, broker) as relay:
            for round_ in range(kills + 1):
                for _ in range(events // (kills + 1)):
                    event = bus.publish(Event("custom.durable", session_id=f"s{dice.randrange(5)}"))
                    wanted.setdefault((event.source, event.stream), []).append(event.seq)
                    if dice.random() < 0.1:
                        await asyncio.sleep(dice.random() * 0.02)
                if round_ < kills:
                    # While it works: somewhere in the first half of what this round has brought.
                    await handled(
                        path, before + dice.randrange(1, events // (kills + 1) // 2), within_s
                    )
                    before = lines_in(path)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    process = subprocess.Popen(command)
            await relay.flush(within_s)
        limit_s = time.monotonic() + within_s
        while (
            sum(map(len, seen_in(path).values())) < sum(map(len, wanted.values()))
            and time.monotonic() < limit_s
        ):
            await asyncio.sleep(0.1)
    finally:
        process.kill()
        process.wait()
        await broker.aclose()
    assert seen_in(path) == wanted, f"seed {seed}"
    return {
        "events": sum(map(len, wanted.values())),
        "deliveries": lines_in(path),
        "took_s": time.monotonic() - began_s,
    }


def lines_in(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def handled(path: Path, count: int, within_s: float) -> None:
    """Wait until so many deliveries were handled."""
    async with asyncio.timeout(within_s):
        while lines_in(path) < count:
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(subscribe(*sys.argv[1:3]))
