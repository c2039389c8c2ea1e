"""The layer protocol and the one function that folds layers around a core."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from langgraph.errors import GraphBubbleUp

from agent_runtime.errors import ConfigurationError
from agent_runtime.types import AgentContext, AgentResult, Handler

CONTROL_FLOW = (GraphBubbleUp,)
"""Exceptions that steer the graph (interrupt, parent command, drain): no layer treats them as a failure."""


class Middleware(ABC):
    """A layer around one whole agent call, unary or streamed.

    `process` awaits `next_call(context)` for the rest of the onion and returns its result. A layer that looks
    at chunks passes on `context.with_emit(...)`; one that answers by itself emits its answer and returns it;
    one that refuses raises. Cancellation arrives as `CancelledError` at the `await`: use `try/finally` and
    never swallow it. One instance serves many calls at once: keep per-call state in local variables.
    """

    @abstractmethod
    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Handle one call; raise to refuse it."""


def compose(layers: Sequence[Middleware], core: Handler) -> Handler:
    """Wrap `core` in `layers`; the first is the outermost. Done once, when the executor is built.

    Raises ConfigurationError for anything that is not a `Middleware`: a layer is never skipped with a warning.
    """
    handler = core
    for layer in reversed(layers):
        if not isinstance(layer, Middleware):
            raise ConfigurationError(f"a layer must be an instance of agent_runtime.Middleware, not {layer!r}")
        handler = _bind(layer, handler)
    return handler


def _bind(layer: Middleware, inner: Handler) -> Handler:
    process = layer.process
    return lambda context: process(context, inner)  # by position: a layer may name its parameters as it likes
