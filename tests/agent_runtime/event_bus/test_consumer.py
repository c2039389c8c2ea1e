"""The consumer.

At least once, in order of each stream, retried, put aside, once by id, a graceful end.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.support.waiting import FAST, until

from agent_runtime import ConfigurationError, Event, EventBus, StoreUnavailable
from agent_runtime.event_bus.brokers import Delivery, MemoryBroker, SqliteBroker, open_broker
from agent_runtime.event_bus.brokers.group_reader import LeasedConsumer
from agent_runtime.event_bus.consumer import EventConsumer
from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.event_bus.dead_letters import (
    MemoryDeadLetters,
    SqliteDeadLetters,
    open_dead_letters,
)
from agent_runtime.event_bus.deduplication import MemoryDeduplicationStore, SqliteDeduplicationStore
from agent_runtime.event_bus.relay import Relay
from agent_runtime.event_bus.sequence_gaps import SequenceGaps
from agent_runtime.testing.conformance.broker_events import make_events, streams_of


async def test_each_stream_comes_in_order_and_streams_go_on_beside_each_other() -> None:
    broker = MemoryBroker()
    events = make_events(60, streams=6)
    await broker.publish(events)
    seen: list[Event] = []
    at_once = most = 0

    async def handle(event: Event) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        seen.append(event)

    async with EventConsumer(broker, "c", handle, concurrency=4) as consumer:
        await until(lambda: len(seen) == 60)
        await until(lambda: consumer.handled == 60)
    assert streams_of(seen) == streams_of(events)
    assert most == 4
    assert await broker.lag("c") == 0


async def test_a_failing_handler_is_tried_again_and_its_stream_waits() -> None:
    broker = MemoryBroker()
    events = make_events(6, streams=2)
    await broker.publish(events)
    seen: list[tuple[str | None, int]] = []
    failures = 3

    async def handle(event: Event) -> None:
        nonlocal failures
        if event.session_id == "s0" and event.seq == 2 and failures:
            failures -= 1
            raise ValueError("not yet")
        seen.append((event.session_id, event.seq))

    async with EventConsumer(broker, "c", handle, **FAST) as consumer:
        await until(lambda: len(seen) == 6)
    assert [n for s, n in seen if s == "s0"] == [1, 2, 3]
    assert (consumer.retried, consumer.failed) == (3, 0)


async def test_what_cannot_be_handled_is_put_aside_and_the_stream_goes_on() -> None:
    broker = MemoryBroker()
    letters = MemoryDeadLetters()
    bus = EventBus()
    await broker.publish(make_events(3))
    handled: list[int] = []

    async def handle(event: Event) -> None:
        if event.seq == 2:
            raise ValueError("password=hunter2hunter2")
        handled.append(event.seq)

    told = bus.subscribe("dead_letter.*")
    async with EventConsumer(
        broker, "c", handle, retries=2, dead_letters=letters, bus=bus, **FAST
    ) as consumer:
        await until(lambda: handled == [1, 3])
    (letter,) = await letters.list("c")
    assert (letter.attempts, letter.error, letter.payload["data"]) == (3, "ValueError", {"n": 1})
    assert "hunter2hunter2" not in str(letter)
    assert consumer.failed == 1
    assert (await anext(told)).data["letter_id"] == letter.id
    assert await broker.lag("c") == 0


async def test_an_event_is_acknowledged_after_it_was_handled_not_before(tmp_path: Path) -> None:
    broker = SqliteBroker(str(tmp_path / "events.db"))
    await broker.publish(make_events(3))
    began = asyncio.Event()

    async def stuck(event: Event) -> None:
        began.set()
        await asyncio.sleep(60)

    consumer = EventConsumer(broker, "c", stuck)
    consumer.start()
    await began.wait()
    assert await consumer.stop(grace_s=0.01) == 1
    assert await broker.lag("c") == 3
    again: list[int] = []

    async def handle(event: Event) -> None:
        again.append(event.seq)

    async with EventConsumer(broker, "c", handle):
        await until(lambda: again == [1, 2, 3])
    await broker.aclose()


async def test_stopping_lets_what_is_under_way_end_and_takes_nothing_new(
    no_tasks_left: None,
) -> None:
    broker = MemoryBroker()
    await broker.publish(make_events(50, streams=50))
    done: list[int] = []
    began = asyncio.Event()

    async def handle(event: Event) -> None:
        began.set()
        await asyncio.sleep(0.05)
        done.append(event.seq)

    consumer = EventConsumer(broker, "c", handle, concurrency=4)
    consumer.start()
    await began.wait()
    assert await consumer.stop() == 0
    assert len(done) == 4
    assert await broker.lag("c") >= 46


class Twice:
    """A broker that delivers everything twice, as one does after a lost acknowledgement."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self.acks = 0

    def consume(self, *args: Any, **kwargs: Any) -> Any:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def consuming() -> AsyncIterator[AsyncIterator[Delivery]]:
            yield self._deliveries()

        return consuming()

    async def _deliveries(self) -> AsyncIterator[Delivery]:
        for event in [*self._events, *self._events]:
            yield Delivery(event, str(event.seq), self._ack)
        await asyncio.sleep(60)

    async def _ack(self, delivery: Delivery) -> None:
        self.acks += 1
        if self.acks == 1:
            raise StoreUnavailable("not now")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_id_that_was_handled_is_not_handled_again(kind: str, tmp_path: Path) -> None:
    broker: Any = Twice(make_events(4))
    seen_ids = (
        MemoryDeduplicationStore()
        if kind == "memory"
        else SqliteDeduplicationStore(str(tmp_path / "seen.db"))
    )
    handled: list[int] = []

    async def handle(event: Event) -> None:
        handled.append(event.seq)

    async with EventConsumer(broker, "c", handle, seen_ids=seen_ids) as consumer:
        await until(lambda: broker.acks == 8)
    assert handled == [1, 2, 3, 4]
    assert consumer.duplicates == 4
    await seen_ids.aclose()


