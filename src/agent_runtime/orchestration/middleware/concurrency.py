"""How many calls run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_runtime.errors import ConfigurationError, RateLimited, StoreError
from agent_runtime.limits.concurrency import ConcurrencyLimit, MemorySlots, Slot, Slots, slots_of
from agent_runtime.limits.rate_limits import KeysOf
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.orchestration.middleware.fallback import Fallback
from agent_runtime.run.state import counted_around
from agent_runtime.types import new_run_id

if TYPE_CHECKING:
    from agent_runtime.event_bus import EventBus
    from agent_runtime.types import AgentContext, AgentResult, Handler

FIRST_LOOK_S = 0.02
LAST_LOOK_S = 0.5
"""How often a waiting call looks for a slot.

It looks at once when one is given back in this process.
"""
RETRY_AFTER_S = 1.0
"""What a refused caller is told: when a running call ends is not known."""


class ConcurrencyMiddleware(Middleware):
    """Refuses a call, or lets it wait, when too many run at once.

    A call takes a slot of each limit or, if one has none left, of none. An agent that another one
    calls runs in the outer call's slots. When the store is out, this process counts its own, as
    with RateLimitMiddleware.

    Args:
        limits: any number.
        slots: where they are counted; in memory by default.
        wait_s: how long a call may wait for a slot; 0 refuses at once.
        processes, bus: as RateLimitMiddleware's.

    Its `process` raises RateLimited. Cancelling a waiting call takes nothing; a running one gives
    its slots back.
    """

    waits = True

    def __init__(
        self,
        limits: Sequence[ConcurrencyLimit],
        slots: Slots | None = None,
        *,
        wait_s: float = 0.0,
        processes: int = 1,
        bus: EventBus | None = None,
    ) -> None:
        if not 0 <= wait_s < float("inf"):
            raise ConfigurationError(f"wait_s is at least 0, not {wait_s}")
        self.limits = tuple(limits)
        self._wait_s = wait_s
        self._keys = KeysOf(self.limits, slots_of)
        store: Slots = slots or MemorySlots()
        self._fallback: Fallback[Slots] = Fallback(
            store, MemorySlots(), processes, bus, "concurrency"
        )
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def degraded(self) -> bool:
        """Whether the store is out, and this process counts its own."""
        return self._fallback.degraded

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call in its slots."""
        slots = self._keys.of(context, counted_around())
        holder = new_run_id()  # not the call's own id, which a caller may choose and use for many
        if not slots:
            return await next_call(context)
        try:
            store, taken = await self._acquired(slots, holder)
        except asyncio.CancelledError:
            if (
                self._fallback.store.lease_s is not None
            ):  # it may have taken them before it could say so
                await self._give_back(self._fallback.store, slots, holder)
            raise
        context.progress.counted = context.progress.counted.union([slot.key for slot in taken])
        renewing: asyncio.Task[None] | None = None
        if store.lease_s is not None:
            renewing = asyncio.create_task(_renew(store, taken, holder, store.lease_s))
        try:
            return await next_call(context)
        finally:
            if renewing is not None:
                renewing.cancel()
            await self._give_back(store, taken, holder)

    async def _give_back(self, store: Slots, slots: Sequence[Slot], holder: str) -> None:
        await store.release(slots, holder)
        for waiter in list(self._waiting):
            waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    async def _acquired(self, slots: Sequence[Slot], holder: str) -> tuple[Slots, Sequence[Slot]]:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        look_s = FIRST_LOOK_S
        while True:
            store, taken, full = await self._fallback.asked(
                lambda store, share: _take(store, slots, holder, share),
                lambda store: store.release(slots, holder),
            )
            if full is None:
                return store, taken
            left_s = until - loop.time()
            if left_s <= 0:
                raise RateLimited(full.limit, RETRY_AFTER_S)
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=min(look_s, left_s))
            finally:
                self._waiting.discard(waiter)
            look_s = min(look_s * 2, LAST_LOOK_S)


async def _take(
    store: Slots, slots: Sequence[Slot], holder: str, share: int
) -> tuple[Slots, Sequence[Slot], Slot | None]:
    mine = (
        slots
        if share == 1
        else [slot._replace(amount=max(1, slot.amount // share)) for slot in slots]
    )
    return store, mine, await store.acquire(mine, holder)


async def _renew(store: Slots, slots: Sequence[Slot], holder: str, lease_s: float) -> None:
    while True:
        await asyncio.sleep(lease_s / 3)
        with suppress(StoreError):
            await store.renew(slots, holder)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
