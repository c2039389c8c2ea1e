"""Calls that wait for an instance: by agent, or for one instance; the highest priority first, then the oldest."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_runtime.pool.task import TaskPriority

if TYPE_CHECKING:
    from agent_runtime.pool.instance_worker import InstanceWorker

_ORDER = itertools.count()


@dataclass(order=True, slots=True)
class Waiter:
    """One call that waits; `given` is the worker that it gets."""

    rank: tuple[int, int]
    agent: str = field(compare=False)
    instance_id: str | None = field(compare=False)
    given: asyncio.Future[InstanceWorker] = field(compare=False)


class Waiting:
    """The queue of a pool."""

    def __init__(self) -> None:
        self._heaps: dict[tuple[str, str | None], list[Waiter]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, agent: str, instance_id: str | None, priority: TaskPriority) -> Waiter:
        """Wait, for any instance of `agent` or for one."""
        given: asyncio.Future[InstanceWorker] = asyncio.get_running_loop().create_future()
        waiter = Waiter((-priority, next(_ORDER)), agent, instance_id, given)
        heapq.heappush(self._heaps.setdefault((agent, instance_id), []), waiter)
        self._count += 1
        return waiter

    def left(self, waiter: Waiter) -> None:
        """The waiter is no longer there: it was served, or has given up."""
        heap = self._heaps.get((waiter.agent, waiter.instance_id), [])
        if waiter in heap:
            heap.remove(waiter)
            heapq.heapify(heap)
            self._count -= 1
        if not heap:
            self._heaps.pop((waiter.agent, waiter.instance_id), None)

    def next_for(self, agent: str, instance_id: str) -> Waiter | None:
        """Whom a free instance serves next."""
        tops = [self._heaps[key][0] for key in ((agent, None), (agent, instance_id)) if self._heaps.get(key)]
        return min(tops, default=None)

    def first(self, *, but: str = "") -> Waiter | None:
        """Who waits for any instance of an agent (other than `but`) and goes first."""
        tops = [heap[0] for (agent, instance), heap in self._heaps.items() if instance is None and agent != but]
        return min(tops, default=None)

    def of_agent(self, agent: str) -> list[Waiter]:
        """Those that wait for any instance of an agent."""
        return list(self._heaps.get((agent, None), ()))

    def of_instance(self, agent: str, instance_id: str) -> list[Waiter]:
        """Those that wait for one instance."""
        return list(self._heaps.get((agent, instance_id), ()))

    def agents(self) -> list[str]:
        """The agents that somebody waits for, the most urgent first."""
        tops = [(heap[0], agent) for (agent, instance), heap in self._heaps.items() if instance is None]
        return [agent for _, agent in sorted(tops)]

    def depths(self) -> dict[str, int]:
        """How many wait, by priority."""
        found = dict.fromkeys((each.name.lower() for each in TaskPriority), 0)
        for heap in self._heaps.values():
            for waiter in heap:
                found[TaskPriority(-waiter.rank[0]).name.lower()] += 1
        return found