async def test_a_try_that_takes_too_long_is_cancelled() -> None:
    broker = MemoryBroker()
    await broker.publish(make_events(1))

    async def handle(event: Event) -> None:
        await asyncio.sleep(60)

    async with EventConsumer(broker, "c", handle, timeout_s=0.01, retries=1, **FAST) as consumer:
        await until(lambda: consumer.failed == 1)
    assert [letter.error for letter in await consumer.dead_letters.list()] == ["TimeoutError"]


async def test_types_that_are_not_wanted_are_passed_over() -> None:
    broker = MemoryBroker()
    bus = EventBus()
    await broker.publish([bus.stamp(Event(kind)) for kind in ("custom.a", "custom.b", "custom.a")])
    seen: list[str] = []

    async def handle(event: Event) -> None:
        seen.append(event.type)

    async with EventConsumer(broker, "c", handle, patterns=("*.b",)):
        await until(lambda: seen == ["custom.b"])
        await asyncio.sleep(0.05)
    assert await broker.lag("c") == 0


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_number_that_is_missing_in_a_stream_is_reported(
    kind: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = (
        MemoryBroker() if kind == "memory" else open_broker(f"{redis_url}?name={uuid.uuid4().hex}")
    )
    events = [
        Event("custom.x", {"n": n}, source="s", session_id="a", seq=n)
        for n in (1, 3, 2, 4, 4, 6, 5, 7, 9, 10)
    ]
    bus = EventBus()
    handled = list[int]()
    gaps = bus.subscribe("bus.gap")

    async def handle(event: Event) -> None:
        handled.append(event.seq)

    async with EventConsumer(broker, "c", handle, bus=bus) as consumer:
        for event in events:
            await broker.publish([event])
        await until(lambda: handled[-1:] == [10])
        assert consumer.missing == 1
    assert handled == [1, 3, 2, 4, 6, 5, 7, 9, 10]
    assert "8 of the stream 'a' did not come" in caplog.text
    bus.close()
    assert [(e.session_id, e.data) async for e in gaps] == [
        ("a", {"missed": 1, "policy": "log"})
    ] * 3
    await broker.aclose()


async def test_no_number_is_missing_after_another_consumer_or_where_types_are_left_out() -> None:
    broker = MemoryBroker()
    events = make_events(30, streams=2)

    async def handle(event: Event) -> None:
        pass

    one = EventConsumer(broker, "c", handle)
    other = EventConsumer(broker, "c", handle)
    for consumer, batch, handled in (
        (one, events[:10], 10),
        (other, events[10:20], 10),
        (one, events[20:], 20),
    ):
        async with consumer:
            await broker.publish(batch)
            await until(lambda: consumer.handled == handled)  # noqa: B023 - awaited in this round
    assert (one.missing, other.missing) == (0, 0)
    partial = MemoryBroker()
    await partial.publish(events[::3])
    async with EventConsumer(partial, "d", handle, check_sequence=False) as consumer:
        await until(lambda: consumer.handled == 10)
    assert consumer.missing == 0


async def test_a_stream_is_acknowledged_in_order_also_what_is_not_wanted() -> None:
    broker = MemoryBroker()
    bus = EventBus()
    await broker.publish(
        [bus.stamp(Event(kind, session_id="s")) for kind in ("custom.a", "custom.b", "custom.a")]
    )
    acknowledged = list[int]()
    free = asyncio.Event()
    ack = LeasedConsumer._ack

    async def noted(self: LeasedConsumer, delivery: Delivery) -> None:
        acknowledged.append(delivery.event.seq)
        await ack(self, delivery)

    async def handle(event: Event) -> None:
        await free.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeasedConsumer, "_ack", noted)
        async with EventConsumer(broker, "c", handle, patterns=("*.a",)) as consumer:
            await until(lambda: len(consumer._pending_by_stream.get("s", ())) == 2)
            assert acknowledged == []
            free.set()
            await until(lambda: len(acknowledged) == 3)
    assert acknowledged == [1, 2, 3]


