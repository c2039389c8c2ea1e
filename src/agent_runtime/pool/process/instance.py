"""AgentInstance: an agent in a process of its own, as a pool shows it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent_runtime.pool.task import AgentTask


class InstanceStatus(StrEnum):
    """Where an instance is in its life."""

    CREATING = "creating"
    IDLE = "idle"
    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"
    SHUTTING = "shutting"
    TERMINATED = "terminated"


_ENDING_STATUSES = frozenset({InstanceStatus.SHUTTING, InstanceStatus.TERMINATED})
ALLOWED_TRANSITIONS: Mapping[InstanceStatus, frozenset[InstanceStatus]] = {
    InstanceStatus.CREATING: frozenset({InstanceStatus.IDLE, *_ENDING_STATUSES}),
    InstanceStatus.IDLE: frozenset({InstanceStatus.RUNNING, *_ENDING_STATUSES}),
    # To idle at once: it was given to a call that was cancelled in that moment.
    InstanceStatus.RUNNING: frozenset(
        {InstanceStatus.COMPLETED, InstanceStatus.ERROR, InstanceStatus.IDLE, *_ENDING_STATUSES}
    ),
    InstanceStatus.COMPLETED: frozenset({InstanceStatus.IDLE, *_ENDING_STATUSES}),
    InstanceStatus.ERROR: frozenset({InstanceStatus.IDLE, *_ENDING_STATUSES}),
    InstanceStatus.SHUTTING: frozenset({InstanceStatus.TERMINATED}),
    InstanceStatus.TERMINATED: frozenset(),
}
"""Which state may follow which."""


@dataclass(slots=True)
class AgentInstance:
    """One instance.

    `pid` is its process, None before it has one; `memory_mb` its resident memory with all that it
    started, as last seen; `current_task` what it does now; `context` is added to the runtime
    context of each of its tasks. Times are Unix seconds. `last_error` is why it ended, or what its
    last failed task raised.
    """

    agent: str
    context: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    status: InstanceStatus = InstanceStatus.CREATING
    pid: int | None = None
    memory_mb: float = 0.0
    memory_limit_mb: int = 0
    current_task: AgentTask | None = None
    tasks_done: int = 0
    created_at: float = field(default_factory=time.time)
    last_used_at: float = field(default_factory=time.time)
    last_error: str = ""
    on_change: Callable[[AgentInstance, InstanceStatus], None] | None = field(
        default=None, repr=False
    )

    @property
    def alive(self) -> bool:
        """Whether it has not ended and is not about to."""
        return self.status not in _ENDING_STATUSES

    def transition_to(self, status: InstanceStatus) -> None:
        """Go on to `status`; raises ValueError for one that cannot follow."""
        if status is self.status and status in _ENDING_STATUSES:
            return
        if status not in ALLOWED_TRANSITIONS[self.status]:
            raise ValueError(f"an instance that is {self.status} does not become {status}")
        previous_status = self.status
        self.status = status
        if self.on_change is not None:
            self.on_change(self, previous_status)

    def to_dict(self) -> dict[str, Any]:
        """What can be shown of it, JSON-ready; no inputs."""
        return {
            "id": self.id,
            "agent": self.agent,
            "status": str(self.status),
            "pid": self.pid,
            "memory_mb": round(self.memory_mb, 1),
            "memory_limit_mb": self.memory_limit_mb,
            "task": None if self.current_task is None else self.current_task.id,
            "tasks_done": self.tasks_done,
            "created_at": round(self.created_at, 3),
            "last_used_at": round(self.last_used_at, 3),
            "last_error": self.last_error,
        }
