"""How many calls run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_runtime.errors import ConfigurationError, RateLimited, StoreError
from agent_runtime.limits.concurrency import (
    ConcurrencyLimit,
    ConcurrencyStore,
    MemoryConcurrencyStore,
    Permit,
    permits_of,
)
from agent_runtime.limits.rate_limits import LimitKeys
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.orchestration.middleware.fallback import FallbackStore
from agent_runtime.run.state import ancestor_limits
from agent_runtime.types import new_run_id

if TYPE_CHECKING:
    from agent_runtime.event_bus import EventBus
    from agent_runtime.types import AgentContext, AgentResult, Handler

MIN_POLL_S = 0.02
MAX_POLL_S = 0.5
"""Longest interval at which a waiting call polls; a release in this process wakes it at once."""
RETRY_AFTER_S = 1.0
"""Retry time for a refused caller, since the end of running calls is unknown."""


class ConcurrencyMiddleware(Middleware):
    """Limit concurrent calls: refuse excess ones, or let them wait.

    A call takes a permit of each limit or, if one is exhausted, takes none. An agent called by
    another one uses the outer call's permits. When the store fails, this process counts alone, like
    RateLimitMiddleware.

    Args:
        limits: any number.
        slots: the store that counts them; in memory by default.
        wait_s: how long a call may wait for a permit; 0 refuses at once.
        processes, bus: as RateLimitMiddleware's.

    Its `process` raises RateLimited. Cancelling a waiting call takes nothing; a running one
    releases its permits.
    """

    waits = True

    def __init__(
        self,
        limits: Sequence[ConcurrencyLimit],
        slots: ConcurrencyStore | None = None,
        *,
        wait_s: float = 0.0,
        processes: int = 1,
        bus: EventBus | None = None,
    ) -> None:
        if not 0 <= wait_s < float("inf"):
            raise ConfigurationError(f"wait_s is at least 0, not {wait_s}")
        self.limits = tuple(limits)
        self._wait_s = wait_s
        self._keys = LimitKeys(self.limits, permits_of)
        store: ConcurrencyStore = slots or MemoryConcurrencyStore()
        self._fallback: FallbackStore[ConcurrencyStore] = FallbackStore(
            store, MemoryConcurrencyStore(), processes, bus, "concurrency"
        )
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def degraded(self) -> bool:
        """Return whether the store fails and this process counts alone."""
        return self._fallback.degraded

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call in its slots."""
        permits = self._keys.keys_for(context, ancestor_limits())
        holder = new_run_id()  # not the call's own id, which a caller may choose and use for many
        if not permits:
            return await next_call(context)
        try:
            store, acquired_permits = await self._acquire(permits, holder)
        except asyncio.CancelledError:
            if (
                self._fallback.store.lease_s is not None
            ):  # it may have taken them before the failure
                await self._release(self._fallback.store, permits, holder)
            raise
        context.progress.counted_limits = context.progress.counted_limits.union(
            [slot.key for slot in acquired_permits]
        )
        renewal_task: asyncio.Task[None] | None = None
        if store.lease_s is not None:
            renewal_task = asyncio.create_task(
                _renew(store, acquired_permits, holder, store.lease_s)
            )
        try:
            return await next_call(context)
        finally:
            if renewal_task is not None:
                renewal_task.cancel()
            await self._release(store, acquired_permits, holder)

    async def _release(
        self, store: ConcurrencyStore, permits: Sequence[Permit], holder: str
    ) -> None:
        await store.release(permits, holder)
        for waiter in list(self._waiters):
            waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    async def _acquire(
        self, permits: Sequence[Permit], holder: str
    ) -> tuple[ConcurrencyStore, Sequence[Permit]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        poll_s = MIN_POLL_S
        while True:
            store, acquired_permits, exhausted_permit = await self._fallback.call(
                lambda store, share: _acquire_share(store, permits, holder, share),
                lambda store: store.release(permits, holder),
            )
            if exhausted_permit is None:
                return store, acquired_permits
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                raise RateLimited(exhausted_permit.limit, RETRY_AFTER_S)
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=min(poll_s, remaining_s))
            finally:
                self._waiters.discard(waiter)
            poll_s = min(poll_s * 2, MAX_POLL_S)


async def _acquire_share(
    store: ConcurrencyStore, permits: Sequence[Permit], holder: str, share: int
) -> tuple[ConcurrencyStore, Sequence[Permit], Permit | None]:
    scaled_permits = (
        permits
        if share == 1
        else [slot._replace(amount=max(1, slot.amount // share)) for slot in permits]
    )
    return store, scaled_permits, await store.acquire(scaled_permits, holder)


async def _renew(
    store: ConcurrencyStore, permits: Sequence[Permit], holder: str, lease_s: float
) -> None:
    while True:
        await asyncio.sleep(lease_s / 3)
        with suppress(StoreError):
            await store.renew(permits, holder)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
