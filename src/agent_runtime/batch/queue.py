"""The queue in front of a batch's workers.

By priority, in which waiting raises, with a bound for producers.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Generic, Literal, Protocol, TypeVar

from agent_runtime.errors import QueueFull
from agent_runtime.pool.task import TaskPriority
from agent_runtime.storage.fair_waiters import FairWaiters

PRIORITY_LEVELS = len(TaskPriority)
LIFO_STARVATION_PERIODS = 2 * PRIORITY_LEVELS
"""Starvation bound of LIFO: tasks older than this many aging periods go first."""


class Queued(Protocol):
    """Define the items of a queue.

    `accepted_at` is in Unix seconds: waiting counts from there, also across a restart.
    """

    agent: str
    priority: TaskPriority
    accepted_at: float


Q = TypeVar("Q", bound=Queued)
_PriorityLines = list[deque[Q]]


class TaskQueue(Generic[Q]):
    """Queue tasks for the workers of one event loop.

    A task's rank is its priority, plus one for each `aging_s` it has waited: low ones are served
    under any load of urgent ones. Within a priority the oldest goes first (`fifo`), or the newest
    (`lifo`).

    Args:
        size: the longest queue; producers wait, or are refused.
        order: the order within a priority.
        aging_s: seconds of waiting that raise a task by one priority.
        limits: how many tasks of an agent may run at once; excess ones wait and block no other
            agent.
    """

    def __init__(
        self,
        size: int = 1000,
        order: Literal["fifo", "lifo"] = "fifo",
        aging_s: float = 60.0,
        limits: Mapping[str, int] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.size = size
        self._order = order
        self._aging_s = aging_s
        self._limits = dict(limits or {})
        self._clock = clock
        self._lines_by_agent: dict[str, _PriorityLines[Q]] = {}
        self._task_count = 0
        self.reserved = 0
        self._throttled_until: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        # A wake-up that a cancelled task did not receive belongs to the next one.
        self._getters: FairWaiters[None] = FairWaiters(lambda _: self._getters.hand_over(None))
        self._putters: FairWaiters[None] = FairWaiters(lambda _: self._putters.hand_over(None))
        self.paused = False
        self._closed = False

    def __len__(self) -> int:
        return self._task_count

    def depth(self, agent: str) -> int:
        """Return how many tasks of an agent wait."""
        return sum(map(len, self._lines_by_agent.get(agent, ())))

    def depths(self) -> dict[str, int]:
        """Return how many tasks wait, by priority."""
        by_level = {
            priority: sum(len(lines[priority]) for lines in self._lines_by_agent.values())
            for priority in TaskPriority
        }
        return {priority.name.lower(): count for priority, count in by_level.items()}

    def set_default_limit(self, agent: str, max_running: int) -> None:
        """Limit how many tasks of an agent run at once, unless it has a limit."""
        self._limits.setdefault(agent, max_running)

    # -- producers

    async def reserve(self) -> None:
        """Wait for room and reserve it for one task.

        Use the reservation by `put`, or end it by `cancel_reservation`.
        """
        while self._task_count + self.reserved >= self.size and not self._closed:
            await self._putters.wait()
        self.reserved += 1

    def reserve_nowait(self) -> None:
        """Reserve room without waiting; raises QueueFull."""
        if self._task_count + self.reserved >= self.size:
            raise QueueFull(self.size)
        self.reserved += 1

    def cancel_reservation(self) -> None:
        """Release reserved room."""
        self.reserved -= 1
        self._putters.hand_over(None)

    def put(self, task: Q) -> None:
        """Add a task on a reservation."""
        self.reserved -= 1
        self.requeue(task)

    def requeue(self, task: Q) -> None:
        """Add a task that was accepted before: it needs no room."""
        lines = self._lines_by_agent.get(task.agent)
        if lines is None:
            lines = self._lines_by_agent[task.agent] = [deque() for _ in range(PRIORITY_LEVELS)]
        lines[task.priority].append(task)
        self._task_count += 1
        self._getters.hand_over(None)

    # -- workers

    def get_nowait(self) -> Q | None:
        """Return the next task, or None when none may run now; call `task_done` when it has run."""
        if self.paused or self._closed or not self._task_count:
            return None
        now = self._clock()
        best_rank = 0.0
        best_line = None
        best_agent = ""
        for agent, lines in self._lines_by_agent.items():
            if self._throttled_until and now < self._throttled_until.get(agent, 0.0):
                continue
            limit = self._limits.get(agent)
            if limit is not None and self._running[agent] >= limit:
                continue
            for level, line in enumerate(lines):
                if line:
                    rank = level + max(0.0, now - line[0].accepted_at) / self._aging_s
                    if best_line is None or rank > best_rank:
                        best_rank = rank
                        best_line = line
                        best_agent = agent
        if best_line is None:
            return None
        task = self._pop(best_line, now)
        self._task_count -= 1
        if not best_line and not any(self._lines_by_agent[best_agent]):
            del self._lines_by_agent[best_agent]
        self._running[best_agent] += 1
        if self._putters:
            self._putters.hand_over(None)
        return task

    def _pop(self, line: deque[Q], now: float) -> Q:
        if (
            self._order == "fifo"
            or now - line[0].accepted_at > LIFO_STARVATION_PERIODS * self._aging_s
        ):
            return line.popleft()
        return line.pop()

    async def get(self, stop_when: Callable[[], bool] = lambda: False) -> Q | None:
        """Return the next task, after a wait if necessary.

        None when the queue is closed, or `stop_when` returns True on a wake-up. Cancelling loses no
        task.
        """
        while not self._closed and not stop_when():
            if (task := self.get_nowait()) is not None:
                return task
            await self._getters.wait()
        return None

    def task_done(self, task: Q) -> None:
        """Mark a task as run, so that its agent may run another one."""
        self._running[task.agent] -= 1
        if task.agent in self._limits:
            self._getters.hand_over(None)

    def throttle(self, agent: str, wait_s: float) -> None:
        """Hold back an agent's tasks for `wait_s` seconds, after a refusal with a retry time."""
        self._throttled_until[agent] = max(
            self._throttled_until.get(agent, 0.0), self._clock() + wait_s
        )
        asyncio.get_running_loop().call_later(wait_s, self.wake)

    def pause(self) -> None:
        """Give out nothing until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Resume handing out tasks."""
        self.paused = False
        self._getters.hand_over_to_all(None)

    def wake(self) -> None:
        """Wake all getters."""
        self._getters.hand_over_to_all(None)

    def close(self) -> None:
        """Close the queue: getters receive None, now and later, and waiting producers continue."""
        self._closed = True
        self._getters.hand_over_to_all(None)
        self._putters.hand_over_to_all(None)
