"""Read the answers of providers: a message, or an unreadable one."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from langchain_core.messages import BaseMessage

from agent_runtime.errors import AgentRuntimeError, ProviderError
from agent_runtime.errors.user_code import error_text
from agent_runtime.providers.errors import (
    ANSWERED_STATUS,
    TRUNCATION_ERRORS,
    causes,
    class_names,
    status_of,
)

if TYPE_CHECKING:
    from langchain_core.outputs import ChatResult

    from agent_runtime.run.model_call import ModelCall


class HttpAnswer:
    """Whether an HTTP answer with a good status has come during one model call."""

    __slots__ = ("has_arrived",)

    def __init__(self) -> None:
        self.has_arrived = False


current_answer: ContextVar[HttpAnswer | None] = ContextVar(
    "agent_runtime_http_answer", default=None
)
"""The running model call's HTTP answer, noted by the transport; None outside of one."""

_UNRELATED_ERRORS = frozenset(
    {"GraphBubbleUp", "APIConnectionError", "TransportError", "TimeoutException"}
)
"""Errors that may end a call after its answer has started: a lost connection, the graph's own."""


def message_of_answer(result: ChatResult, call: ModelCall) -> tuple[BaseMessage, dict[str, Any]]:
    """Return the message of an answer and its metadata; raises ProviderError without a message."""
    metadata = dict(result.llm_output or {})
    if not result.generations:
        raise no_message(call, metadata)
    generation = result.generations[0]
    metadata.update(generation.generation_info or {})
    return generation.message, metadata


def no_message(call: ModelCall, metadata: dict[str, Any]) -> ProviderError:
    """Return the error of an answer without a message; its usage bounds the call's estimate."""
    call.note_usage(metadata.get("token_usage") or metadata.get("usage"))
    return ProviderError("the provider's answer has no message", status=ANSWERED_STATUS)


def empty_stream() -> ProviderError:
    """Make the error of a stream that ended without a chunk."""
    return ProviderError("the provider's answer is an empty stream", status=ANSWERED_STATUS)


def settle_failure(call: ModelCall, error: BaseException, *, has_answered: bool) -> NoReturn:
    """Settle a failed call and raise its error, as ProviderError for an unreadable answer."""
    if isinstance(error, ProviderError) and error.status == ANSWERED_STATUS:
        call.abort(error, is_answered=True)
        raise error
    if class_names(error) & TRUNCATION_ERRORS:
        call.note_usage(_usage_of(error))
        call.abort(error, is_answered=True)
        raise error
    if _is_unreadable(error, has_answered=has_answered):
        call.abort(error, is_answered=True)
        summary = (
            f"the provider's answer cannot be read: {type(error).__name__}: {error_text(error)}"
        )
        raise ProviderError(summary[:500], status=ANSWERED_STATUS) from error
    call.abort(error)
    raise error


def _usage_of(error: BaseException) -> Any:
    """Return the raw figures of the answer that an error carries, or None."""
    usage = getattr(getattr(error, "completion", None), "usage", None)
    return None if usage is None else usage.model_dump()


def _is_unreadable(error: BaseException, *, has_answered: bool) -> bool:
    """Tell whether an exception is about an answer that came.

    HTML, null, no choices, an error object in a 200.
    """
    if not isinstance(error, Exception) or isinstance(error, AgentRuntimeError):
        return False
    if any("AnswerTooLarge" in class_names(cause) for cause in causes(error)):
        return True
    names = class_names(error)
    status = status_of(error)
    # httpx-sse's error of an answer that is no stream is a TransportError.
    is_about_the_answer = "SSEError" in names or not names & _UNRELATED_ERRORS
    return has_answered and (status is None or status < 400) and is_about_the_answer
