"""Define the tasks of a pool."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from agent_runtime.errors import InputInvalid
from agent_runtime.types import AgentContext, Principal


class TaskPriority(IntEnum):
    """Which of those that wait goes first; of one priority, the oldest."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


def parse_priority(value: Any) -> TaskPriority:
    """Return a priority by its name (urgent, high, normal, low) or number; raises InputInvalid."""
    try:
        return TaskPriority[value.upper()] if isinstance(value, str) else TaskPriority(value)
    except (KeyError, ValueError):
        raise InputInvalid(
            f"no priority '{value}': urgent, high, normal, low", "priority"
        ) from None


@dataclass(slots=True)
class AgentTask:
    """Describe one call of an agent in a pool.

    Args:
        agent: the agent type: the name of a template of the pool's factory, or a template's path.
        input: as for `AgentExecutor.execute`.
        id: identifies the task across repetitions.
        context: LangChain's runtime context for this call, added to the instance's own.
        priority: the order of waiting tasks.
        timeout_s: its longest duration in seconds, with its wait; None for the pool's own limit.
        session_id, principal, credentials, metadata: as in `AgentContext`.
    """

    agent: str
    input: Any
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    context: Mapping[str, Any] = field(default_factory=dict)
    priority: TaskPriority = TaskPriority.NORMAL
    timeout_s: float | None = None
    session_id: str | None = None
    principal: Principal | None = None
    credentials: Any = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not 0 < self.timeout_s < float("inf"):
            raise InputInvalid(
                f"a task's timeout is a positive number of seconds, not {self.timeout_s}",
                "timeout_s",
            )
        self.priority = parse_priority(self.priority)

    def to_context(self, instance_id: str | None = None) -> AgentContext:
        """Return the task's call; for one instance, if set."""
        context = AgentContext(
            self.input,
            session_id=self.session_id,
            principal=self.principal,
            credentials=self.credentials,
            context=dict(self.context) or None,
            metadata=dict(self.metadata),
        )
        context.assignment = Assignment(self, instance_id)
        return context


@dataclass(frozen=True, slots=True)
class Assignment:
    """How a call came to the pool: as which task, and for which instance, if for one."""

    task: AgentTask
    instance_id: str | None = None
