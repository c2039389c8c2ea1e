"""Retry failed calls, only where that can repeat neither an effect nor text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection

from agent_runtime.chunks import Chunk
from agent_runtime.errors import ConfigurationError
from agent_runtime.errors.backoff import Backoff
from agent_runtime.event_bus import EventBus
from agent_runtime.monitoring.callback_event import call_event
from agent_runtime.orchestration.failures import RETRY_CLASSES, failure_class
from agent_runtime.orchestration.middleware.base import CONTROL_FLOW, Middleware
from agent_runtime.providers.errors import retry_after_s
from agent_runtime.types import AgentContext, AgentResult, Handler


class RetryMiddleware(Middleware):
    """Retry a call after a transient failure.

    It restarts only while no chunk has reached a reader and no tool has started. After that the run
    continues from its checkpoint (no finished tool runs twice), or, without one, fails. A wait ends
    early when the call is cancelled; one beyond the call's deadline is not started.

    Args:
        attempts: the most attempts at a call; `context.attempts` overrides it for one call.
        retry_on: failure classes: `rate_limit` (429), `server_error` (5xx and 408/409/425),
            `connection`, `timeout` (idle and model_call), `worker` (the agent's process ended), or
            `transient` for all of them.
        backoff_s: upper bound of the first wait in seconds; it doubles each time, and the wait is a
            random part of it (full jitter), unless the provider sends a Retry-After.
        max_backoff_s: the longest wait; a provider that asks for more is not retried.

    Raises ConfigurationError for invalid values.
    """

    def __init__(
        self,
        attempts: int = 2,
        retry_on: Collection[str] = ("transient",),
        backoff_s: float = 0.5,
        max_backoff_s: float = 30.0,
        *,
        bus: EventBus | None = None,
    ) -> None:
        if attempts < 1:
            raise ConfigurationError(f"retry attempts must be at least 1, not {attempts}")
        if unknown := set(retry_on) - {"transient", *RETRY_CLASSES}:
            raise ConfigurationError(
                f"unknown retry_on {sorted(unknown)}; known: transient, {', '.join(RETRY_CLASSES)}"
            )
        self._attempts = attempts
        self._backoff = Backoff(backoff_s, max_backoff_s, jitter=1.0)
        self._bus = bus
        self._retryable_classes = (
            frozenset(RETRY_CLASSES) if "transient" in retry_on else frozenset(retry_on)
        )

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call, retrying transient failures; raises the last failure."""
        attempts = context.attempts or self._attempts
        for attempt in range(1, attempts):
            # No chunk of a unary call reaches a reader, so there is nothing to watch.
            emit_watcher = _EmitWatcher(context) if context.streaming else None
            try:
                return await next_call(context if emit_watcher is None else emit_watcher.context)
            except CONTROL_FLOW:
                raise
            except Exception as error:
                wait_s = self._wait_s(error, attempt)
                retry_context = (
                    None
                    if wait_s is None
                    else self._retry_context(
                        context, has_emitted=emit_watcher is not None and emit_watcher.has_emitted
                    )
                )
                if (
                    wait_s is None
                    or retry_context is None
                    or self._exceeds_deadline(context, wait_s)
                ):
                    raise
                context = retry_context
                self._publish_retry(context, attempt + 1, error)
            await asyncio.sleep(wait_s)
        return await next_call(context)

    def _publish_retry(self, context: AgentContext, attempt: int, error: Exception) -> None:
        if self._bus is not None:
            self._bus.publish(
                call_event(
                    "retry.again", context, {"attempt": attempt, "error": type(error).__name__}
                )
            )

    def _wait_s(self, error: Exception, attempt: int) -> float | None:
        if failure_class(error) not in self._retryable_classes:
            return None
        provider_wait_s = retry_after_s(error)
        if provider_wait_s is not None:
            return provider_wait_s if provider_wait_s <= self._backoff.max_s else None
        return self._backoff.pause_s(attempt)

    @staticmethod
    def _retry_context(context: AgentContext, *, has_emitted: bool) -> AgentContext | None:
        progress = context.progress
        if progress.resumable:
            # Also before the first tool: the input is in the checkpoint already and must not be
            # added twice.
            return None if context.streaming and progress.message_open else context.with_input(None)
        if progress.tools_started or has_emitted:
            return None
        return context

    @staticmethod
    def _exceeds_deadline(context: AgentContext, wait_s: float) -> bool:
        return (
            context.deadline is not None
            and asyncio.get_running_loop().time() + wait_s >= context.deadline
        )


class _EmitWatcher:
    """An `emit` that remembers whether a chunk has gone out."""

    __slots__ = ("_emit", "context", "has_emitted")

    def __init__(self, context: AgentContext) -> None:
        self._emit = context.emit
        self.has_emitted = False
        self.context = context.with_emit(self)

    def __call__(
        self, chunk: Chunk
    ) -> Awaitable[None]:  # no coroutine of its own, which would cost for each token
        self.has_emitted = True
        self.context.emit = self._emit  # one chunk is enough: the next ones bypass this watcher
        return self._emit(chunk)
