"""One attempt at a task."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.error_handling import error_kind
from agent_runtime.batch.result import Failure, Spent, TaskResult, TaskStatus
from agent_runtime.errors import AgentRuntimeError, CallError
from agent_runtime.errors.user_code import error_text
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from agent_runtime.batch.journal.records import TaskRow
    from agent_runtime.batch.load_balancer import Seat
    from agent_runtime.batch.task import BatchTask

MAX_MESSAGE = 2_000
"""Characters of an error's text that are kept."""


class Attempt:
    """A task that is being run, by the worker that makes it.

    `asked`: it was told to stop; `given_up`: nobody waits for it any more.
    """

    __slots__ = (
        "asked",
        "began_s",
        "context",
        "ended_s",
        "given_up",
        "overdue_s",
        "row",
        "seat",
        "slow",
        "task",
        "worker",
    )

    def __init__(self, row: TaskRow, task: BatchTask, seat: Seat, context: AgentContext) -> None:
        self.row = row
        self.task = task
        self.seat = seat
        self.context = context
        self.began_s = time.monotonic()
        self.overdue_s = float("inf")
        self.ended_s: float | None = None
        self.slow = self.asked = self.given_up = False
        self.worker = asyncio.current_task()

    def stop(self) -> None:
        """Cancel what it does."""
        if self.ended_s is None and self.worker is not None:
            self.asked = True
            self.worker.cancel()

    def end(self) -> None:
        """Mark the end: a later or pending cancel is not its worker's."""
        self.ended_s = self.ended_s or time.monotonic()
        while self.asked and self.worker is not None and self.worker.cancelling():
            self.worker.uncancel()

    @property
    def duration_s(self) -> float:
        """How long it took, or has taken until now, in seconds."""
        return (time.monotonic() if self.ended_s is None else self.ended_s) - self.began_s


def call_names(execution_id: str, row: TaskRow) -> tuple[str, str]:
    """The task's own name, and the key of its present try.

    The key is the same again when the process has died in the middle: then nobody knows what was
    done. After a try that ended in any way there is another one: what it has cost is settled.
    """
    task_id = f"{execution_id}:{row.id}"
    return task_id, f"{task_id}:{row.tries + 1}"


def result_of(
    attempt: Attempt, answer: AgentResult, spent: Spent, history: list[Failure]
) -> TaskResult:
    """The result of an attempt that gave an answer."""
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
        attempt.seat.backend.name,
        answer.template_digest,
        attempt.task.metadata,
        [getattr(each, "value", each) for each in answer.interrupts],
    )


def failed_result(
    row: TaskRow,
    status: TaskStatus,
    spent: Spent,
    history: list[Failure],
    attempt: Attempt | None = None,
) -> TaskResult:
    """The result of a task that is not tried again; its error is the last of its history."""
    made = TaskResult(
        row.id, row.seq, status, row.agent, error=history[-1], history=history, ended_s=time.time()
    )
    made.attempts = len(history)
    made.usage = spent.usage
    made.cost_usd = spent.cost_usd
    made.estimated = spent.estimated
    if attempt is not None:
        made.duration_s = round(attempt.duration_s, 6)
        made.run_id = attempt.context.run_id
        made.worker = attempt.seat.backend.name
        made.metadata = attempt.task.metadata
        made.session_id = attempt.context.session_id
    return made


def failure_of(error: BaseException, attempt: int, worker: str = "") -> Failure:
    """An error as it stands in a history; secrets are masked."""
    code = error.code if isinstance(error, AgentRuntimeError) else "internal"
    text = error_text(error)
    text = text if isinstance(error, AgentRuntimeError) else f"{type(error).__name__}: {text}"
    return Failure(
        attempt, error_kind(error), code, SECRETS.text(text)[:MAX_MESSAGE], time.time(), worker
    )


def spent_so_far(row: TaskRow) -> Spent:
    """What the attempts before this one have used."""
    return Spent(**json.loads(row.spent)) if row.spent else Spent()


def history_of(row: TaskRow) -> list[Failure]:
    """The attempts before this one."""
    return [Failure(**each) for each in json.loads(row.history)] if row.history else []


def plain_history(history: list[Failure]) -> str:
    """A history as the journal has it."""
    shown: list[Any] = [{name: getattr(each, name) for name in each.__slots__} for each in history]
    return json.dumps(shown) if shown else ""


def plain_spent(spent: Spent) -> str:
    """What was spent, as the journal has it."""
    return json.dumps(
        {"usage": spent.usage, "cost_usd": spent.cost_usd, "estimated": spent.estimated}
    )


def usage_of(attempt: Attempt, error: BaseException) -> Any:
    """What a failed attempt has used."""
    return error.usage if isinstance(error, CallError) and error.run_id else attempt.context.usage
