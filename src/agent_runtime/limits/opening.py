"""Where rate limits and slots are counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_runtime.limits.concurrency import (
    ConcurrencyStore,
    MemoryConcurrencyStore,
    RedisConcurrencyStore,
)
from agent_runtime.limits.windows import (
    MemorySlidingWindowStore,
    RedisSlidingWindowStore,
    SlidingWindowStore,
)
from agent_runtime.storage import StoreUrl


@dataclass(slots=True)
class LimitStore:
    """The store behind rate and concurrency limits.

    Of this process, or shared by `processes` of them.

    When a shared one is out, each process allows its share, one in `processes`.
    """

    windows: SlidingWindowStore = field(default_factory=MemorySlidingWindowStore)
    slots: ConcurrencyStore = field(default_factory=MemoryConcurrencyStore)
    processes: int = 1

    async def aclose(self) -> None:
        """Close what was opened."""
        await self.windows.aclose()
        await self.slots.aclose()


def open_limits(url: str, *, processes: int = 1) -> LimitStore:
    """Open the store of limits at an address (`StoreUrl`: memory or Redis).

    Raises ConfigurationError.
    """
    address = StoreUrl.parse(url, "the limits", ("memory", "redis"))
    if address.kind == "memory":
        return LimitStore(processes=processes)
    # A count that a crash of the server loses is one that callers may use again: no reason to
    # demand durability.
    return LimitStore(
        RedisSlidingWindowStore(address, durable=False),
        RedisConcurrencyStore(address, durable=False),
        processes,
    )
