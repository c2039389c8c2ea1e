"""Calls that wait for an instance: by agent, or for one instance.

The highest priority first, then the oldest.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_runtime.pool.task import TaskPriority

if TYPE_CHECKING:
    from agent_runtime.pool.process.instance_worker import InstanceWorker

_ORDER = itertools.count()
Place = tuple[str, str | None]


@dataclass(order=True, slots=True)
class Waiter:
    """One call that waits; `given` is the worker that it gets."""

    rank: tuple[int, int]
    agent: str = field(compare=False)
    instance_id: str | None = field(compare=False)
    given: asyncio.Future[InstanceWorker] = field(compare=False)
    there: bool = field(default=True, compare=False)


class Waiting:
    """The queue of a pool. Who gives up stays in the heap, marked, until it would be served."""

    def __init__(self) -> None:
        self._heaps: dict[Place, list[Waiter]] = {}
        self._counts: Counter[Place] = Counter()
        self._depths: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, agent: str, instance_id: str | None, priority: TaskPriority) -> Waiter:
        """Wait, for any instance of `agent` or for one."""
        given: asyncio.Future[InstanceWorker] = asyncio.get_running_loop().create_future()
        waiter = Waiter((-priority, next(_ORDER)), agent, instance_id, given)
        place = (agent, instance_id)
        heapq.heappush(self._heaps.setdefault(place, []), waiter)
        self._counts[place] += 1
        self._depths[priority] += 1
        return waiter

    def left(self, waiter: Waiter) -> None:
        """The waiter is no longer there: it was served, or has given up."""
        if not waiter.there:
            return
        waiter.there = False
        place = (waiter.agent, waiter.instance_id)
        self._counts[place] -= 1
        self._depths[-waiter.rank[0]] -= 1
        if not self._counts[place]:
            del self._counts[place], self._heaps[place]

    def _top(self, place: Place) -> Waiter | None:
        heap = self._heaps.get(place)
        while heap and (not heap[0].there or heap[0].given.done()):  # cancelled, but not told yet
            heapq.heappop(heap)
        return heap[0] if heap else None

    def next_for(self, agent: str, instance_id: str) -> Waiter | None:
        """Whom a free instance serves next."""
        if not self._counts:
            return None
        tops = [
            top
            for place in ((agent, None), (agent, instance_id))
            if (top := self._top(place)) is not None
        ]
        return min(tops, default=None)

    def first(self, *, but: str = "") -> Waiter | None:
        """Who waits for any instance of an agent (other than `but`) and goes first."""
        places = [place for place in self._counts if place[1] is None and place[0] != but]
        return min((top for place in places if (top := self._top(place)) is not None), default=None)

    def count(self, agent: str) -> int:
        """How many wait for any instance of an agent."""
        return self._counts[agent, None]

    def of_place(self, agent: str, instance_id: str | None) -> list[Waiter]:
        """Those that wait for any instance of an agent, or for one."""
        return [
            each
            for each in self._heaps.get((agent, instance_id), ())
            if each.there and not each.given.done()
        ]

    def everybody(self) -> list[Waiter]:
        """All that wait."""
        return [
            each
            for heap in self._heaps.values()
            for each in heap
            if each.there and not each.given.done()
        ]

    def agents(self) -> list[str]:
        """The agents that somebody waits for, the most urgent first."""
        places = [place for place in self._counts if place[1] is None]
        tops = [(top, place[0]) for place in places if (top := self._top(place)) is not None]
        return [agent for _, agent in sorted(tops)]

    def depths(self) -> dict[str, int]:
        """How many wait, by priority."""
        return {each.name.lower(): self._depths[each] for each in TaskPriority}
