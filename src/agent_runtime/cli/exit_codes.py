"""Exit codes of the command line, by the error that a command ended with."""

from __future__ import annotations

from agent_runtime.errors import (
    AgentRuntimeError,
    ApprovalRequired,
    BudgetExceeded,
    BudgetUnavailable,
    CallTimeout,
    ConfigurationError,
    ExecutionBusy,
    ExecutionNotFound,
    Forbidden,
    InputInvalid,
    KeyNotFound,
    LimitExceeded,
    NotRecorded,
    PriceUnknown,
    RateLimited,
    SessionGone,
    SessionNotFound,
    Unauthenticated,
    UnknownComponent,
)

EXPECTED = (AgentRuntimeError, OSError, KeyboardInterrupt)
"""Errors that a command reports by their message alone; any other one is a bug of this program."""


def exit_code(error: BaseException) -> int:
    """Return the documented exit code of a failure; 1 for all that is not listed."""
    if isinstance(error, UnknownComponent) and error.kind == "template":
        return 4
    table: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...] = (
        (InputInvalid, 2),
        (ConfigurationError, 3),
        ((SessionNotFound, SessionGone, KeyNotFound, NotRecorded, ExecutionNotFound), 4),
        (FileNotFoundError, 4),
        (CallTimeout, 5),
        ((LimitExceeded, BudgetExceeded, BudgetUnavailable, PriceUnknown, RateLimited), 6),
        ((Unauthenticated, Forbidden, ExecutionBusy), 6),
        (ApprovalRequired, 7),
        (KeyboardInterrupt, 130),
    )
    return next((code for kind, code in table if isinstance(error, kind)), 1)
