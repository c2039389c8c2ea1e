"""The queue: order, aging, its bound, limits of agents; no task is lost, given twice or
forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.batch import TaskPriority, TaskQueue
from agent_runtime.errors import QueueFull


@dataclass
class Item:
    name: str
    priority: TaskPriority = TaskPriority.NORMAL
    agent: str = "a"
    accepted_at: float = 0.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def queue_of(**settings: Any) -> tuple[TaskQueue[Item], Clock]:
    clock = Clock()
    return TaskQueue(**{"aging_s": 60.0, **settings}, clock=clock), clock


def names(queue: TaskQueue[Item]) -> list[str]:
    found = []
    while (item := queue.get_nowait()) is not None:
        found.append(item.name)
    return found


def add(queue: TaskQueue[Item], clock: Clock, text: str, **given: Any) -> None:
    for each in text.split():
        level = {"u": "URGENT", "h": "HIGH", "n": "NORMAL", "l": "LOW"}[each[0]]
        queue.requeue(Item(each, TaskPriority[level], accepted_at=clock.now, **given))


def test_the_highest_priority_goes_first_then_the_oldest_or_the_newest() -> None:
    queue, clock = queue_of()
    add(queue, clock, "n1 l1 u1 h1 n2 u2")
    assert queue.depths() == {"low": 1, "normal": 2, "high": 1, "urgent": 2}
    assert names(queue) == ["u1", "u2", "h1", "n1", "n2", "l1"]
    queue, clock = queue_of(order="lifo")
    add(queue, clock, "n1 l1 u1 h1 n2 u2")
    assert names(queue) == ["u2", "u1", "h1", "n2", "n1", "l1"]


def test_waiting_raises_a_priority_so_that_low_never_starves() -> None:
    queue, clock = queue_of()
    add(queue, clock, "l1")
    served: list[str] = []
    for n in range(400):  # an urgent one a second, and one place a second
        clock.now += 1
        add(queue, clock, f"u{n}")
        item = queue.get_nowait()
        assert item is not None
        served.append(item.name)
    assert served.index("l1") == pytest.approx(3 * 60, abs=2)  # three levels, a minute each
    queue, clock = queue_of(order="lifo")
    add(queue, clock, "n0")
    served = []
    for n in range(1, 600):
        clock.now += 1
        add(queue, clock, f"n{n}")
        item = queue.get_nowait()
        assert item is not None
        served.append(item.name)
    assert 0 < served.index("n0") <= 8 * 60 + 2


async def test_producers_wait_for_room_or_are_told() -> None:
    queue, _ = queue_of(size=2)
    for n in range(2):
        await queue.reserve()
        queue.put(Item(str(n)))
    with pytest.raises(QueueFull, match="2 tasks"):
        queue.reserve_nowait()
    waiting = [asyncio.create_task(queue.reserve()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(each.done() for each in waiting)
    waiting[0].cancel()
    assert queue.get_nowait() is not None
    await asyncio.sleep(0.01)
    assert [each.done() for each in waiting] == [
        True,
        True,
        False,
    ]  # the first gave up, the second has the place
    with pytest.raises(QueueFull):
        queue.reserve_nowait()  # it is promised
    queue.cancel_reservation()
    await asyncio.wait_for(waiting[2], 1)


async def test_a_worker_that_gives_up_passes_its_turn_on() -> None:
    queue, _ = queue_of()
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.requeue(Item("x"))
    first.cancel()  # it was woken, and has not run yet
    item = await asyncio.wait_for(second, 1)
    assert item is not None
    assert item.name == "x"
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.close()
    assert await asyncio.wait_for(waiting, 1) is None
    assert await queue.get() is None


async def test_what_is_held_is_not_given_out() -> None:
    queue, _ = queue_of()
    queue.pause()
    queue.requeue(Item("x"))
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.01)
    assert queue.get_nowait() is None
    assert not waiting.done()
    queue.resume()
    assert (await asyncio.wait_for(waiting, 1)) is not None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(list(TaskPriority)), st.sampled_from("abc")),
        st.tuples(st.just("take")),
        st.tuples(st.just("done")),
        st.tuples(st.just("time"), st.floats(0, 200)),
    ),
    max_size=80,
)


@given(steps, st.sampled_from(["fifo", "lifo"]))
def test_nothing_is_lost_nor_given_twice_and_limits_hold(steps: list[Any], order: Any) -> None:
    queue, clock = queue_of(order=order, limits={"a": 1, "b": 2})
    put: dict[str, Item] = {}
    taken: dict[str, Item] = {}
    running: list[Item] = []
    for step in steps:
        if step[0] == "put":
            item = Item(str(len(put)), step[1], step[2], clock.now)
            put[item.name] = item
            queue.requeue(item)
        elif step[0] == "take":
            waiting = [each for name, each in put.items() if name not in taken]
            counts = {agent: sum(each.agent == agent for each in running) for agent in "abc"}
            may = [
                each
                for each in waiting
                if counts[each.agent] < {"a": 1, "b": 2}.get(each.agent, 1000)
            ]
            found = queue.get_nowait()
            assert (found is None) == (not may)
            if found is not None:
                assert found.name not in taken
                assert found in may
                oldest = {
                    level: [e.accepted_at for e in may if e.priority == level]
                    for level in TaskPriority
                }
                ranks = {
                    level: level + (clock.now - min(s)) / 60 for level, s in oldest.items() if s
                }
                assert ranks[found.priority] == pytest.approx(max(ranks.values()))
                taken[found.name] = found
                running.append(found)
        elif step[0] == "done" and running:
            queue.task_done(running.pop(0))
        elif step[0] == "time":
            clock.now += step[1]
        assert len(queue) == len(put) - len(taken)
