"""Replace a failing store of limits by a local one, visibly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agent_runtime.errors import ConfigurationError, StoreError
from agent_runtime.event_bus import Event

if TYPE_CHECKING:
    from agent_runtime.event_bus import EventBus

LOG = logging.getLogger("agent_runtime.limits")
LOG.addHandler(logging.NullHandler())
Store = TypeVar("Store")

ANSWER_TIMEOUT_S = 1.0
"""A store that takes longer to answer is out: callers wait no longer for a limiter."""
RETRY_INTERVAL_S = 2.0


class FallbackStore(Generic[Store]):
    """Hold a shared store, and a local one for the time of its failure.

    While it fails, one call in two seconds tries it; the others do not wait for it.
    """

    def __init__(
        self, store: Store, local_store: Store, processes: int, bus: EventBus | None, name: str
    ) -> None:
        if processes < 1:
            raise ConfigurationError(f"at least 1 process shares the limits, not {processes}")
        self.store = store
        self.local = local_store
        self._processes = processes
        self._bus = bus
        self._name = name
        self.degraded = False
        self._retry_at = 0.0
        self._in_process = type(store) is type(local_store)  # nothing to fall back from

    async def call(
        self,
        operation: Callable[[Any, int], Awaitable[Any]],
        undo: Callable[[Any], Awaitable[Any]] | None = None,
    ) -> Any:
        """Return the answer of the store, or of the local one while it fails.

        `operation(store, share)` gets one in `share` of the limits. `undo(store)` reverts any
        effect of a store without a timely answer.
        """
        if self._in_process:
            return await operation(self.store, 1)
        if self.degraded and time.monotonic() < self._retry_at:
            return await operation(self.local, self._processes)
        self._retry_at = time.monotonic() + RETRY_INTERVAL_S
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await operation(self.store, 1)
        except (StoreError, TimeoutError) as error:
            self._set_degraded(True, f"{type(error).__name__}: {error}")
            if undo is not None:
                await undo(self.store)
            return await operation(self.local, self._processes)
        self._set_degraded(False, "")
        return answer

    def _set_degraded(self, degraded: bool, reason: str) -> None:
        if degraded == self.degraded:
            return
        self.degraded = degraded
        if degraded:
            LOG.warning(
                "the store of %s is out, this process limits by itself: %s", self._name, reason
            )
        else:
            LOG.warning("the store of %s is back", self._name)
        if self._bus is not None:
            kind = "limits.fallback" if degraded else "limits.restored"
            self._bus.publish(Event(kind, {"layer": self._name, "processes": self._processes}))
