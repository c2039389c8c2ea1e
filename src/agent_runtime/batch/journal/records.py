"""Define the records of a journal: executions, their tasks, and updates of these."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.batch.task import BatchTask
from agent_runtime.pool.task import TaskPriority

ExecutionStatus: TypeAlias = Literal[
    "pending", "running", "paused", "awaiting_approval", "completed", "failed", "cancelled"
]
FINAL_EXECUTION_STATUSES: tuple[ExecutionStatus, ...] = ("completed", "failed", "cancelled")
RunnerRequest: TypeAlias = Literal["", "pause", "run", "cancel"]


@dataclass(slots=True)
class Execution:
    """Describe one batch as it is stored in the journal.

    `tenant` and `user` own it; empty for the application's own. `requested` is a pending request to
    its runner, `reason` why it stopped (`budget`, `approval`, an error). `input_closed`: all its
    tasks are accepted. `owner` runs it; `is_leased` says whether its lease was valid when this was
    read; `token` is the fencing token, which grows with each owner. `progress` has the runner's
    last figures.
    """

    id: str
    settings: dict[str, Any] = field(default_factory=dict)
    status: ExecutionStatus = "pending"
    name: str = ""
    agent: str = ""
    input_closed: bool = False
    requested: RunnerRequest = ""
    reason: str = ""
    approved: bool = False
    forecast: dict[str, Any] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    owner: str = ""
    token: int = 0
    is_leased: bool = False
    tenant: str = ""
    user: str = ""

    @property
    def is_final(self) -> bool:
        """Return whether it has ended, unless it is resumed."""
        return self.status in FINAL_EXECUTION_STATUSES

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


_VOLATILE_FIELDS = ("id", "owner", "token", "is_leased", "requested", "progress")
"""Fields of an execution that others than its runner change, or that change often.

Not part of its document.
"""
_DOCUMENT_NAMES = {
    "status": "state",
    "reason": "why",
    "input_closed": "sealed",
    "created_at": "created_s",
    "ended_at": "ended_s",
}
"""The names in stored documents of the fields that have another one there."""
_DOCUMENT_FIELDS = {stored_name: name for name, stored_name in _DOCUMENT_NAMES.items()}


def execution_document(execution: Execution) -> str:
    """Return the part of an execution that its runner writes, as JSON."""
    return json.dumps(
        {
            _DOCUMENT_NAMES.get(name, name): value
            for name, value in execution.to_dict().items()
            if name not in _VOLATILE_FIELDS
        }
    )


def execution_from_document(execution_id: str, document: str, **volatile_fields: Any) -> Execution:
    """Return the execution of a stored document and of the fields stored beside it."""
    fields = {_DOCUMENT_FIELDS.get(name, name): v for name, v in json.loads(document).items()}
    return Execution(execution_id, **fields, **volatile_fields)


@dataclass(slots=True)
class TaskRow:
    """Describe one task of an execution and its progress.

    `seq` is its number, from 1. `failed_attempts` counts failures of the present generation,
    `generation` the ended runs before it, and `dispatch_count` how often this run was given to a
    worker: more than once when workers were lost. `rank` orders pending tasks. `history` and
    `usage` are JSON of past attempts, `result` the result of a task that had ended when it was
    accepted, since it cannot run. `parsed_task` is the task, where it is in memory.
    """

    seq: int
    id: str
    agent: str
    priority: TaskPriority
    task: str
    accepted_at: float
    rank: float = 0.0
    status: TaskStatus = "pending"
    failed_attempts: int = 0
    generation: int = 0
    dispatch_count: int = 0
    not_before: float = 0.0
    history: str = ""
    usage: str = ""
    result: TaskResult | None = None
    parsed_task: BatchTask | None = None

    @classmethod
    def create(cls, seq: int, task: BatchTask, aging_s: float, order: str) -> TaskRow:
        """Return the row of a new task, which has its id.

        Raises InputInvalid for one that cannot be JSON.
        """
        now = time.time()
        # Rising in time by one level each `aging_s` is the same as having come so much earlier.
        rank = now - task.priority * aging_s if order == "fifo" else -(task.priority * 1e10) - now
        return cls(
            seq, task.id, task.agent, task.priority, task.to_json(), now, rank, parsed_task=task
        )

    def to_task(self) -> BatchTask:
        """Return the task."""
        return BatchTask.from_json(self.task) if self.parsed_task is None else self.parsed_task


class TaskUpdate(NamedTuple):
    """Describe a task's new state; `result` is set when it has ended."""

    seq: int
    id: str
    status: TaskStatus
    failed_attempts: int
    generation: int
    dispatch_count: int
    not_before: float = 0.0
    history: str = ""
    usage: str = ""
    result: TaskResult | None = None


TASK_COLUMNS = {
    "seq": "seq",
    "id": "id",
    "agent": "agent",
    "priority": "priority",
    "task": "task",
    "accepted_at": "accepted_s",
    "rank": "rank",
}
"""The fields of a row that never change, in their order, with their stored names."""
MUTABLE_COLUMNS = {
    "status": "status",
    "failed_attempts": "attempts",
    "generation": "tries",
    "dispatch_count": "starts",
    "not_before": "not_before_s",
    "history": "history",
    "usage": "spent",
}
"""The fields of a row that a TaskUpdate replaces, in their order, with their stored names."""


class StoredResult(NamedTuple):
    """A result in the journal: `number` counts them in the order in which they came."""

    number: int
    seq: int
    result: TaskResult
