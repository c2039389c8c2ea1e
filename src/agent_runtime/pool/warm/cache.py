"""The contexts that a warm pool keeps: by key, used longest ago first out, those in use never."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from typing import Any

from agent_runtime.pool.warm.cache_stats import CacheStats
from agent_runtime.pool.warm.session_context import AgentSessionContext, SessionKey


class WarmCache:
    """Cache contexts. Methods may be called from any thread.

    Args:
        ttl_s, max_contexts, max_bytes: as the pool's.
        on_drop: called with the key of each dropped context and the reason: `outdated`, `expired`,
            `evicted`, `invalidated`.
    """

    def __init__(
        self,
        ttl_s: float,
        max_contexts: int,
        max_bytes: float,
        on_drop: Callable[[SessionKey, str], None],
    ) -> None:
        self.ttl_s = ttl_s
        self._max_contexts = max_contexts
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._contexts: OrderedDict[SessionKey, AgentSessionContext] = OrderedDict()
        self._lock = RLock()
        self.stats = CacheStats()

    def get(self, key: SessionKey, fingerprint: tuple[Any, ...]) -> AgentSessionContext | None:
        """Return the context and mark it as used; None without a valid one."""
        with self._lock:
            context = self._contexts.get(key)
            if context is None:
                return None
            if context.fingerprint == fingerprint and not self._expired(context):
                self._contexts.move_to_end(key)
                context.last_used_monotonic = time.monotonic()
                context.uses = context.uses + 1
                return context
            del self._contexts[key]
            reason = "expired" if context.fingerprint == fingerprint else "outdated"
        self._record_drops([key], reason)
        return None

    def put(self, context: AgentSessionContext) -> None:
        """Store a context in place of its key's old one, evicting others for room."""
        evicted_keys = []
        with self._lock:
            self._contexts[context.key] = context
            self._contexts.move_to_end(context.key)
            total_bytes = sum(
                cached_context.size_bytes for cached_context in self._contexts.values()
            )
            for key, cached_context in list(self._contexts.items())[
                :-1
            ]:  # the newest stays, however large
                if len(self._contexts) <= self._max_contexts and total_bytes <= self._max_bytes:
                    break
                if not cached_context.pins:
                    del self._contexts[key]
                    total_bytes -= cached_context.size_bytes
                    evicted_keys.append(key)
        self._record_drops(evicted_keys, "evicted")

    def expire(self) -> int:
        """Drop contexts unused for the time to live; return how many."""
        with self._lock:
            expired_keys = [
                key for key, context in self._contexts.items() if self._expired(context)
            ]
            for key in expired_keys:
                del self._contexts[key]
        self._record_drops(expired_keys, "expired")
        return len(expired_keys)

    def remove(self, key: SessionKey | None, template: str | None) -> int:
        """Drop a key's context, those of a template, or all; returns how many."""
        with self._lock:
            removed_keys = [
                context.key
                for context in self._contexts.values()
                if key in (None, context.key) and template in (None, context.template.metadata.name)
            ]
            for removed_key in removed_keys:
                del self._contexts[removed_key]
        self._record_drops(removed_keys, "invalidated")
        return len(removed_keys)

    def all(self) -> list[AgentSessionContext]:
        """Return all contexts, the least recently used first."""
        with self._lock:
            return list(self._contexts.values())

    def _expired(self, context: AgentSessionContext) -> bool:
        return not context.pins and time.monotonic() - context.last_used_monotonic > self.ttl_s

    def _record_drops(self, keys: list[SessionKey], reason: str) -> None:
        stats = self.stats
        with self._lock:
            if reason == "evicted":
                stats.evictions += len(keys)
            elif reason == "expired":
                stats.expired += len(keys)
            elif reason == "outdated":
                stats.outdated += len(keys)
        for key in keys:
            self._on_drop(key, reason)