def test_one_number_far_ahead_hides_no_gap_behind_it() -> None:
    gaps = SequenceGaps()
    numbers = [
        gaps.find_gap(Event("custom.x", session_id="s", seq=seq), 0) for seq in (1, 10**17, 2, 4)
    ]
    assert [len(each) for each in numbers] == [0, 10**17 - 2, 0, 1]
    assert gaps.missing == 1
    for seq in (10**8, 10**8 + 1):
        gaps.find_gap(Event("custom.x", session_id="s", seq=seq), 0)
    assert not gaps.find_gap(Event("custom.x", session_id="s", seq=10**8 + 2), 0)


def test_streams_whose_numbers_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.event_bus.sequence_gaps.MAX_STREAMS", 3)
    gaps = SequenceGaps()
    for n in range(50):
        assert not gaps.find_gap(Event("custom.x", session_id=f"s{n}", seq=1), 0)
        assert len(gaps._streams) <= 3
    assert gaps.find_gap(Event("custom.x", session_id="s49", seq=10**6), 0) == range(2, 10**6)
    assert len(gaps._streams["", "s49"].missing) == 100


async def test_what_a_handler_publishes_names_its_cause() -> None:
    broker = MemoryBroker()
    bus = EventBus()
    first = bus.stamp(Event("custom.a", session_id="s"))
    await broker.publish([first])
    made_by_it = bus.subscribe("custom.b")

    async def handle(event: Event) -> None:
        bus.publish(Event("custom.b"))

    async with EventConsumer(broker, "c", handle), asyncio.timeout(5):
        event = await anext(made_by_it)
    assert (event.cause, event.depth) == (first.id, 1)


