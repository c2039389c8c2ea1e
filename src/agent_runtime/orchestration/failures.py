"""What kind of failure an exception from inside an agent is, whichever provider's SDK raised it."""

from __future__ import annotations

import contextlib
import email.utils
import time
from collections.abc import Iterator

from agent_runtime.errors import AgentFailed, AgentRuntimeError, CallError, CallTimeout, ProviderError

RETRY_CLASSES = ("rate_limit", "server_error", "connection", "timeout")

_SERVER_ERRORS = frozenset({408, 409, 425, 500, 502, 503, 504, 529})
# Names, because the SDKs (openai, anthropic, httpx) are optional and none is imported here.
_CONNECTION_ERRORS = frozenset({"APIConnectionError", "TransportError", "ConnectError", "ClientConnectionError"})
_TIMEOUT_ERRORS = frozenset({"APITimeoutError", "TimeoutException"})


def _chain(error: BaseException) -> Iterator[BaseException]:
    # Provider packages wrap their SDK's errors: look down the causes, but not for ever.
    current: BaseException | None = error
    for _ in range(5):
        if current is None:
            return
        yield current
        current = current.__cause__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a provider answered with, or None when the failure was not an answer."""
    for each in _chain(error):
        status = getattr(each, "status_code", None) or getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def retry_after_s(error: BaseException) -> float | None:
    """Seconds that the provider asked to wait (`Retry-After`, RFC 9110 10.2.3: seconds or a date), or None."""
    for each in _chain(error):
        headers = getattr(getattr(each, "response", None), "headers", None)
        value = headers.get("retry-after") if headers is not None else None
        if value is None:
            continue
        with contextlib.suppress(ValueError):
            return max(0.0, float(value))
        with contextlib.suppress(ValueError):
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def failure_class(error: BaseException) -> str | None:
    """`rate_limit`, `server_error`, `connection`, `timeout`, or None for a failure that would come again."""
    if isinstance(error, CallTimeout):
        return None if error.scope == "run" else "timeout"
    if isinstance(error, AgentRuntimeError) and not isinstance(error, AgentFailed):
        return None
    status = status_of(error)
    if status is not None:
        return "rate_limit" if status == 429 else "server_error" if status in _SERVER_ERRORS else None
    for each in _chain(error):
        names = {cls.__name__ for cls in type(each).__mro__}
        if names & _TIMEOUT_ERRORS or isinstance(each, TimeoutError):
            return "timeout"
        if names & _CONNECTION_ERRORS or isinstance(each, ConnectionError):
            return "connection"
    return None


def as_call_error(error: Exception, model_error: BaseException | None) -> CallError:
    """The typed error for what an agent raised: itself when it is one, else one whose `__cause__` it becomes.

    It is a ProviderError only when a model call raised it (`model_error`): a tool's own connection may fail too.
    """
    if isinstance(error, CallError):
        return error
    status, kind = status_of(error), failure_class(error)
    summary = f"{type(error).__name__}: {error}"
    failed: CallError
    from_model = model_error is not None and any(e is model_error for e in _chain(error))
    if from_model and (status is not None or kind in ("connection", "timeout")):
        failed = ProviderError(summary, status=status, retry_after_s=retry_after_s(error))
    else:
        failed = AgentFailed(summary)
    failed.__cause__ = error
    return failed
