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

LEVELS = len(TaskPriority)
OVERDUE = 2 * LEVELS
"""Last in, first out: what has waited for so many times the aging is served all the same."""


class Queued(Protocol):
    """What may stand in a queue. `accepted_s` are Unix seconds.

    Waiting counts from there, also over a restart.
    """

    agent: str
    priority: TaskPriority
    accepted_s: float


Q = TypeVar("Q", bound=Queued)
_Lines = list[deque[Q]]


class TaskQueue(Generic[Q]):
    """Tasks that wait for a worker, of one event loop.

    A task's rank is its priority, and one more for each `aging_s` that it has waited: low is
    served, however many urgent ones come. Of one priority the oldest goes first (`fifo`), or the
    newest (`lifo`).

    Args:
        size: how many may wait; producers are held back, or refused.
        order: within a priority.
        aging_s: after so many seconds of waiting a task counts as of the next priority.
        limits: how many tasks of an agent may run at once; those beyond it wait and hold up no
            other agent.
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
        self._lines: dict[str, _Lines[Q]] = {}
        self._waiting = 0
        self.promised = 0
        self._not_before: dict[str, float] = {}
        self._running: Counter[str] = Counter()
        self._takers: deque[asyncio.Future[None]] = deque()
        self._makers: deque[asyncio.Future[None]] = deque()
        self.held = False
        self._closed = False

    def __len__(self) -> int:
        return self._waiting

    def depth(self, agent: str) -> int:
        """How many tasks of an agent wait."""
        return sum(map(len, self._lines.get(agent, ())))

    def depths(self) -> dict[str, int]:
        """How many wait, by priority."""
        by_level = {
            each: sum(len(lines[each]) for lines in self._lines.values()) for each in TaskPriority
        }
        return {each.name.lower(): count for each, count in by_level.items()}

    def limit(self, agent: str, most: int) -> None:
        """Let at most so many tasks of an agent run at once, if nothing is said of it yet."""
        self._limits.setdefault(agent, most)

    # -- producers
    # -----------------------------------------------------------------------------------------

    async def promise(self) -> None:
        """Wait for room, and keep a place for one task.

        Give it by `put`, or give the place back by `forgo`.
        """
        while self._waiting + self.promised >= self.size and not self._closed:
            room = asyncio.get_running_loop().create_future()
            self._makers.append(room)
            try:
                await room
            except asyncio.CancelledError:
                if room.done() and not room.cancelled():
                    _wake(self._makers)
                raise
        self.promised += 1

    def promise_now(self) -> None:
        """`promise` for who will not wait; raises QueueFull."""
        if self._waiting + self.promised >= self.size:
            raise QueueFull(self.size)
        self.promised += 1

    def forgo(self) -> None:
        """Give a promised place back."""
        self.promised -= 1
        _wake(self._makers)

    def put(self, task: Q) -> None:
        """Add a task at a promised place."""
        self.promised -= 1
        self.put_back(task)

    def put_back(self, task: Q) -> None:
        """Add a task that was accepted before: it needs no room."""
        lines = self._lines.get(task.agent)
        if lines is None:
            lines = self._lines[task.agent] = [deque() for _ in range(LEVELS)]
        lines[task.priority].append(task)
        self._waiting += 1
        _wake(self._takers)

    # -- workers
    # -------------------------------------------------------------------------------------------

    def take(self) -> Q | None:
        """The next task, or None when none may be taken now; say `done` when it has run."""
        if self.held or self._closed or not self._waiting:
            return None
        now = self._clock()
        best = 0.0
        best_line = None
        best_agent = ""
        for agent, lines in self._lines.items():
            if self._not_before and now < self._not_before.get(agent, 0.0):
                continue
            limit = self._limits.get(agent)
            if limit is not None and self._running[agent] >= limit:
                continue
            for level, line in enumerate(lines):
                if line:
                    rank = level + max(0.0, now - line[0].accepted_s) / self._aging_s
                    if best_line is None or rank > best:
                        best = rank
                        best_line = line
                        best_agent = agent
        if best_line is None:
            return None
        task = self._next(best_line, now)
        self._waiting -= 1
        if not best_line and not any(self._lines[best_agent]):
            del self._lines[best_agent]
        self._running[best_agent] += 1
        if self._makers:
            _wake(self._makers)
        return task

    def _next(self, line: deque[Q], now: float) -> Q:
        if self._order == "fifo" or now - line[0].accepted_s > OVERDUE * self._aging_s:
            return line.popleft()
        return line.pop()

    async def get(self, enough: Callable[[], bool] = lambda: False) -> Q | None:
        """`take`, after a wait if need be.

        None when the queue was closed, or `enough` says so when it is woken.

        Cancelling loses nothing.
        """
        while not self._closed and not enough():
            if (task := self.take()) is not None:
                return task
            came = asyncio.get_running_loop().create_future()
            self._takers.append(came)
            try:
                await came
            except asyncio.CancelledError:
                if came.done() and not came.cancelled():
                    _wake(self._takers)
                raise
        return None

    def done(self, task: Q) -> None:
        """A task has run: its agent may run another one."""
        self._running[task.agent] -= 1
        if task.agent in self._limits:
            _wake(self._takers)

    def defer(self, agent: str, wait_s: float) -> None:
        """Give out no task of an agent for so long.

        It was refused, and was told when to come again.
        """
        self._not_before[agent] = max(self._not_before.get(agent, 0.0), self._clock() + wait_s)
        asyncio.get_running_loop().call_later(wait_s, self.wake)

    def hold(self) -> None:
        """Give out nothing until `release`."""
        self.held = True

    def release(self) -> None:
        """Give out tasks again."""
        self.held = False
        self._wake_all(self._takers)

    def wake(self) -> None:
        """Have everybody who waits for a task look up."""
        self._wake_all(self._takers)

    def close(self) -> None:
        """Whoever waits for a task, now or later, gets None; who waits for room gets it.

        Nothing is given out.
        """
        self._closed = True
        self._wake_all(self._takers)
        self._wake_all(self._makers)

    @staticmethod
    def _wake_all(waiting: deque[asyncio.Future[None]]) -> None:
        for _ in range(len(waiting)):
            _wake(waiting)


def _wake(waiting: deque[asyncio.Future[None]]) -> None:
    while waiting:
        future = waiting.popleft()
        if not future.done():
            future.set_result(None)
            return
