"""Running one task of an execution: the call that it is, and what becomes of its outcome."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_runtime.batch.attempt import (
    Attempt,
    call_names,
    failed_result,
    failure_of,
    history_of,
    plain_history,
    plain_spent,
    result_of,
    spent_so_far,
    usage_of,
)
from agent_runtime.batch.error_handling import ErrorDecision, handle_execution_error
from agent_runtime.batch.journal.records import Change, TaskRow
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.errors import AgentRuntimeError, BudgetExceeded, InstanceFailed
from agent_runtime.event_bus.dead_letters import DeadLetter, put_aside
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from agent_runtime.batch.execution import ExecutionRun
    from agent_runtime.batch.scheduling import Seat
    from agent_runtime.batch.task import BatchTask


class Outcome(NamedTuple):
    """What is to be written of a task, and done when it is: its result told, or the task queued again."""

    change: Change
    result: TaskResult | None = None
    again: TaskRow | None = None


QUEUE = "batch"


class TaskRun:
    """Runs the tasks of an execution, one attempt each time."""

    def __init__(self, run: ExecutionRun) -> None:
        self._run = run

    @staticmethod
    def change(row: TaskRow, result: TaskResult | None = None) -> Change:
        """How a task stands, for the journal."""
        return Change(
            row.seq, row.id, row.status, row.attempts, row.tries, row.starts, row.not_before_s, row.history, row.spent,
            None if result is None else result.to_json(),
        )  # fmt: skip

    async def run(self, row: TaskRow, seat: Seat) -> Outcome:
        """One attempt; returns what is to be written of it. Cancelling leaves the task as one that runs."""
        run, task = self._run, row.to_task()
        task_id, _ = call_names(run.execution.id, row)
        attempt = Attempt(row, task, seat, await self._call(row, task), task_id)
        limit_s = run.settings.task_timeout if task.timeout_s is None else task.timeout_s
        if limit_s is not None:
            attempt.context.deadline = asyncio.get_running_loop().time() + limit_s
            attempt.overdue_s = limit_s + run.settings.grace
        run.running[row.seq] = attempt
        try:
            job = await attempt.outcome
            return await self._succeeded(attempt, job.result())
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
            return self._back(attempt)  # the execution is being stopped
        except Exception as error:  # noqa: BLE001 - whatever a backend raises is the task's
            return await self._failed(attempt, error)
        finally:
            del run.running[row.seq]
            if run.queue.held:
                run.tell()

    async def _call(self, row: TaskRow, task: BatchTask) -> AgentContext:
        run = self._run
        task_id, key = call_names(run.execution.id, row)
        labels = {"batch_id": run.execution.id, "task_id": row.id, "idempotency_key": task_id}
        call = AgentContext(
            task.input,
            principal=run.shop.principal,
            credentials=run.shop.credentials,
            metadata={**task.metadata, **labels},
            idempotency_key=key,
        )
        if run.account is not None:
            call.accounts = (run.account,)
        if run.settings.sessions:
            call.session_id = f"{run.execution.id}-{row.seq}"
            if row.starts > 1 or row.attempts:
                call.input = await self._begun(call.session_id, task.input)
        return call

    async def _begun(self, session_id: str, given: Any) -> Any:
        """None, to go on from the last step, when an attempt before has left one; else the input itself."""
        manager, principal = self._run.shop.factory.session_manager, self._run.shop.principal
        try:
            found = None if manager is None else await manager.get_checkpoint(session_id, principal=principal)
        except AgentRuntimeError:
            return given
        return given if found is None or not found.messages else None

    # -- what became of it ---------------------------------------------------------------------------------

    async def _succeeded(self, attempt: Attempt, answer: AgentResult) -> Outcome:
        row, spent = attempt.row, spent_so_far(attempt.row)
        spent.add(answer.usage)
        if _exhausted(answer, self._run.account):
            return await self._unaffordable(attempt)
        result = result_of(attempt, answer, spent, history_of(row))
        row.status, row.spent = result.status, ""
        return Outcome(self.change(row, result), result)

    async def _failed(self, attempt: Attempt, error: Exception) -> Outcome:
        run, row = self._run, attempt.row
        account = run.account
        if isinstance(error, BudgetExceeded) and account is not None and error.account == account.key:
            return await self._unaffordable(attempt)
        if isinstance(error, InstanceFailed):
            run.tally.lost += 1
        decision = handle_execution_error(error, row.attempts + 1, run.settings, run.retries)
        spent = spent_so_far(row)
        spent.add(usage_of(attempt, error))
        row.spent = plain_spent(spent)
        if decision.action == "postpone":
            return self._again(attempt, decision)
        history = [*history_of(row), failure_of(error, row.attempts + 1, attempt.seat.backend.name)]
        row.attempts += 1
        row.history = plain_history(history)
        if decision.action == "retry":
            run.tally.retries += 1
            self._tell_retry(row, history[-1].code)
            return self._again(attempt, decision)
        last = run.settings.fallback_strategy == "retry" and row.attempts <= run.settings.retry.attempts
        if last and decision.action == "fail" and not run.settings.fail_fast:
            row.attempts = max(row.attempts, run.settings.retry.attempts)
            return self._again(attempt, decision)
        status: TaskStatus = {"skip": "skipped", "poison": "poisoned"}.get(decision.action, "failed")  # type: ignore[assignment]
        row.status = status
        result = failed_result(row, status, spent, history, attempt)
        self._consequences(result)
        return Outcome(self.change(row, result), result)

    def _tell_retry(self, row: TaskRow, code: str) -> None:
        data = {"execution_id": self._run.execution.id, "task_id": row.id, "attempt": row.attempts, "error": code}
        self._run.publish("batch.retry", data)

    def _again(self, attempt: Attempt, decision: ErrorDecision) -> Outcome:
        row = attempt.row
        row.status, row.starts, row.tries = "pending", 0, row.tries + 1
        row.not_before_s = time.time() + decision.wait_s
        return Outcome(self.change(row), again=row)

    def _back(self, attempt: Attempt) -> Outcome:
        """As if it had not been begun; what it has cost is not forgotten."""
        row, spent = attempt.row, spent_so_far(attempt.row)
        spent.add(attempt.context.usage)
        row.status, row.starts, row.tries, row.spent = "pending", 0, row.tries + 1, plain_spent(spent)
        return Outcome(self.change(row), again=row)

    async def _unaffordable(self, attempt: Attempt) -> Outcome:
        back = self._back(attempt)
        await self._run.pause("budget")
        return back

    def _consequences(self, result: TaskResult) -> None:
        settings, run = self._run.settings, self._run
        if result.status != "failed":
            return
        why = f"task {result.task_id}: {result.error.code if result.error else 'failed'}"
        if settings.fail_fast or not settings.continue_on_error:
            run.end("failed", why)

    async def lost(self, row: TaskRow, most: int) -> Outcome:
        """A task whose worker is gone, with its whole process: again, or put aside when it has had enough of them."""
        run = self._run
        run.tally.lost += 1
        error = InstanceFailed("the process that ran the task has ended")
        history = [*history_of(row), failure_of(error, row.attempts + 1)]
        row.history, row.status = plain_history(history), "pending"
        if row.starts < most:
            return Outcome(self.change(row))
        row.status, row.attempts = "poisoned", row.attempts + 1
        letter = DeadLetter.of(
            QUEUE, {"execution_id": run.execution.id, "task": row.to_task().to_json()}, error, row.starts
        )
        await put_aside(run.shop.dead_letters, letter)
        data = {"letter_id": letter.id, "queue": QUEUE, "attempts": letter.attempts, "error": letter.error}
        run.publish("dead_letter.added", data)
        result = failed_result(row, "poisoned", spent_so_far(row), history)
        return Outcome(self.change(row, result), result)


def _exhausted(answer: AgentResult, account: Any) -> bool:
    """Whether a call with a session was paused because the batch's budget is gone."""
    if answer.status != "interrupted" or account is None:
        return False
    values = [getattr(each, "value", each) for each in answer.interrupts]
    return any(isinstance(v, dict) and v.get("account") == account.key for v in values)
