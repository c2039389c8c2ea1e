"""The bus beside its floors: deliveries, latency, the token path, frozen subscribers; and Redis Streams beside XADD."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

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
    counts, over, loop = [0] * subscribers, False, asyncio.get_running_loop()

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
        ours, queues, iterated, handled, deques, ring = (statistics.median(each) for each in zip(*rounds, strict=True))
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
    loop, taken = asyncio.get_running_loop(), list[float]()
    bus, clock = EventBus(), time.perf_counter_ns
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
    p50, p99 = statistics.median(taken) / 1000, statistics.quantiles(taken, n=100)[98] / 1000
    note = f"p50 {p50:.1f} us, p99 {p99:.1f} us; future {statistics.median(futures) / 1000:.1f} us"
    return Row("publish to handler, p50, against a bare future", statistics.median(ratios), 1.3, note=note)


def token_row() -> Row:
    bus, times = EventBus(), []
    for _ in range(41):
        started = time.process_time_ns()
        for _ in range(2000):
            bus.publish(Event("llm.new_token", None, "run", "session", "user"))
        times.append((time.process_time_ns() - started) / 2000 / 1000)
    return Row("making and publishing one event, no subscriber", statistics.median(times), 2, "us")


async def main() -> int:
    rows = [*await delivery_rows(), await latency_row(), token_row()]
    for row in rows:
        print(row.line())
    return any(row.missed for row in rows)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
