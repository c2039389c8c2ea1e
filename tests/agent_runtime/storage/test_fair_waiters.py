"""The hand-over of values to waiting tasks: a state machine, with a cancel at every point."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_runtime.storage.fair_waiters import FairWaiters, receive


class Handover(RuleBasedStateMachine):
    """Tasks wait, are cancelled, and get values; the loop runs one iteration at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.undelivered: list[int] = []
        self.waiters: FairWaiters[int] = FairWaiters(self.undelivered.append)
        self.tasks: list[asyncio.Task[int]] = []
        self.cancelled: set[int] = set()
        self.refused: list[int] = []
        self.values = 0

    def step(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    @rule()
    def begin_to_wait(self) -> None:
        self.tasks.append(self.loop.create_task(self.waiters.wait()))
        self.step()

    @rule()
    def hand_over(self) -> None:
        self.values += 1
        if not self.waiters.hand_over(self.values):
            self.refused.append(self.values)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        number = data.draw(st.integers(0, len(self.tasks) - 1))
        if self.tasks[number].cancel():
            self.cancelled.add(number)

    @rule()
    def run_the_loop(self) -> None:
        self.step()

    def received(self) -> list[int]:
        return [task.result() for task in self.tasks if task.done() and not task.cancelled()]

    @invariant()
    def values_come_in_the_order_of_the_waiters(self) -> None:
        assert self.received() == sorted(self.received())

    def teardown(self) -> None:
        for _ in range(3):
            self.step()
        everything = sorted([*self.received(), *self.undelivered, *self.refused])
        assert everything == list(range(1, self.values + 1))
        waiting = [task for task in self.tasks if not task.done()]
        assert len(self.waiters) == len(waiting)
        for task in waiting:
            task.cancel()
        self.step()
        self.step()
        assert len(self.waiters) == 0
        self.loop.close()


TestHandover = Handover.TestCase
TestHandover.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


async def test_a_cancelled_waiter_passes_its_value_on() -> None:
    def pass_on(value: str) -> None:
        waiters.hand_over(value)

    waiters = FairWaiters(pass_on)
    first = asyncio.create_task(waiters.wait())
    second = asyncio.create_task(waiters.wait())
    await asyncio.sleep(0)
    assert waiters.hand_over("seat")
    first.cancel()
    assert await second == "seat"
    assert first.cancelled() or first.cancelling()


async def test_all_waiters_are_woken_once() -> None:
    waiters: FairWaiters[None] = FairWaiters(lambda value: None)
    tasks = [asyncio.create_task(waiters.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters.hand_over_to_all(None)
    assert await asyncio.gather(*tasks) == [None] * 3
    assert not waiters.hand_over(None)


async def test_an_exception_is_received_and_is_no_value() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    undelivered: list[int] = []
    task = asyncio.create_task(receive(future, undelivered.append))
    await asyncio.sleep(0)
    future.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await task
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(receive(future, undelivered.append))
    await asyncio.sleep(0)
    future.set_exception(ValueError("no"))
    task.cancel()
    with pytest.raises((asyncio.CancelledError, ValueError)):
        await task
    assert undelivered == []
