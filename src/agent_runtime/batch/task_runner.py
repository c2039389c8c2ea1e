"""Running one task of an execution: the call that it is, and what becomes of its outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

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
from agent_runtime.batch.journal.writer import Outcome
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.errors import (
    AgentFailed,
    AgentRuntimeError,
    BudgetExceeded,
    CallTimeout,
    InstanceFailed,
)
from agent_runtime.errors.user_code import contained
from agent_runtime.event_bus.dead_letters import DeadLetter, put_aside
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from agent_runtime.batch.load_balancer import Seat
    from agent_runtime.batch.runner import ExecutionRun
    from agent_runtime.batch.task import BatchTask


QUEUE = "batch"
HELD_S = 0.2
"""How long to wait for what calls under way hold of a budget."""
_STATUS: Mapping[str, TaskStatus] = {"fail": "failed", "skip": "skipped", "poison": "poisoned"}


class TaskRun:
    """Runs the tasks of an execution, one attempt each time."""

    def __init__(self, run: ExecutionRun) -> None:
        self._run = run

    @staticmethod
    def outcome(row: TaskRow, result: TaskResult | None = None, *, again: bool = False) -> Outcome:
        """How a task stands, for the journal; `again` when it is to be queued once that is kept."""
        change = Change(
            row.seq, row.id, row.status, row.attempts, row.tries, row.starts,
            row.not_before_s, row.history, row.spent,
            result,
        )  # fmt: skip
        return Outcome(change, row if again else None)

    async def run(self, row: TaskRow, seat: Seat) -> Outcome | Callable[[], Outcome] | None:
        """One attempt; returns what is to be written of it, None when it was given up.

        Cancelling stops it.
        """
        run = self._run
        task = row.to_task()
        task_id, key = call_names(run.execution.id, row)
        call = self._call(row, task, task_id, key)
        if run.settings.sessions:
            await self._go_on(call, row)
        attempt = Attempt(row, task, seat, call)
        limit_s = run.settings.task_timeout if task.timeout_s is None else task.timeout_s
        if limit_s is not None:
            call.deadline = asyncio.get_running_loop().time() + limit_s
            attempt.overdue_s = limit_s + run.settings.grace
        run.running[row.seq] = attempt
        try:
            # Awaited here and not in a task of its own: the next one begins without a turn of the
            # loop between.
            answer = await seat.backend.run(task, call, run.execution.id)
        except asyncio.CancelledError as error:
            if not attempt.asked:
                if (this := asyncio.current_task()) is not None and this.cancelling():
                    raise
                return self._judged(
                    attempt, AgentFailed("the backend raised CancelledError, but nobody cancelled")
                )
            return None if attempt.given_up else await self._stopped(attempt, error)
        except BaseException as error:  # noqa: BLE001 - whatever a backend raises is the task's
            failure = contained(error)
            return None if attempt.given_up else await self._failed(attempt, failure)
        else:
            if attempt.given_up:
                return None
            if answer.interrupts and _exhausted(answer, run.account):
                return await self._unaffordable(attempt)
            return partial(self._succeeded, attempt, answer)
        finally:  # only now: an execution rests when nothing runs
            self._left(attempt)

    def _left(self, attempt: Attempt) -> None:
        run = self._run
        attempt.end()
        if run.running.get(attempt.row.seq) is attempt:
            del run.running[attempt.row.seq]
        if run.queue.held:
            run.tell()

    async def _stopped(self, attempt: Attempt, error: BaseException) -> Outcome:
        """It was told to stop: by an execution that ends, or because it was overdue."""
        if attempt.duration_s < attempt.overdue_s:
            return self._back(attempt)
        timeout = self._overdue(attempt)
        timeout.__cause__ = error
        return self._judged(attempt, timeout)

    def _overdue(self, attempt: Attempt) -> CallTimeout:
        return CallTimeout("run", attempt.overdue_s - self._run.settings.grace)

    def give_up(self, attempt: Attempt) -> Outcome:
        """Wait no longer for a job that does not end by its cancel."""
        attempt.given_up = True
        attempt.stop()
        self._run.running.pop(attempt.row.seq, None)
        if attempt.duration_s < attempt.overdue_s:
            return self._back(attempt)
        return self._judged(attempt, self._overdue(attempt))

    def _call(self, row: TaskRow, task: BatchTask, task_id: str, key: str) -> AgentContext:
        run = self._run
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
        return call

    async def _go_on(self, call: AgentContext, row: TaskRow) -> None:
        """Give the call its session.

        When an attempt before has left steps in it, go on behind the last of them.
        """
        call.session_id = f"{self._run.execution.id}-{row.seq}"
        manager = self._run.shop.factory.session_manager
        principal = self._run.shop.principal
        if manager is None or (row.starts <= 1 and not row.tries):
            return
        try:
            found = await manager.get_checkpoint(call.session_id, principal=principal)
        except AgentRuntimeError:
            return
        if found is not None and found.messages:
            call.input = None

    # -- what became of it
    # ---------------------------------------------------------------------------------

    def _succeeded(self, attempt: Attempt, answer: AgentResult) -> Outcome:
        row = attempt.row
        spent = spent_so_far(row)
        spent.add(answer.usage)
        result = result_of(attempt, answer, spent, history_of(row))
        row.status = result.status
        row.spent = ""
        return self.outcome(row, result)

    async def _failed(self, attempt: Attempt, error: Exception) -> Outcome | None:
        account = self._run.account
        if (
            isinstance(error, BudgetExceeded)
            and account is not None
            and error.account == account.key
        ):
            if error.held_usd and len(self._run.running) > 1:
                # It is not used up: others that are under way hold it. When they have ended there
                # will be more.
                self._run.queue.defer(attempt.row.agent, HELD_S)
                return self._back(attempt)
            return await self._unaffordable(attempt)
        return self._judged(attempt, error)

    def _judged(self, attempt: Attempt, error: Exception) -> Outcome:
        run = self._run
        row = attempt.row
        run.tally.lost += isinstance(error, InstanceFailed)
        decision = handle_execution_error(error, row.attempts + 1, run.settings, run.retries)
        spent = spent_so_far(row)
        spent.add(usage_of(attempt, error))
        row.spent = plain_spent(spent)
        if decision.action == "postpone":
            return self._again(row, decision)
        history = [*history_of(row), failure_of(error, row.attempts + 1, attempt.seat.backend.name)]
        row.attempts += 1
        row.history = plain_history(history)
        if decision.action == "retry":
            run.tally.retries += 1
            run.shop.ended["retries"] += 1
            self._tell_retry(row, history[-1].code)
            return self._again(row, decision)
        most = run.settings.retry.attempts
        if (
            run.settings.fallback_strategy == "retry"
            and row.attempts <= most
            and decision.action == "fail"
        ):
            row.attempts = most
            return self._again(row, decision)
        row.status = _STATUS[decision.action]
        result = failed_result(row, row.status, spent, history, attempt)
        self.consequences(result)
        return self.outcome(row, result)

    def _tell_retry(self, row: TaskRow, code: str) -> None:
        data = {
            "execution_id": self._run.execution.id,
            "task_id": row.id,
            "attempt": row.attempts,
            "error": code,
        }
        self._run.publish("batch.retry", data)

    def _again(self, row: TaskRow, decision: ErrorDecision) -> Outcome:
        row.status = "pending"
        row.starts = 0
        row.tries = row.tries + 1
        row.not_before_s = 0.0
        if decision.action == "postpone":
            self._run.queue.defer(
                row.agent, decision.wait_s
            )  # the others of its kind would be refused, too
        else:
            row.not_before_s = time.time() + decision.wait_s
        return self.outcome(row, again=True)

    def _back(self, attempt: Attempt) -> Outcome:
        """As if it had not been begun; what it has cost is not forgotten."""
        row = attempt.row
        spent = spent_so_far(row)
        spent.add(attempt.context.usage)
        row.status = "pending"
        row.starts = 0
        row.tries = row.tries + 1
        row.spent = plain_spent(spent)
        return self.outcome(row, again=True)

    async def _unaffordable(self, attempt: Attempt) -> Outcome | None:
        attempt.end()  # it is not stopped any more while the pause is written
        back = self._back(attempt)
        await self._run.pause("budget")
        return None if attempt.given_up else back

    def consequences(self, result: TaskResult) -> None:
        """End the execution when it is not to go on after a failure."""
        settings = self._run.settings
        run = self._run
        if result.status != "failed":
            return
        why = f"task {result.task_id}: {result.error.code if result.error else 'failed'}"
        if settings.fail_fast or not settings.continue_on_error:
            run.end("failed", why)

    def left(self, row: TaskRow) -> Outcome:
        """A task that was left running by a process that lost its journal.

        Again, under the same name.
        """
        row.status = "pending"
        row.starts = 1
        return self.outcome(row)

    async def lost(self, row: TaskRow, most: int) -> Outcome:
        """A task whose worker is gone, with its whole process.

        Again, or put aside when it has had enough of them.
        """
        run = self._run
        run.tally.lost += 1
        error = InstanceFailed("the process that ran the task has ended")
        history = [*history_of(row), failure_of(error, row.attempts + 1)]
        row.history = plain_history(history)
        row.status = "pending"
        if row.starts < most:
            return self.outcome(row)
        row.status = "poisoned"
        row.attempts = row.attempts + 1
        payload = {"execution_id": run.execution.id, "task": row.to_task().to_json()}
        owner = {"tenant": run.execution.tenant, "user": run.execution.user}
        letter = DeadLetter.of(QUEUE, payload, error, row.starts, **owner)
        await put_aside(run.shop.dead_letters, letter)
        data = {
            "letter_id": letter.id,
            "queue": QUEUE,
            "attempts": letter.attempts,
            "error": letter.error,
        }
        run.publish("dead_letter.added", data)
        result = failed_result(row, "poisoned", spent_so_far(row), history)
        return self.outcome(row, result)


def _exhausted(answer: AgentResult, account: Any) -> bool:
    """Whether a call with a session was paused because the batch's budget is gone."""
    if account is None:
        return False
    values = [getattr(each, "value", each) for each in answer.interrupts]
    return any(isinstance(v, dict) and v.get("account") == account.key for v in values)