@pytest.mark.parametrize(
    "bad", [{"concurrency": 0}, {"retries": -1}, {"backoff_s": 0}, {"timeout_s": 0}]
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    async def handle(event: Event) -> None: ...

    with pytest.raises(ConfigurationError):
        EventConsumer(MemoryBroker(), "c", handle, **bad)


async def test_a_log_entry_that_is_no_event_stops_nobody(tmp_path: Path) -> None:
    broker = SqliteBroker(str(tmp_path / "events.db"))
    await broker.publish(make_events(1))
    broker._db.execute(
        "INSERT INTO events (id, type, time_s, event) VALUES ('x', 'x', 0, ?)", [b"\xff{"]
    )
    await broker.publish(make_events(1))
    seen: list[str] = []

    async def handle(event: Event) -> None:
        seen.append(event.type)

    async with EventConsumer(broker, "c", handle):
        await until(lambda: len(seen) == 3)
    assert seen == ["custom.check", "bus.unreadable", "custom.check"]
    await broker.aclose()


# -- dead letters


@pytest.fixture(params=["memory", "sqlite"])
async def letters(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DeadLetters]:
    made_there = open_dead_letters(
        "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'dead.db'}"
    )
    yield made_there
    await made_there.aclose()


async def test_letters_are_kept_found_and_thrown_away(letters: DeadLetters) -> None:
    first = DeadLetter.of("a", {"n": 1}, ValueError("x"), 3)
    second = DeadLetter.of("b", {"n": 2}, KeyError("y"), 1)
    for each in (first, second, first):
        await letters.add(each)
    assert list(await letters.list()) == [first, second]
    assert list(await letters.list("b")) == [second]
    assert (await letters.count(), await letters.count("a")) == (2, 1)
    assert await letters.get(first.id) == first
    assert (await letters.remove(first.id), await letters.remove(first.id)) == (True, False)
    assert await letters.get(first.id) is None


async def test_letters_in_memory_are_bounded_and_in_sqlite_outlive_the_process(
    tmp_path: Path,
) -> None:
    small = MemoryDeadLetters(max_letters=2)
    for n in range(5):
        await small.add(DeadLetter("q", n, "E"))
    assert ([each.payload for each in await small.list()], small.dropped) == ([3, 4], 3)
    path = str(tmp_path / "dead.db")
    store = SqliteDeadLetters(path)
    await store.add(DeadLetter("q", "\ud800 x", "E"))
    await store.aclose()
    store = SqliteDeadLetters(path)
    assert await store.count("q") == 1
    await store.aclose()
    with pytest.raises(ConfigurationError):
        open_dead_letters("nats://x")


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_dead_letters_are_kept_alike_everywhere(
    kind: str, tmp_path: Path, request: Any
) -> None:
    if kind == "redis":
        url = f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"
    else:
        url = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'dead.db'}"
    letters = open_dead_letters(url)
    assert (await letters.list(), await letters.count(), await letters.get("x")) == ([], 0, None)
    for number, queue in enumerate(["a", "b", "a"]):
        await letters.add(DeadLetter(queue, {"n": number}, "E", id=f"letter-{number}"))
    again = DeadLetter("b", "changed", "E", id="letter-0")
    await letters.add(again)  # a known id changes nothing
    assert [each.id for each in await letters.list()] == ["letter-0", "letter-1", "letter-2"]
    assert [each.id for each in await letters.list("a")] == ["letter-0", "letter-2"]
    assert [each.id for each in await letters.list(limit=1)] == ["letter-0"]
    assert (await letters.count(), await letters.count("a"), await letters.count("none")) == (
        3,
        2,
        0,
    )
    letter = await letters.get("letter-0")
    assert letter is not None
    assert (letter.queue, letter.payload) == ("a", {"n": 0})
    assert await letters.remove("letter-0")
    assert not await letters.remove("letter-0")
    assert [each.id for each in await letters.list("a")] == ["letter-2"]
    await letters.aclose()


# -- the relay


