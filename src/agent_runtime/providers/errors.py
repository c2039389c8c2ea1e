"""Read a provider's exception of any SDK: its HTTP status, codes, and Retry-After."""

from __future__ import annotations

import contextlib
import email.utils
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from agent_runtime.errors.user_code import error_text

SERVER_ERRORS = frozenset({408, 409, 425, 500, 502, 503, 504, 529})
OVERLOADED = frozenset({429, 500, 502, 503, 504, 529})
"""Answers after which fewer calls should be in flight."""


MAX_CAUSES = 8
"""LangChain, an SDK, httpx, httpcore, anyio and the operating system make six."""


ANSWERED_STATUS = 200
"""The HTTP status of an answer that came and cannot be read."""


TRUNCATION_ERRORS = frozenset({"LengthFinishReasonError", "ContentFilterFinishReasonError"})
"""Errors of the openai package for a truncated structured answer, which is billed and not retried.
"""
_AMAZON_CODES = {
    "internalserver": 500,
    "modeltimeout": 408,
    "serviceunavailable": 503,
    "throttling": 429,
    "validation": 400,
}
"""Errors of Bedrock by name: docs.aws.amazon.com, API reference of ConverseStream."""


def class_names(error: BaseException) -> set[str]:
    """Return the names of an exception's classes, since the optional SDKs are not imported here."""
    return {cls.__name__ for cls in type(error).__mro__}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes."""
    # Provider packages wrap their SDK's errors: follow the causes, up to a bound.
    current: BaseException | None = error
    for _ in range(5):
        if current is None:
            return
        yield current
        current = current.__cause__


def connection_failure_text(error: BaseException) -> str | None:
    """Return the reason of a failed connection by the operating system or TLS.

    The SDKs only say "Connection error.".
    """
    current: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if current is None or isinstance(
            current, OSError
        ):  # so are ssl.SSLError, and a name that is not known
            break
        current = current.__cause__ or current.__context__  # httpcore leaves its cause out
    if not isinstance(current, OSError):
        return None
    while isinstance(
        current.__cause__, OSError
    ):  # its context may be an error that the application was handling
        current = current.__cause__
    text = error_text(current)
    return text if text and text not in str(error) else None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of a provider's answer, None when there was no answer."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        status = getattr(cause, "status_code", None) or getattr(response, "status_code", None)
        if isinstance(response, Mapping):
            status = _amazon_status(response)
        if isinstance(status, int):
            return status
    return None


def headers_of(error: BaseException) -> Mapping[str, str]:
    """Return the headers of the provider's answer; empty without an answer."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        headers = getattr(response, "headers", None) or getattr(cause, "headers", None)
        if isinstance(response, Mapping):
            headers = (response.get("ResponseMetadata") or {}).get("HTTPHeaders")
        if headers is not None and hasattr(headers, "get"):
            return cast("Mapping[str, str]", headers)
    return {}


def _amazon_status(response: Mapping[str, Any]) -> int | None:
    """Return the status in a botocore error.

    Inside a stream it is the name of the error that tells.
    """
    status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    code = str((response.get("Error") or {}).get("Code", ""))
    return _AMAZON_CODES.get(code.removesuffix("Exception").lower(), status)


def retry_after_s(error: BaseException) -> float | None:
    """Return the seconds until a retry that the provider requests, or None.

    `Retry-After` (RFC 9110 10.2.3: seconds or a date), or `retry-after-ms`, of OpenAI and Azure.
    """
    headers = headers_of(error)
    with contextlib.suppress(ValueError, TypeError):
        return _finite(float(headers.get("retry-after-ms", "")) / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return _finite(float(value))
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _finite(seconds: float) -> float | None:
    return max(0.0, seconds) if seconds - seconds == 0 else None


def is_overloaded(error: BaseException, codes: Collection[int | str]) -> bool:
    """Return whether a provider is overloaded, by its status or a vendor's own code."""
    if status_of(error) in OVERLOADED:
        return True
    overload_codes = {str(code) for code in codes}
    return bool(overload_codes) and any(
        str(error_code) in overload_codes for cause in causes(error) for error_code in _codes(cause)
    )


def _codes(error: BaseException) -> Iterator[Any]:
    # LangChain raises a ValueError with the error object of an answer with status 200.
    for payload in (getattr(error, "code", None), getattr(error, "body", None), *error.args[:1]):
        if isinstance(payload, Mapping):
            inner = payload.get("error")
            yield from (
                payload.get("code"),
                inner.get("code") if isinstance(inner, Mapping) else None,
            )
        elif isinstance(payload, str | int):
            yield payload
