"""Hold the state of an execution in this process, and the interface of its parts to its runner."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent_runtime.batch.environment import BatchEnvironment, budget_account
from agent_runtime.batch.error_handling import RetryBudget
from agent_runtime.batch.journal.records import Execution, ExecutionStatus, TaskRow
from agent_runtime.batch.journal.writer import JournalWriter, TaskOutcome
from agent_runtime.batch.progress import ExecutionProgress
from agent_runtime.batch.queue import TaskQueue
from agent_runtime.batch.settings import BatchSettings
from agent_runtime.event_bus import Event

if TYPE_CHECKING:
    from agent_runtime.batch.attempt import Attempt


class ExecutionControl(Protocol):
    """Changes the state of an execution: its runner, for the parts that the runner consists of."""

    @property
    def ending(self) -> bool:
        """Return whether the execution has been requested to end."""

    def notify(self) -> None:
        """Wake those that wait for a change."""

    async def pause(self, reason: str = "asked", status: ExecutionStatus = "paused") -> None:
        """Start no new task; running ones finish."""

    async def resume(self) -> None:
        """Resume the start of tasks."""

    def end(self, status: ExecutionStatus, reason: str = "") -> None:
        """Start no new task, and end when the running ones have."""


class ActiveExecution:
    """An execution's record, settings, queue, writer, progress and running attempts.

    Args:
        environment: shared by the executions of this process.
        execution: as the journal has it.
        settings: in force now.
        on_persisted: called with outcomes that the journal has.
        crashed: whether its last process ended without giving its lease back.
    """

    def __init__(
        self,
        environment: BatchEnvironment,
        execution: Execution,
        settings: BatchSettings,
        on_persisted: Callable[[Sequence[TaskOutcome]], None],
        *,
        crashed: bool = False,
    ) -> None:
        self.environment = environment
        self.execution = execution
        self.settings = settings
        queue = settings.queue
        self.queue: TaskQueue[TaskRow] = TaskQueue(
            queue.size, queue.order, queue.aging, settings.limits
        )
        self.writer = JournalWriter(
            environment.journal, execution.id, execution.token, on_persisted
        )
        self.progress = ExecutionProgress(float(execution.progress.get("active_s", 0.0)))
        self.retry_budget = RetryBudget(settings.retry.budget)
        self.running: dict[int, Attempt] = {}
        self.account = budget_account(execution, settings)
        self.max_concurrent = settings.max_concurrent
        self.crashed = crashed
        self.producer_failed = ""

    def change_settings(self, settings: BatchSettings) -> None:
        """Use other settings from now on; the queue and the backends stay."""
        self.settings = settings
        self.execution.settings = settings.explicit_settings()
        self.account = budget_account(self.execution, settings)
        self.retry_budget.share = settings.retry.budget
        self.max_concurrent = settings.max_concurrent

    @property
    def open_tasks(self) -> int:
        """Return how many tasks have not ended, including those that are being accepted."""
        return self.progress.total - self.progress.ended + self.queue.reserved

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Say something on the factory's bus."""
        self.environment.factory.event_bus.publish(Event(kind, data))

    def progress_json(self) -> str:
        """Return the progress figures as JSON for the journal."""
        self.progress.sample_rate()
        return json.dumps(self.progress.to_dict(len(self.running)))
