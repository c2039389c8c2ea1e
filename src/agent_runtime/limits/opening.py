"""Open the store that counts rate and concurrency limits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
from agent_runtime.storage.store_plugins import open_plugin


@dataclass(slots=True)
class LimitStore:
    """Hold the store of rate and concurrency limits, of this process or shared by `processes`.

    While a shared one fails, each process allows its share, one in `processes`.
    """

    windows: SlidingWindowStore = field(default_factory=MemorySlidingWindowStore)
    slots: ConcurrencyStore = field(default_factory=MemoryConcurrencyStore)
    processes: int = 1

    async def aclose(self) -> None:
        """Close the store."""
        await self.windows.aclose()
        await self.slots.aclose()


def open_limits(url: str, *, processes: int = 1) -> LimitStore:
    """Open the store of limits at an address (memory, Redis, or of a package).

    Raises ConfigurationError.
    """
    limits: LimitStore | None = open_plugin("limits", url, LimitStore)
    if limits is not None:
        return replace(limits, processes=processes)
    address = StoreUrl.parse(url, "the limits", ("memory", "redis"))
    if address.kind == "memory":
        return LimitStore(processes=processes)
    # A count lost in a server's crash only allows more calls, so durability is not required.
    return LimitStore(
        RedisSlidingWindowStore(address, durable=False),
        RedisConcurrencyStore(address, durable=False),
        processes,
    )
