"""Define the layers of the pipeline, and their default order."""

from agent_runtime.budgets.spending_policy import SpendingPolicy
from agent_runtime.orchestration.middleware.auth import AuthMiddleware
from agent_runtime.orchestration.middleware.base import (
    CONTROL_FLOW,
    LayerObserver,
    Middleware,
    compose,
)
from agent_runtime.orchestration.middleware.concurrency import ConcurrencyMiddleware
from agent_runtime.orchestration.middleware.cost import CostTrackingMiddleware
from agent_runtime.orchestration.middleware.logging import LoggingMiddleware
from agent_runtime.orchestration.middleware.rate_limit import RateLimitMiddleware
from agent_runtime.orchestration.middleware.retry import RetryMiddleware
from agent_runtime.orchestration.middleware.session import SessionMiddleware

DEFAULT_ORDER: tuple[str, ...] = (
    "logging",  # outermost: a call that another layer refuses is logged too
    "auth",  # the caller is authenticated before anything else is done
    "rate_limit",  # a call too many is refused before it waits for anything
    "session",  # waiting for a session's turn holds nothing that the layers inside it take
    "concurrency",  # a call that waits for its turn holds no slot
    "cost",  # waiting for a turn or a slot holds no money; all attempts are charged to one call
    "retry",  # innermost: every attempt runs inside the other layers' reservations
)

__all__ = [
    "CONTROL_FLOW",
    "DEFAULT_ORDER",
    "AuthMiddleware",
    "ConcurrencyMiddleware",
    "CostTrackingMiddleware",
    "LayerObserver",
    "LoggingMiddleware",
    "Middleware",
    "RateLimitMiddleware",
    "RetryMiddleware",
    "SessionMiddleware",
    "SpendingPolicy",
    "compose",
]
