"""Tasks that end the processes they run in: counted, and after a few times put aside."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_runtime.errors import TaskPoisoned
from agent_runtime.event_bus.dead_letters import DeadLetter, DeadLetters, put_aside

if TYPE_CHECKING:
    from agent_runtime.errors import InstanceFailed
    from agent_runtime.pool.task import AgentTask

QUEUE = "pool"
MAX_KNOWN = 10_000


class Poison:
    """How many processes each task has ended; `on_letter` is told each dead letter."""

    def __init__(self, max_kills: int, letters: DeadLetters, on_letter: Callable[[DeadLetter], None]) -> None:
        self._max_kills, self._letters, self._on_letter = max_kills, letters, on_letter
        self._kills: OrderedDict[str, int] = OrderedDict()
        self._aside: OrderedDict[str, str] = OrderedDict()
        self.kills = 0
        """Processes that tasks have ended, in all."""

    def check(self, task_id: str) -> None:
        """Raise TaskPoisoned for a task that was put aside."""
        if task_id in self._aside:
            raise TaskPoisoned(task_id, self._kills.get(task_id, self._max_kills), self._aside[task_id])

    def forget(self, task_id: str) -> None:
        """The task has ended in order."""
        self._kills.pop(task_id, None)

    async def killed(self, task: AgentTask, error: InstanceFailed, *, quietly: bool = False) -> None:
        """Count; the last time the task is put aside, and TaskPoisoned raised with `error` as its cause.

        `quietly`: the caller has an error of its own already, a timeout or a cancellation.
        """
        self.kills += 1
        kills = self._kills[task.id] = self._kills.get(task.id, 0) + 1
        while len(self._kills) > MAX_KNOWN:
            self._kills.popitem(last=False)
        if kills < self._max_kills:
            return
        payload = {"agent": task.agent, "input": task.input, "task_id": task.id, "session_id": task.session_id}
        letter = DeadLetter.of(QUEUE, payload, error, kills)
        await put_aside(self._letters, letter)
        self._aside[task.id] = letter.id
        while len(self._aside) > MAX_KNOWN:
            self._aside.popitem(last=False)
        self._on_letter(letter)
        if not quietly:
            raise TaskPoisoned(task.id, kills, letter.id) from error
