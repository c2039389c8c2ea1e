"""Classify exceptions from inside an agent, independent of the provider's SDK."""

from __future__ import annotations

from agent_runtime.errors import (
    AgentFailed,
    AgentRuntimeError,
    CallError,
    CallTimeout,
    InstanceFailed,
    ProviderError,
)
from agent_runtime.errors.user_code import error_text
from agent_runtime.providers.errors import (
    ANSWERED_STATUS,
    SERVER_ERRORS,
    TRUNCATION_ERRORS,
    causes,
    class_names,
    connection_failure_text,
    retry_after_s,
    status_of,
)

RETRY_CLASSES = ("rate_limit", "server_error", "connection", "timeout", "worker")

# Names, because the SDKs (openai, anthropic, httpx, botocore) are optional and not imported here.
_CONNECTION_ERRORS = frozenset({
    "APIConnectionError", "TransportError", "ConnectError", "ClientConnectionError",
    "HTTPClientError",
    "EndpointConnectionError",
})  # fmt: skip
_PERMANENT_FAILURES = TRUNCATION_ERRORS | {"AnswerTooLarge"}
_TIMEOUT_ERRORS = frozenset(
    {"APITimeoutError", "TimeoutException", "ConnectTimeoutError", "ReadTimeoutError"}
)


def failure_class(error: BaseException) -> str | None:
    """Classify a retryable failure; None for a permanent one."""
    if isinstance(error, InstanceFailed):
        return "worker"
    if isinstance(error, ProviderError) and error.status == ANSWERED_STATUS:
        is_final = any(class_names(cause) & _PERMANENT_FAILURES for cause in causes(error))
        return None if is_final else "server_error"  # a gateway's page comes once
    if isinstance(error, CallTimeout):
        return None if error.scope == "run" else "timeout"
    if isinstance(error, AgentRuntimeError) and not isinstance(error, AgentFailed):
        return None
    status = status_of(error)
    if status is not None:
        return (
            "rate_limit" if status == 429 else "server_error" if status in SERVER_ERRORS else None
        )
    for cause in causes(error):
        names = class_names(cause)
        if names & _TIMEOUT_ERRORS or isinstance(cause, TimeoutError):
            return "timeout"
        if names & _CONNECTION_ERRORS or isinstance(cause, ConnectionError):
            return "connection"
    return None


def as_call_error(error: Exception, model_error: BaseException | None) -> CallError:
    """Return the typed error for an agent's exception, which becomes its cause.

    It is a ProviderError only when a model call raised it (`model_error`): a tool's own connection
    may fail too.
    """
    if isinstance(error, CallError):
        return error
    status = status_of(error)
    kind = failure_class(error)
    summary = f"{type(error).__name__}: {error_text(error)}"
    failed: CallError
    from_model = model_error is not None and any(e is model_error for e in causes(error))
    if from_model and (status is not None or kind in ("connection", "timeout")):
        if status is None and (reason := connection_failure_text(error)) is not None:
            summary += f" ({reason})"
        failed = ProviderError(summary, status=status, retry_after_s=retry_after_s(error))
    else:
        failed = AgentFailed(summary)
    failed.__cause__ = error
    return failed
