"""How often a call may be made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_runtime.errors import RateLimited
from agent_runtime.limits.rate_limits import LimitKeys, RateLimit, Window, windows_of
from agent_runtime.limits.windows import MemorySlidingWindowStore, SlidingWindowStore
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.orchestration.middleware.fallback import FallbackStore
from agent_runtime.run.state import ancestor_limits

if TYPE_CHECKING:
    from agent_runtime.event_bus import EventBus
    from agent_runtime.types import AgentContext, AgentResult, Handler


class RateLimitMiddleware(Middleware):
    """Refuse calls above a rate in a sliding window.

    A call counts in all its windows or, refused, in none. An agent called by another one is not
    counted again in a window of the outer call. When the store fails, a limiter of this process
    takes over with its share of each limit, reported by a `limits.fallback` event, a warning and
    `degraded`; `limits.restored` ends it.

    Args:
        limits: any number; as RateLimit or as text, `60/minute per user; 1000/hour per tenant`.
        windows: the store of admissions; in memory by default.
        processes: how many processes share the limits: the share of each when the store fails.
        bus: receives the events.

    Its `process` raises RateLimited.
    """

    def __init__(
        self,
        limits: str | Sequence[RateLimit | str],
        windows: SlidingWindowStore | None = None,
        *,
        processes: int = 1,
        bus: EventBus | None = None,
    ) -> None:
        self.limits = tuple(RateLimit.parse_many(limits))
        self._keys = LimitKeys(self.limits, windows_of)
        self._fallback = FallbackStore(
            windows or MemorySlidingWindowStore(),
            MemorySlidingWindowStore(),
            processes,
            bus,
            "rate_limit",
        )

    @property
    def degraded(self) -> bool:
        """Return whether the store fails and the local limiter decides."""
        return self._fallback.degraded

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call if it is not one too many."""
        if windows := self._keys.keys_for(context, ancestor_limits()):
            admission = await self._fallback.call(
                lambda store, share: store.acquire(_scale_to_share(windows, share))
            )
            if admission.refused is not None:
                raise RateLimited(admission.refused.limit, max(admission.retry_after_s, 0.001))
            context.progress.counted_limits = context.progress.counted_limits.union(
                [w.key for w in windows]
            )
        return await next_call(context)


def _scale_to_share(windows: Sequence[Window], share: int) -> Sequence[Window]:
    return (
        windows if share == 1 else [w._replace(amount=max(1, w.amount // share)) for w in windows]
    )
