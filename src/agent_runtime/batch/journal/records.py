"""What a journal keeps: executions, their tasks, and the changes of these."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.batch.task import BatchTask
from agent_runtime.pool.task import TaskPriority

ExecutionState: TypeAlias = Literal[
    "pending", "running", "paused", "awaiting_approval", "completed", "failed", "cancelled"
]
FINAL_STATES: tuple[ExecutionState, ...] = ("completed", "failed", "cancelled")
RunnerRequest: TypeAlias = Literal["", "pause", "run", "cancel"]


@dataclass(slots=True)
class Execution:
    """One batch, as the journal knows it.

    `tenant` and `user` are its owner's; empty for one of the application itself. `state` is what it
    is, `requested` what somebody has asked its runner for, `why` what stopped it (`budget`,
    `approval`, an error). `sealed`: all its tasks are accepted. `owner` runs it; `is_leased` says
    whether its lease still ran when this was read; `token` grows with each owner. `progress` are
    the runner's last figures.
    """

    id: str
    settings: dict[str, Any] = field(default_factory=dict)
    state: ExecutionState = "pending"
    name: str = ""
    agent: str = ""
    sealed: bool = False
    requested: RunnerRequest = ""
    why: str = ""
    approved: bool = False
    forecast: dict[str, Any] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    created_s: float = field(default_factory=time.time)
    ended_s: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    owner: str = ""
    token: int = 0
    is_leased: bool = False
    tenant: str = ""
    user: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to be done, unless somebody asks for more."""
        return self.state in FINAL_STATES

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


_VOLATILE_FIELDS = ("id", "owner", "token", "is_leased", "requested", "progress")
"""Fields of an execution that others than its runner change, or that change often.

Not part of its document.
"""


def execution_document(execution: Execution) -> str:
    """The part of an execution that its runner writes, as JSON."""
    return json.dumps({k: v for k, v in execution.to_dict().items() if k not in _VOLATILE_FIELDS})


@dataclass(slots=True)
class TaskRow:
    """One task of an execution and how far it has come.

    `seq` is its place, from 1. `attempts` have failed; `tries` have ended in any way; `starts` of
    the present one were given to a worker: more than one when workers were lost. `rank` orders
    those that wait. `history` and `spent` are JSON of past attempts, `result` that of a task that
    had ended when it was accepted: it cannot be run. `parsed_task` is the task, where it is at
    hand.
    """

    seq: int
    id: str
    agent: str
    priority: TaskPriority
    task: str
    accepted_s: float
    rank: float = 0.0
    status: TaskStatus = "pending"
    attempts: int = 0
    tries: int = 0
    starts: int = 0
    not_before_s: float = 0.0
    history: str = ""
    spent: str = ""
    result: TaskResult | None = None
    parsed_task: BatchTask | None = None

    @classmethod
    def create(cls, seq: int, task: BatchTask, aging_s: float, order: str) -> TaskRow:
        """The row of a new task, which has its id.

        Raises InputInvalid for one that JSON cannot say.
        """
        now = time.time()
        # Rising in time by one level each `aging_s` is the same as having come so much earlier.
        rank = now - task.priority * aging_s if order == "fifo" else -(task.priority * 1e10) - now
        return cls(
            seq, task.id, task.agent, task.priority, task.to_json(), now, rank, parsed_task=task
        )

    def to_task(self) -> BatchTask:
        """The task itself."""
        return BatchTask.from_json(self.task) if self.parsed_task is None else self.parsed_task


class TaskUpdate(NamedTuple):
    """How a task stands from now on; `result` is its result when it has ended."""

    seq: int
    id: str
    status: TaskStatus
    attempts: int
    tries: int
    starts: int
    not_before_s: float = 0.0
    history: str = ""
    spent: str = ""
    result: TaskResult | None = None


MUTABLE_FIELDS = ("status", "attempts", "tries", "starts", "not_before_s", "history", "spent")
"""What a change changes, in its order."""


class StoredResult(NamedTuple):
    """A result in the journal: `number` counts them in the order in which they came."""

    number: int
    seq: int
    result: TaskResult
