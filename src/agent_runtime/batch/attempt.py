"""One attempt at a task."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.error_handling import error_kind
from agent_runtime.batch.result import Failure, TaskResult, TaskStatus, UsageTotals
from agent_runtime.errors import AgentRuntimeError, CallError
from agent_runtime.errors.user_code import error_text
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from agent_runtime.batch.journal.records import TaskRow
    from agent_runtime.batch.load_balancer import BackendSlot
    from agent_runtime.batch.task import BatchTask

MAX_MESSAGE_CHARS = 2_000
"""Characters of an error's text that are stored."""


class Attempt:
    """Track one attempt at a task by one worker.

    `cancel_requested`: it was cancelled; `abandoned`: its result is no longer awaited.
    """

    __slots__ = (
        "abandoned",
        "backend_slot",
        "cancel_after_s",
        "cancel_requested",
        "context",
        "ended_monotonic",
        "is_slow",
        "row",
        "started_monotonic",
        "task",
        "worker",
    )

    def __init__(
        self, row: TaskRow, task: BatchTask, slot: BackendSlot, context: AgentContext
    ) -> None:
        self.row = row
        self.task = task
        self.backend_slot = slot
        self.context = context
        self.started_monotonic = time.monotonic()
        self.cancel_after_s = float("inf")
        self.ended_monotonic: float | None = None
        self.is_slow = self.cancel_requested = self.abandoned = False
        self.worker = asyncio.current_task()

    def stop(self) -> None:
        """Cancel the attempt."""
        if self.ended_monotonic is None and self.worker is not None:
            self.cancel_requested = True
            self.worker.cancel()

    def end(self) -> None:
        """Mark the end: a later or pending cancel is not its worker's."""
        self.ended_monotonic = self.ended_monotonic or time.monotonic()
        while self.cancel_requested and self.worker is not None and self.worker.cancelling():
            self.worker.uncancel()

    @property
    def duration_s(self) -> float:
        """Return the duration until its end, or until now, in seconds."""
        return (
            time.monotonic() if self.ended_monotonic is None else self.ended_monotonic
        ) - self.started_monotonic


def idempotency_keys(execution_id: str, row: TaskRow) -> tuple[str, str]:
    """Return the task's idempotency key and that of its present attempt.

    The attempt's key stays the same when the process dies in the middle, because the outcome is
    unknown then. After any ended attempt the next one has another key: its cost is settled.
    """
    task_id = f"{execution_id}:{row.id}"
    return task_id, f"{task_id}:{row.generation + 1}"


def result_from_answer(
    attempt: Attempt, answer: AgentResult, spent: UsageTotals, history: list[Failure]
) -> TaskResult:
    """Return the result of an attempt that succeeded."""
    row = attempt.row
    structured = answer.structured_response
    return TaskResult(
        row.id,
        row.seq,
        "interrupted" if answer.status == "interrupted" else "completed",
        row.agent,
        answer.output,
        structured.model_dump(mode="json") if hasattr(structured, "model_dump") else structured,
        None,
        history,
        len(history) + 1,
        spent.usage,
        spent.cost_usd,
        spent.estimated,
        round(attempt.duration_s, 6),
        time.time(),
        answer.run_id,
        answer.session_id,
        attempt.backend_slot.backend.name,
        answer.template_digest,
        attempt.task.metadata,
        [getattr(interrupt, "value", interrupt) for interrupt in answer.interrupts],
    )


def failed_result(
    row: TaskRow,
    status: TaskStatus,
    spent: UsageTotals,
    history: list[Failure],
    attempt: Attempt | None = None,
) -> TaskResult:
    """Return the result of a task that is not retried; its error is the last one of its history."""
    result = TaskResult(
        row.id, row.seq, status, row.agent, error=history[-1], history=history, ended_at=time.time()
    )
    result.attempts = len(history)
    result.usage = spent.usage
    result.cost_usd = spent.cost_usd
    result.estimated = spent.estimated
    if attempt is not None:
        result.duration_s = round(attempt.duration_s, 6)
        result.run_id = attempt.context.run_id
        result.worker = attempt.backend_slot.backend.name
        result.metadata = attempt.task.metadata
        result.session_id = attempt.context.session_id
    return result


def failure_from_error(error: BaseException, attempt: int, worker: str = "") -> Failure:
    """Return an error as an entry of a history; secrets are masked."""
    code = error.code if isinstance(error, AgentRuntimeError) else "internal"
    text = error_text(error)
    text = text if isinstance(error, AgentRuntimeError) else f"{type(error).__name__}: {text}"
    return Failure(
        attempt,
        error_kind(error),
        code,
        SECRETS.text(text)[:MAX_MESSAGE_CHARS],
        time.time(),
        worker,
    )


def previous_usage(row: TaskRow) -> UsageTotals:
    """Return the usage of earlier attempts."""
    return UsageTotals(**json.loads(row.usage)) if row.usage else UsageTotals()


def failure_history(row: TaskRow) -> list[Failure]:
    """Return the earlier failed attempts."""
    return [Failure.from_dict(fields) for fields in json.loads(row.history)] if row.history else []


def history_to_json(history: list[Failure]) -> str:
    """Return a history as JSON for the journal."""
    entries: list[Any] = [
        {name: getattr(failure, name) for name in failure.__slots__} for failure in history
    ]
    return json.dumps(entries) if entries else ""


def usage_to_json(spent: UsageTotals) -> str:
    """Return usage as JSON for the journal."""
    return json.dumps(
        {"usage": spent.usage, "cost_usd": spent.cost_usd, "estimated": spent.estimated}
    )


def attempt_usage(attempt: Attempt, error: BaseException) -> Any:
    """Return the usage of a failed attempt."""
    return error.usage if isinstance(error, CallError) and error.run_id else attempt.context.usage
