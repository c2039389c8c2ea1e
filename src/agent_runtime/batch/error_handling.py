"""Decide how a batch reacts to a failed task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent_runtime.batch.settings import BatchSettings, RetrySettings
from agent_runtime.errors import AgentRuntimeError, PoolOverloaded, RateLimited, TaskPoisoned
from agent_runtime.errors.backoff import Backoff
from agent_runtime.orchestration.failures import failure_class
from agent_runtime.providers.errors import retry_after_s

FREE_RETRIES = 10
"""Retries that every batch has: a share of a small batch would round to zero."""
MAX_PROVIDER_WAIT_S = 600.0
"""For a provider; a limit of ours is waited for up to a day."""
MAX_POSTPONE_S = 86400.0


@dataclass(frozen=True, slots=True)
class ErrorDecision:
    """Describe how to react to an error of the class `kind`.

    `retry` after `wait_s` seconds, `postpone` (the task was refused before it ran: not an attempt),
    or end the task as `fail`, `skip` or `poison`.
    """

    action: Literal["retry", "postpone", "fail", "skip", "poison"]
    kind: str
    wait_s: float = 0.0


class RetryBudget:
    """Limit the retries of a batch: when a provider is down, retries only add load.

    The limit is `share` of its tasks (https://sre.google/sre-book/handling-overload/, "per-client
    retry budget"), and ten.
    """

    def __init__(self, share: float, tasks: int = 0, used: int = 0) -> None:
        self.share = share
        self.tasks = tasks
        self.used = used

    def take(self) -> bool:
        """Take one retry; return False when none is left."""
        if self.used >= FREE_RETRIES + self.share * self.tasks:
            return False
        self.used += 1
        return True


def error_kind(error: BaseException) -> str:
    """Return the class an error is counted under: a failure class (`timeout`, ...), or its code."""
    if isinstance(error, TaskPoisoned):
        return "worker"
    if isinstance(error, RateLimited):
        return "rate_limit"
    code = error.code if isinstance(error, AgentRuntimeError) else "internal"
    # A time limit of the run is final within its call; a task's next attempt is another call.
    return failure_class(error) or code


def handle_execution_error(
    error: BaseException, attempt: int, settings: BatchSettings, budget: RetryBudget | None = None
) -> ErrorDecision:
    """Decide how to react to the error of a task's attempt number `attempt` (from 1).

    A refusal with a time to retry at (a rate limit, a full pool) is not an attempt. Transient
    failures are retried as `settings.retry` says, with exponential backoff and full jitter, or
    after the provider's Retry-After. Everything else, and the last attempt, ends the task by
    `settings.fallback_strategy`.
    """
    kind = error_kind(error)
    if isinstance(error, TaskPoisoned):
        return ErrorDecision("poison", kind)
    if isinstance(error, RateLimited | PoolOverloaded) and error.retry_after_s <= MAX_POSTPONE_S:
        return ErrorDecision("postpone", kind, max(0.05, error.retry_after_s))
    retry = settings.retry
    if kind in retry.classes and attempt < retry.attempts:
        wait_s = _backoff_s(error, attempt, retry)
        if wait_s is not None and (budget is None or budget.take()):
            return ErrorDecision("retry", kind, wait_s)
    return ErrorDecision("skip" if settings.fallback_strategy == "skip" else "fail", kind)


def _backoff_s(error: BaseException, attempt: int, retry: RetrySettings) -> float | None:
    requested_wait_s = retry_after_s(error) or getattr(error, "retry_after_s", None)
    if requested_wait_s:
        return float(requested_wait_s) if requested_wait_s <= MAX_PROVIDER_WAIT_S else None
    return Backoff(retry.initial_delay, retry.max_delay, jitter=1.0).pause_s(attempt)
