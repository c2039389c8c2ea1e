"""Describe an agent in a separate process, as a pool shows it."""

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
    # To idle at once: its call was cancelled at the moment of assignment.
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
    """Describe one instance.

    `pid` is its process, None before its start; `memory_mb` its resident memory with all its
    children, at the last measurement; `current_task` its running task; `context` is added to the
    runtime context of each of its tasks. Times are Unix seconds. `last_error` is the reason of its
    end, or the error of its last failed task.
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
        """Return whether it has not ended and is not ending."""
        return self.status not in _ENDING_STATUSES

    def transition_to(self, status: InstanceStatus) -> None:
        """Change the status; raises ValueError for a transition that is not allowed."""
        if status is self.status and status in _ENDING_STATUSES:
            return
        if status not in ALLOWED_TRANSITIONS[self.status]:
            raise ValueError(f"an instance that is {self.status} does not become {status}")
        previous_status = self.status
        self.status = status
        if self.on_change is not None:
            self.on_change(self, previous_status)

    def to_dict(self) -> dict[str, Any]:
        """Return its public fields, JSON-ready; no inputs."""
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
