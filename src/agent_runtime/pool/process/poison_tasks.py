"""Tasks that end the processes they run in: counted, and after a few times put aside."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from agent_runtime.errors import TaskPoisoned
from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.event_bus.dead_letters import add_shielded

if TYPE_CHECKING:
    from agent_runtime.errors import InstanceFailed
    from agent_runtime.pool.task import AgentTask
    from agent_runtime.types import Principal

QUEUE = "pool"
MAX_TRACKED_TASKS = 10_000
_TaskKey: TypeAlias = tuple[str, str, str]


class PoisonTaskTracker:
    """Count how many processes each task has ended; calls `on_dead_letter` for each dead letter.

    Callers choose ids, so a task is identified by its caller, too: a task is never quarantined for
    another caller's task of the same id.
    """

    def __init__(
        self,
        max_kills: int,
        dead_letters: DeadLetters,
        on_dead_letter: Callable[[DeadLetter], None],
    ) -> None:
        self._max_kills = max_kills
        self._dead_letters = dead_letters
        self._on_dead_letter = on_dead_letter
        self._kill_counts: OrderedDict[_TaskKey, int] = OrderedDict()
        self._dead_letter_ids: OrderedDict[_TaskKey, str] = OrderedDict()
        self.kills = 0
        """Processes that tasks have ended, in all."""

    def check(self, task_id: str, principal: Principal | None) -> None:
        """Raise TaskPoisoned for a task of this caller that was put aside."""
        key = _key(task_id, principal)
        if key in self._dead_letter_ids:
            raise TaskPoisoned(
                task_id, self._kill_counts.get(key, self._max_kills), self._dead_letter_ids[key]
            )

    def forget(self, task_id: str, principal: Principal | None) -> None:
        """Reset a task's count after a normal end."""
        self._kill_counts.pop(_key(task_id, principal), None)

    async def record_kill(
        self,
        task: AgentTask,
        principal: Principal | None,
        error: InstanceFailed,
        *,
        quietly: bool = False,
    ) -> None:
        """Count a kill.

        The last one quarantines the task and raises TaskPoisoned, caused by `error`.

        `quietly`: the caller has an error of its own already, a timeout or a cancellation.
        """
        self.kills += 1
        key = _key(task.id, principal)
        kill_count = self._kill_counts[key] = self._kill_counts.get(key, 0) + 1
        while len(self._kill_counts) > MAX_TRACKED_TASKS:
            self._kill_counts.popitem(last=False)
        if kill_count < self._max_kills:
            return
        payload = {
            "agent": task.agent,
            "input": task.input,
            "task_id": task.id,
            "session_id": task.session_id,
        }
        tenant, user = (None, None) if principal is None else (principal.tenant, principal.id)
        dead_letter = DeadLetter.of(QUEUE, payload, error, kill_count, tenant=tenant, user=user)
        await add_shielded(self._dead_letters, dead_letter)
        self._dead_letter_ids[key] = dead_letter.id
        while len(self._dead_letter_ids) > MAX_TRACKED_TASKS:
            self._dead_letter_ids.popitem(last=False)
        self._on_dead_letter(dead_letter)
        if not quietly:
            raise TaskPoisoned(task.id, kill_count, dead_letter.id) from error


def _key(task_id: str, principal: Principal | None) -> _TaskKey:
    return ("", "", task_id) if principal is None else (principal.tenant, principal.id, task_id)
