"""Limits whose store is out: a local one takes over, visibly."""

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

ANSWER_WITHIN_S = 1.0
"""A store that takes longer to answer is out: callers wait no longer for a limiter."""
ASK_AGAIN_S = 2.0


class Fallback(Generic[Store]):
    """A store that is shared, and a local one for the time that it is out.

    While it is out one call in two seconds asks it again; the others do not wait for it.
    """

    def __init__(
        self, store: Store, local: Store, processes: int, bus: EventBus | None, name: str
    ) -> None:
        if processes < 1:
            raise ConfigurationError(f"at least 1 process shares the limits, not {processes}")
        self.store = store
        self.local = local
        self._processes = processes
        self._bus = bus
        self._name = name
        self.degraded = False
        self._ask_at = 0.0
        self._in_process = type(store) is type(local)  # nothing to fall back from

    async def asked(
        self,
        ask: Callable[[Any, int], Awaitable[Any]],
        undo: Callable[[Any], Awaitable[Any]] | None = None,
    ) -> Any:
        """The answer of the store, or of the local one when it is out. `ask(store, share)`.

        One in `share` is ours.

        `undo(store)` takes back what a store that did not answer in time may have done.
        """
        if self._in_process:
            return await ask(self.store, 1)
        if self.degraded and time.monotonic() < self._ask_at:
            return await ask(self.local, self._processes)
        self._ask_at = time.monotonic() + ASK_AGAIN_S
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await ask(self.store, 1)
        except (StoreError, TimeoutError) as error:
            self._turned(True, f"{type(error).__name__}: {error}")
            if undo is not None:
                await undo(self.store)
            return await ask(self.local, self._processes)
        self._turned(False, "")
        return answer

    def _turned(self, degraded: bool, why: str) -> None:
        if degraded == self.degraded:
            return
        self.degraded = degraded
        if degraded:
            LOG.warning(
                "the store of %s is out, this process limits by itself: %s", self._name, why
            )
        else:
            LOG.warning("the store of %s is back", self._name)
        if self._bus is not None:
            kind = "limits.fallback" if degraded else "limits.restored"
            self._bus.publish(Event(kind, {"layer": self._name, "processes": self._processes}))
