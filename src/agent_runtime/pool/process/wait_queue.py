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

_SEQUENCE = itertools.count()
QueueKey = tuple[str, str | None]


@dataclass(order=True, slots=True)
class Waiter:
    """One call that waits; `future` is the worker that it gets."""

    rank: tuple[int, int]
    agent: str = field(compare=False)
    instance_id: str | None = field(compare=False)
    future: asyncio.Future[InstanceWorker] = field(compare=False)
    active: bool = field(default=True, compare=False)


class WaitQueue:
    """Queue the waiters of a pool; one that gives up stays in the heap, inactive."""

    def __init__(self) -> None:
        self._heaps: dict[QueueKey, list[Waiter]] = {}
        self._counts: Counter[QueueKey] = Counter()
        self._depths: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, agent: str, instance_id: str | None, priority: TaskPriority) -> Waiter:
        """Wait, for any instance of `agent` or for one."""
        future: asyncio.Future[InstanceWorker] = asyncio.get_running_loop().create_future()
        waiter = Waiter((-priority, next(_SEQUENCE)), agent, instance_id, future)
        queue_key = (agent, instance_id)
        heapq.heappush(self._heaps.setdefault(queue_key, []), waiter)
        self._counts[queue_key] += 1
        self._depths[priority] += 1
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter that was served or has given up."""
        if not waiter.active:
            return
        waiter.active = False
        queue_key = (waiter.agent, waiter.instance_id)
        self._counts[queue_key] -= 1
        self._depths[-waiter.rank[0]] -= 1
        if not self._counts[queue_key]:
            del self._counts[queue_key], self._heaps[queue_key]

    def _peek_queue(self, queue_key: QueueKey) -> Waiter | None:
        heap = self._heaps.get(queue_key)
        # cancelled, but not notified yet
        while heap and (not heap[0].active or heap[0].future.done()):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def next_for(self, agent: str, instance_id: str) -> Waiter | None:
        """Return the waiter that a free instance serves next."""
        if not self._counts:
            return None
        heads = [
            head
            for queue_key in ((agent, None), (agent, instance_id))
            if (head := self._peek_queue(queue_key)) is not None
        ]
        return min(heads, default=None)

    def peek(self, *, exclude: str = "") -> Waiter | None:
        """Return the first waiter for any instance of an agent (other than `exclude`)."""
        queue_keys = [
            queue_key
            for queue_key in self._counts
            if queue_key[1] is None and queue_key[0] != exclude
        ]
        return min(
            (head for queue_key in queue_keys if (head := self._peek_queue(queue_key)) is not None),
            default=None,
        )

    def count(self, agent: str) -> int:
        """Return how many wait for any instance of an agent."""
        return self._counts[agent, None]

    def waiters_for(self, agent: str, instance_id: str | None) -> list[Waiter]:
        """Return the waiters for any instance of an agent, or for one."""
        return [
            waiter
            for waiter in self._heaps.get((agent, instance_id), ())
            if waiter.active and not waiter.future.done()
        ]

    def all(self) -> list[Waiter]:
        """Return all waiters."""
        return [
            waiter
            for heap in self._heaps.values()
            for waiter in heap
            if waiter.active and not waiter.future.done()
        ]

    def agents_by_urgency(self) -> list[str]:
        """Return the agents with waiters, the most urgent first."""
        queue_keys = [queue_key for queue_key in self._counts if queue_key[1] is None]
        heads = [
            (head, queue_key[0])
            for queue_key in queue_keys
            if (head := self._peek_queue(queue_key)) is not None
        ]
        return [agent for _, agent in sorted(heads)]

    def depths(self) -> dict[str, int]:
        """Return how many wait, by priority."""
        return {priority.name.lower(): self._depths[priority] for priority in TaskPriority}
