"""Where rate limits and slots are counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_runtime.monitoring.slots import MemorySlots, Slots, open_slots
from agent_runtime.monitoring.windows import MemoryWindows, Windows, open_windows


@dataclass(slots=True)
class LimitStore:
    """The store behind rate and concurrency limits: of this process, or shared by `processes` of them.

    When a shared one is out, each process allows its share, one in `processes`.
    """

    windows: Windows = field(default_factory=MemoryWindows)
    slots: Slots = field(default_factory=MemorySlots)
    processes: int = 1

    async def aclose(self) -> None:
        """Close what was opened."""
        await self.windows.aclose()
        await self.slots.aclose()


def open_limits(url: str, *, processes: int = 1) -> LimitStore:
    """The store at `memory:` or `redis://...`; raises ConfigurationError."""
    return LimitStore(open_windows(url), open_slots(url), processes)
