"""Limit calls by their rate and by how many run at once, in memory or Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.limits.concurrency import ConcurrencyLimit, ConcurrencyStore
    from agent_runtime.limits.opening import LimitStore, open_limits
    from agent_runtime.limits.rate_limits import RateLimit
    from agent_runtime.limits.windows import SlidingWindowStore

# Loaded at first use: a program without Redis does not pay for its client.
_HOME = {
    "ConcurrencyStore": "agent_runtime.limits.concurrency",
    "SlidingWindowStore": "agent_runtime.limits.windows",
    "ConcurrencyLimit": "agent_runtime.limits.concurrency",
    "LimitStore": "agent_runtime.limits.opening",
    "RateLimit": "agent_runtime.limits.rate_limits",
    "open_limits": "agent_runtime.limits.opening",
}

__all__ = [
    "ConcurrencyLimit",
    "ConcurrencyStore",
    "LimitStore",
    "RateLimit",
    "SlidingWindowStore",
    "open_limits",
]

__getattr__ = lazy_exports(__name__, _HOME)
