"""Run one task of an execution: its call, and the handling of the outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.attempt import (
    Attempt,
    attempt_usage,
    failed_result,
    failure_from_error,
    failure_history,
    history_to_json,
    idempotency_keys,
    previous_usage,
    result_from_answer,
    usage_to_json,
)
from agent_runtime.batch.error_handling import ErrorDecision, handle_execution_error
from agent_runtime.batch.journal.records import TaskRow, TaskUpdate
from agent_runtime.batch.journal.writer import TaskOutcome
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.errors import (
    AgentFailed,
    AgentRuntimeError,
    BudgetExceeded,
    CallTimeout,
    InstanceFailed,
)
from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.event_bus.dead_letter import DeadLetter
from agent_runtime.event_bus.dead_letters import add_shielded
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from agent_runtime.batch.active_execution import ActiveExecution, ExecutionControl
    from agent_runtime.batch.load_balancer import BackendSlot
    from agent_runtime.batch.task import BatchTask


DEAD_LETTER_QUEUE = "batch"
RESERVATION_WAIT_S = 0.2
"""Seconds to wait for running calls to settle their reservations of a budget."""
_STATUS_BY_ACTION: Mapping[str, TaskStatus] = {
    "fail": "failed",
    "skip": "skipped",
    "poison": "poisoned",
}


class TaskRunner:
    """Runs the tasks of an execution, one attempt each time."""

    def __init__(self, active: ActiveExecution, control: ExecutionControl) -> None:
        self._active = active
        self._control = control

    @staticmethod
    def build_outcome(
        row: TaskRow, result: TaskResult | None = None, *, requeue: bool = False
    ) -> TaskOutcome:
        """Return a task's record for the journal; with `requeue` it is then queued again."""
        update = TaskUpdate(
            row.seq, row.id, row.status, row.failed_attempts, row.generation, row.dispatch_count,
            row.not_before, row.history, row.usage,
            result,
        )  # fmt: skip
        return TaskOutcome(update, row if requeue else None)

    async def run_attempt(
        self, row: TaskRow, slot: BackendSlot
    ) -> TaskOutcome | Callable[[], TaskOutcome] | None:
        """Run one attempt; return its outcome, or None if it was abandoned. Cancelling stops it."""
        active = self._active
        task = row.to_task()
        task_id, key = idempotency_keys(active.execution.id, row)
        call = self._build_call(row, task, task_id, key)
        if active.settings.sessions:
            await self._resume_session(call, row)
        attempt = Attempt(row, task, slot, call)
        timeout_s = active.settings.task_timeout if task.timeout_s is None else task.timeout_s
        if timeout_s is not None:
            call.deadline = asyncio.get_running_loop().time() + timeout_s
            attempt.cancel_after_s = timeout_s + active.settings.grace
        active.running[row.seq] = attempt
        try:
            # Awaited directly and not as a task, which saves one iteration of the loop before the
            # next one.
            answer = await slot.backend.run(task, call, active.execution.id)
        except asyncio.CancelledError as error:
            if not attempt.cancel_requested:
                if (
                    current_task := asyncio.current_task()
                ) is not None and current_task.cancelling():
                    raise
                return self._handle_failure(
                    attempt, AgentFailed("the backend raised CancelledError without a cancellation")
                )
            return None if attempt.abandoned else await self._handle_cancel(attempt, error)
        except BaseException as error:  # noqa: BLE001 - whatever a backend raises is the task's
            failure = as_user_exception(error)
            return None if attempt.abandoned else await self._handle_exception(attempt, failure)
        else:
            if attempt.abandoned:
                return None
            if answer.interrupts and _is_budget_interrupt(answer, active.account):
                return await self._pause_for_budget(attempt)
            return partial(self._handle_success, attempt, answer)
        finally:  # only now: an execution rests when nothing runs
            self._finish_attempt(attempt)

    def _finish_attempt(self, attempt: Attempt) -> None:
        active = self._active
        attempt.end()
        if active.running.get(attempt.row.seq) is attempt:
            del active.running[attempt.row.seq]
        if active.queue.paused:
            self._control.notify()

    async def _handle_cancel(self, attempt: Attempt, error: BaseException) -> TaskOutcome:
        """Handle a cancelled attempt: its execution ends, or it was overdue."""
        if attempt.duration_s < attempt.cancel_after_s:
            return self._requeue_unstarted(attempt)
        timeout = self._timeout_error(attempt)
        timeout.__cause__ = error
        return self._handle_failure(attempt, timeout)

    def _timeout_error(self, attempt: Attempt) -> CallTimeout:
        return CallTimeout("run", attempt.cancel_after_s - self._active.settings.grace)

    def abandon(self, attempt: Attempt) -> TaskOutcome:
        """Wait no longer for a job that does not end by its cancel."""
        attempt.abandoned = True
        attempt.stop()
        self._active.running.pop(attempt.row.seq, None)
        if attempt.duration_s < attempt.cancel_after_s:
            return self._requeue_unstarted(attempt)
        return self._handle_failure(attempt, self._timeout_error(attempt))

    def _build_call(self, row: TaskRow, task: BatchTask, task_id: str, key: str) -> AgentContext:
        active = self._active
        labels = {"batch_id": active.execution.id, "task_id": row.id, "idempotency_key": task_id}
        call = AgentContext(
            task.input,
            principal=active.environment.principal,
            credentials=active.environment.credentials,
            metadata={**task.metadata, **labels},
            idempotency_key=key,
        )
        if active.account is not None:
            call.accounts = (active.account,)
        return call

    async def _resume_session(self, call: AgentContext, row: TaskRow) -> None:
        """Set the call's session; continue after the last step of an earlier attempt."""
        call.session_id = f"{self._active.execution.id}-{row.seq}"
        manager = self._active.environment.factory.session_manager
        principal = self._active.environment.principal
        if manager is None or (row.dispatch_count <= 1 and not row.generation):
            return
        try:
            checkpoint = await manager.checkpoints.get(call.session_id, principal=principal)
        except AgentRuntimeError:
            return
        if checkpoint is not None and checkpoint.messages:
            call.input = None

    def _handle_success(self, attempt: Attempt, answer: AgentResult) -> TaskOutcome:
        row = attempt.row
        spent = previous_usage(row)
        spent.add(answer.usage)
        result = result_from_answer(attempt, answer, spent, failure_history(row))
        row.status = result.status
        row.usage = ""
        return self.build_outcome(row, result)

    async def _handle_exception(self, attempt: Attempt, error: Exception) -> TaskOutcome | None:
        account = self._active.account
        if (
            isinstance(error, BudgetExceeded)
            and account is not None
            and error.account == account.key
        ):
            if error.held_usd and len(self._active.running) > 1:
                # The budget is not spent: running calls have reserved it, and will release some.
                self._active.queue.throttle(attempt.row.agent, RESERVATION_WAIT_S)
                return self._requeue_unstarted(attempt)
            return await self._pause_for_budget(attempt)
        return self._handle_failure(attempt, error)

    def _handle_failure(self, attempt: Attempt, error: Exception) -> TaskOutcome:
        active = self._active
        row = attempt.row
        active.progress.lost += isinstance(error, InstanceFailed)
        decision = handle_execution_error(
            error, row.failed_attempts + 1, active.settings, active.retry_budget
        )
        spent = previous_usage(row)
        spent.add(attempt_usage(attempt, error))
        row.usage = usage_to_json(spent)
        if decision.action == "postpone":
            return self._schedule_retry(row, decision)
        history = [
            *failure_history(row),
            failure_from_error(error, row.failed_attempts + 1, attempt.backend_slot.backend.name),
        ]
        row.failed_attempts += 1
        row.history = history_to_json(history)
        if decision.action == "retry":
            active.progress.retries += 1
            active.environment.result_counts["retries"] += 1
            self._publish_retry(row, history[-1].code)
            return self._schedule_retry(row, decision)
        max_attempts = active.settings.retry.attempts
        if (
            active.settings.fallback_strategy == "retry"
            and row.failed_attempts <= max_attempts
            and decision.action == "fail"
        ):
            row.failed_attempts = max_attempts
            return self._schedule_retry(row, decision)
        row.status = _STATUS_BY_ACTION[decision.action]
        result = failed_result(row, row.status, spent, history, attempt)
        self.apply_failure_policy(result)
        return self.build_outcome(row, result)

    def _publish_retry(self, row: TaskRow, code: str) -> None:
        data = {
            "execution_id": self._active.execution.id,
            "task_id": row.id,
            "attempt": row.failed_attempts,
            "error": code,
        }
        self._active.publish("batch.retry", data)

    def _schedule_retry(self, row: TaskRow, decision: ErrorDecision) -> TaskOutcome:
        row.status = "pending"
        row.dispatch_count = 0
        row.generation = row.generation + 1
        row.not_before = 0.0
        if decision.action == "postpone":
            self._active.queue.throttle(
                row.agent, decision.wait_s
            )  # the others of its kind would be refused, too
        else:
            row.not_before = time.time() + decision.wait_s
        return self.build_outcome(row, requeue=True)

    def _requeue_unstarted(self, attempt: Attempt) -> TaskOutcome:
        """Queue a task again as if it had never started; its cost is recorded."""
        row = attempt.row
        spent = previous_usage(row)
        spent.add(attempt.context.usage)
        row.status = "pending"
        row.dispatch_count = 0
        row.generation = row.generation + 1
        row.usage = usage_to_json(spent)
        return self.build_outcome(row, requeue=True)

    async def _pause_for_budget(self, attempt: Attempt) -> TaskOutcome | None:
        attempt.end()  # it is not stopped any more while the pause is written
        outcome = self._requeue_unstarted(attempt)
        await self._control.pause("budget")
        return None if attempt.abandoned else outcome

    def apply_failure_policy(self, result: TaskResult) -> None:
        """End the execution if its settings require that after a failure."""
        settings = self._active.settings
        if result.status != "failed":
            return
        reason = f"task {result.task_id}: {result.error.code if result.error else 'failed'}"
        if settings.fail_fast or not settings.continue_on_error:
            self._control.end("failed", reason)

    def requeue_interrupted(self, row: TaskRow) -> TaskOutcome:
        """Queue a task again, under its id, that was running in a process that lost its journal."""
        row.status = "pending"
        row.dispatch_count = 1
        return self.build_outcome(row)

    async def record_lost(self, row: TaskRow, max_lost: int) -> TaskOutcome:
        """Handle a task whose worker process has ended.

        Run it again, or quarantine it after `max_lost`.
        """
        active = self._active
        active.progress.lost += 1
        error = InstanceFailed("the process that ran the task has ended")
        history = [*failure_history(row), failure_from_error(error, row.failed_attempts + 1)]
        row.history = history_to_json(history)
        row.status = "pending"
        if row.dispatch_count < max_lost:
            return self.build_outcome(row)
        row.status = "poisoned"
        row.failed_attempts = row.failed_attempts + 1
        payload = {"execution_id": active.execution.id, "task": row.to_task().to_json()}
        owner = {"tenant": active.execution.tenant, "user": active.execution.user}
        letter = DeadLetter.of(DEAD_LETTER_QUEUE, payload, error, row.dispatch_count, **owner)
        await add_shielded(active.environment.dead_letters, letter)
        data = {
            "letter_id": letter.id,
            "queue": DEAD_LETTER_QUEUE,
            "attempts": letter.attempts,
            "error": letter.error,
        }
        active.publish("dead_letter.added", data)
        result = failed_result(row, "poisoned", previous_usage(row), history)
        return self.build_outcome(row, result)


def _is_budget_interrupt(answer: AgentResult, account: Any) -> bool:
    """Return whether a call with a session was paused because the batch's budget is spent."""
    if account is None:
        return False
    values = [getattr(interrupt, "value", interrupt) for interrupt in answer.interrupts]
    return any(isinstance(v, dict) and v.get("account") == account.key for v in values)
