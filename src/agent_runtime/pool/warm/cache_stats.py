"""Count hits, misses and builds of a warm pool."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CacheStats:
    """Hits and misses, builds with failures and seconds, and entries dropped by reason."""

    hits: int = 0
    misses: int = 0
    builds: int = 0
    failures: int = 0
    refreshes: int = 0
    evictions: int = 0
    expired: int = 0
    outdated: int = 0
    build_seconds: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Return the share of calls that found their agent ready; 0 before the first one."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0
