"""The layers of the onion, and the order in which they are built when nothing else is said."""

from agent_runtime.orchestration.middleware.base import CONTROL_FLOW, Middleware, compose
from agent_runtime.orchestration.middleware.cost import CostTrackingMiddleware, Spending
from agent_runtime.orchestration.middleware.logging import LoggingMiddleware
from agent_runtime.orchestration.middleware.retry import RetryMiddleware
from agent_runtime.orchestration.middleware.session import SessionMiddleware

DEFAULT_ORDER: tuple[str, ...] = (
    "logging",  # outermost: a call that another layer refuses is logged too
    "session",  # waiting for a session's turn holds nothing that the layers inside it take
    "cost",  # waiting for a turn or a slot holds no money; all attempts are charged to one call
    "retry",  # innermost: every attempt runs inside whatever the other layers hold for the call
)

__all__ = [
    "CONTROL_FLOW",
    "DEFAULT_ORDER",
    "CostTrackingMiddleware",
    "LoggingMiddleware",
    "Middleware",
    "RetryMiddleware",
    "SessionMiddleware",
    "Spending",
    "compose",
]
