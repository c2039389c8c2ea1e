"""The bus: publish never waits, buffers are bounded, drops are counted, order holds."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import AgentCallbackHandler, CallbackEvent, ConfigurationError, Event, EventBus
from agent_runtime.testing import say


async def test_events_arrive_in_order_at_every_matching_subscriber() -> None:
    bus = EventBus()
    everything, models = bus.subscribe(), bus.subscribe("llm.*")
    for i in range(5):
        bus.publish(Event("llm.start" if i % 2 else "tool.start", i))
    bus.close()
    assert [e.data async for e in everything] == [0, 1, 2, 3, 4]
    assert [e.data async for e in models] == [1, 3]


async def test_a_full_buffer_drops_the_oldest_and_counts() -> None:
    bus = EventBus()
    async with bus.subscribe(buffer=3) as slow:
        for i in range(10):
            bus.publish(Event("custom.x", i))
        assert (slow.dropped, bus.dropped) == (7, 7)
        assert [(await anext(slow)).data for _ in range(3)] == [7, 8, 9]
    assert bus.dropped == 7
    assert not bus.active


async def test_a_waiting_subscriber_is_woken_also_from_another_thread() -> None:
    bus = EventBus()
    async with bus.subscribe() as events:
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0.01)
        thread = threading.Thread(target=lambda: bus.publish(Event("custom.x", 1)))
        thread.start()
        assert (await asyncio.wait_for(waiting, 5)).data == 1
        thread.join()
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        bus.publish(Event("custom.x", 2))
        assert (await asyncio.wait_for(waiting, 5)).data == 2


async def test_cancelling_a_wait_loses_no_event() -> None:
    bus = EventBus()
    async with bus.subscribe() as events:
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        bus.publish(Event("custom.x", 1))
        assert (await anext(events)).data == 1


async def test_leaving_a_subscription_ends_it_and_closing_twice_is_fine() -> None:
    bus = EventBus()
    async with bus.subscribe() as events:
        bus.publish(Event("custom.x", 1))
    bus.publish(Event("custom.x", 2))
    events.close()
    assert [e.data async for e in events] == [1]


def test_a_buffer_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        EventBus().subscribe(buffer=0)


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 20))
def test_what_is_kept_is_always_the_newest_and_the_rest_is_counted(items: list[int], size: int) -> None:
    async def check() -> None:
        bus = EventBus()
        events = bus.subscribe(buffer=size)
        for item in items:
            bus.publish(Event("custom.x", item))
        bus.close()
        assert [e.data async for e in events] == items[-size:]
        assert events.dropped == max(0, len(items) - size)

    asyncio.run(check())


async def test_an_executors_events_reach_the_bus(make_agent: Any) -> None:
    bus = EventBus()
    agent, _ = make_agent([say("hi")], callback_handler=AgentCallbackHandler(bus=bus))
    async with bus.subscribe("run.*") as runs:
        result = await agent.execute("x")
        start, end = await anext(runs), await anext(runs)
    assert (start.type, end.type) == ("run.start", "run.end")
    assert start.run_id == result.run_id
    assert isinstance(end.data, CallbackEvent)
    assert end.data.data["usage"]["model_calls"] == 1
