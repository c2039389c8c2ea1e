"""The layer protocol and the one function that folds layers around a core."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from langgraph.errors import GraphBubbleUp

from agent_runtime.errors import ConfigurationError
from agent_runtime.types import AgentContext, AgentResult, Handler

CONTROL_FLOW = (GraphBubbleUp,)
"""Exceptions that steer the graph (interrupt, parent command, drain).

No layer treats them as a failure.
"""


class Middleware(ABC):
    """Wrap a whole agent call, unary or streamed.

    `process` awaits `next_call(context)` for the inner layers and returns its result. A layer that
    observes chunks passes on `context.with_emit(...)`; one that answers by itself emits its answer
    and returns it; one that refuses raises. Cancellation arrives as `CancelledError` at the
    `await`: use `try/finally` and never swallow it. One instance serves many calls at once: keep
    per-call state in local variables.
    """

    name: str = ""
    """The layer's name in metrics, by default its class's name, in the spelling of templates."""

    waits: bool = False
    """Whether calls may wait in the layer: their number is then a metric, its queue."""

    @abstractmethod
    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Handle one call; raise to refuse it."""


class LayerObserver(Protocol):
    """Observe a call's way through the layers."""

    def entered(self, layer: str) -> None:
        """Count a call that has entered this layer, and not the next one."""

    def left(self, layer: str) -> None:
        """Count a call that has entered the next layer, or left this one."""

    def on_duration(self, layer: str, seconds: float) -> None:
        """Record the time of the layer itself, before and after the inner layers."""


def compose(
    layers: Sequence[Middleware], core: Handler, observer: LayerObserver | None = None
) -> Handler:
    """Wrap `core` in `layers`; the first is the outermost. Done once, when the executor is built.

    Raises ConfigurationError for anything that is not a `Middleware`: a layer is never skipped with
    a warning.
    """
    handler = core
    for layer in reversed(layers):
        if not isinstance(layer, Middleware):
            raise ConfigurationError(
                f"a layer must be an instance of agent_runtime.Middleware, not {layer!r}"
            )
        handler = (
            _bind(layer, handler) if observer is None else _instrumented(layer, handler, observer)
        )
    return handler


def layer_name(layer: Middleware) -> str:
    """Return a layer's name in metrics."""
    name = type(layer).__name__.removesuffix("Middleware")
    return layer.name or "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _bind(layer: Middleware, inner: Handler) -> Handler:
    process = layer.process
    return lambda context: process(
        context, inner
    )  # by position: a layer may name its parameters as it likes


def _instrumented(layer: Middleware, inner: Handler, observer: LayerObserver) -> Handler:
    process = layer.process
    name = layer_name(layer)
    now = time.perf_counter
    on_enter = observer.entered
    on_leave = observer.left
    on_duration = observer.on_duration
    counts_waiting = layer.waits

    async def handle(context: AgentContext) -> AgentResult:
        inside_s = 0.0
        is_waiting = counts_waiting

        async def next_call(context: AgentContext) -> AgentResult:
            nonlocal inside_s, is_waiting
            if is_waiting:  # a retrying layer enters the next one again, without waiting in between
                is_waiting = False
                on_leave(name)
            began = now()
            try:
                return await inner(context)
            finally:
                inside_s += now() - began

        started = now()
        if counts_waiting:
            on_enter(name)
        try:
            return await process(context, next_call)
        finally:
            if is_waiting:
                on_leave(name)
            on_duration(name, now() - started - inside_s)

    return handle