class Flaky(MemoryBroker):
    """Out for the first publishes."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def publish(self, events: Any) -> None:
        if self.failures:
            self.failures -= 1
            await super().publish(
                events[: len(events) // 2]
            )  # half of it arrived, and the answer was lost
            raise StoreUnavailable("not now")
        await super().publish(events)


async def test_a_relay_hands_over_everything_in_order_also_when_the_broker_is_out() -> None:
    bus = EventBus()
    broker = Flaky(3)
    async with Relay(bus, broker) as relay:
        for n in range(1200):
            bus.publish(Event("custom.x", n, session_id=f"s{n % 3}"))
        await relay.flush()
        stored = [each.event for each in await broker.read(limit=5000)]
        assert streams_of(stored) == {(bus.source, f"s{n}"): list(range(1, 401)) for n in range(3)}
        bus.publish(Event("custom.x", "last", session_id="s0"))
    assert (await broker.read(limit=5000))[-1].event.data == "last"
    assert relay.dropped == 0


async def test_a_relay_that_loses_events_writes_down_how_many() -> None:
    bus = EventBus()
    broker = Flaky(2)
    async with Relay(bus, broker, buffer=10) as relay:
        bus.publish(Event("custom.x", 0))
        await asyncio.sleep(0.01)
        for n in range(30):
            bus.publish(Event("custom.x", n + 1))
        await relay.flush()
    stored = [each.event for each in await broker.read()]
    assert [e.data for e in stored if e.type == "bus.gap"] == [
        {"missed": 20, "policy": "drop_oldest"}
    ]
    assert relay.dropped == 20


async def test_an_event_that_cannot_be_sent_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    bus = EventBus()
    broker = SqliteBroker(str(tmp_path / "events.db"))
    async with Relay(bus, broker) as relay:
        for data in ("a", "word " * 2_000_000, "b"):
            bus.publish(Event("custom.x", data))
        await relay.flush()
        assert [each.event.data for each in await broker.read()] == ["a", "b"]
    assert relay.refused == 1
    await broker.aclose()


async def test_a_relay_ends_even_when_the_broker_does_not_come_back(no_tasks_left: None) -> None:
    bus = EventBus()
    relay = Relay(bus, Flaky(10**6))
    relay.start()
    bus.publish(Event("custom.x"))
    await relay.aclose(timeout_s=0.05)


# -- mishaps


class Model(BaseModel):
    x: int = 1


def cyclic() -> Any:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "bad",
    [
        Event("custom.x", cyclic()), Event("custom.x", run_id="\ud800"), Event("custom.x",
        occurred_at=float("nan")),
        Event("custom.x", 10**5000), Event("custom.x", user_id="\udfff"),
    ],
)  # fmt: skip
async def test_an_event_that_cannot_be_said_is_refused_and_the_others_are_sent(
    bad: Event, tmp_path: Path
) -> None:
    bus = EventBus()
    broker = SqliteBroker(str(tmp_path / "events.db"))
    async with Relay(bus, broker) as relay:
        bus.publish(bad)
        bus.publish(Event("custom.x", Model))  # a class says its name
        await relay.flush()
        assert relay.refused == 1
        assert [each.event.data for each in await broker.read()] == ["Model"]
    await broker.aclose()


async def test_a_flush_does_not_succeed_where_nothing_runs() -> None:
    bus = EventBus()
    relay = Relay(bus, MemoryBroker())
    bus.publish(Event("custom.x"))
    with pytest.raises(StoreUnavailable, match="not running"):
        await relay.flush()


async def test_a_handler_that_ends_in_a_cancellation_of_its_own_has_failed() -> None:
    broker = MemoryBroker()
    await broker.publish(make_events(6))
    handled: list[int] = []

    async def handle(event: Event) -> None:
        if event.seq == 2 and not handled[1:]:
            inner = asyncio.ensure_future(asyncio.sleep(60))
            inner.cancel()
            await inner
        handled.append(event.seq)

    async with EventConsumer(broker, "c", handle, retries=1, **FAST) as consumer:
        await until(lambda: len(handled) == 5)
    assert handled == [1, 3, 4, 5, 6]
    assert consumer.failed == 1


async def test_others_go_on_beside_a_stream_that_waits_for_long() -> None:
    broker = MemoryBroker()
    await broker.publish(make_events(3000, streams=3))
    handled: list[str] = []

    async def handle(event: Event) -> None:
        if event.session_id == "s0":
            await asyncio.sleep(60)
        handled.append(event.id)

    consumer = EventConsumer(broker, "c", handle)
    consumer.start()
    await until(
        lambda: len(handled) >= 990
    )  # 500 of the stuck stream wait, and as many of each other one were handled
    await consumer.stop(0)


class Stumbling(MemoryBroker):
    """Its first acknowledgement fails."""

    failures = 1

    async def commit(self, *args: Any) -> bool:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("not now")
        return await super().commit(*args)


async def test_an_acknowledgement_that_failed_is_sent_again() -> None:
    broker = Stumbling()
    await broker.publish(make_events(1))
    async with broker.consume("g", prefetch=1) as deliveries, asyncio.timeout(10):
        with pytest.raises(StoreUnavailable):
            await (await anext(deliveries)).ack()
        while await broker.lag("g"):  # without another acknowledgement that would take it along
            await asyncio.sleep(0.01)


class Out:
    """A store of handled ids, or of letters, that fails a few times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0
        self.ids = MemoryDeduplicationStore()
        self.letters = MemoryDeadLetters()

    async def contains(self, *args: Any) -> bool:
        return await self.ids.contains(*args)

    async def add(self, *args: Any) -> None:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise OSError("not now")
        await (self.letters if len(args) == 1 else self.ids).add(*args)

    async def aclose(self) -> None: ...


async def test_a_record_that_fails_does_not_call_the_handler_again() -> None:
    broker = MemoryBroker()
    calls = list[int]()
    await broker.publish(make_events(1))

    async def handle(event: Event) -> None:
        calls.append(event.seq)

    async with EventConsumer(broker, "c", handle, seen_ids=Out(3), **FAST):
        await until_async(lambda: broker.lag("c"), 0)
    assert calls == [1]


async def test_a_letter_that_cannot_be_kept_is_not_tried_anew() -> None:
    broker = MemoryBroker()
    calls = list[int]()
    letters = Out(3)
    await broker.publish(make_events(1))

    async def handle(event: Event) -> None:
        calls.append(event.seq)
        raise ValueError("no")

    store: Any = letters
    async with EventConsumer(
        broker, "c", handle, retries=1, dead_letters=store, **FAST
    ) as consumer:
        await until_async(lambda: broker.lag("c"), 0)
    assert (calls, consumer.failed, letters.asked) == ([1, 1], 1, 4)


async def until_async(ask: Any, wanted: Any) -> None:
    async with asyncio.timeout(10):
        while await ask() != wanted:
            await asyncio.sleep(0.005)


class Broken(MemoryBroker):
    """Raises what no broker should, the first time."""

    failures = 1

    async def fetch(self, *args: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise ValueError("a driver's own")
        return await super().fetch(*args)


async def test_a_consumer_outlives_a_broker_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_runtime.event_bus.consumer.REJOIN_DELAY_S", 0.01)
    broker = Broken()
    seen = list[int]()
    await broker.publish(make_events(2))

    async def handle(event: Event) -> None:
        seen.append(event.seq)

    async with EventConsumer(broker, "c", handle):
        await until(lambda: seen == [1, 2])


async def test_a_stop_that_is_cancelled_leaves_nothing_running(no_tasks_left: None) -> None:
    broker = MemoryBroker()
    began = asyncio.Event()
    await broker.publish(make_events(1))

    async def handle(event: Event) -> None:
        began.set()
        await asyncio.sleep(60)

    consumer = EventConsumer(broker, "c", handle)
    consumer.start()
    await began.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(consumer.stop(), 0.05)
    assert await consumer.stop() == 0


async def test_what_was_open_when_the_lease_was_lost_comes_again() -> None:
    broker = MemoryBroker()
    fetched = broker.fetch
    calls = 0
    took = asyncio.Event()

    async def fetch(group: str, owner: str, after: str | None, limit: int, wait_s: float) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            return await fetched(group, owner, after, 2, wait_s)
        found = await fetched(group, owner, after, limit, wait_s)
        if calls == 2:
            await took.wait()
            reader._reset()  # an acknowledgement has found that another one reads now
        return found

    broker.fetch = fetch  # type: ignore[method-assign]
    reader = LeasedConsumer(broker, "g", "earliest", 10, 10.0)
    await broker.publish(make_events(3))
    seen: list[int] = []
    async with reader.deliveries() as deliveries, asyncio.timeout(10):
        first = [(await anext(deliveries)).event.seq for _ in range(2)]
        took.set()
        while not {1, 2, 3} <= set(seen):
            delivery = await anext(deliveries)
            seen.append(delivery.event.seq)
            await delivery.ack()
    assert first == [1, 2]
    assert await broker.lag("g") == 0
