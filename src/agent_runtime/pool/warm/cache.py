"""The contexts that a warm pool keeps: by key, used longest ago first out, those in use never."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from typing import Any

from agent_runtime.pool.warm.cache_stats import PoolCounts
from agent_runtime.pool.warm.session_context import AgentSessionContext, SessionKey


class Contexts:
    """Keeps contexts. Methods may be called from any thread.

    Args:
        ttl_s, max_contexts, max_bytes: as the pool's.
        told: told the key of each context that is dropped, and why: `outdated`, `expired`,
            `evicted`, `invalidated`.
    """

    def __init__(
        self,
        ttl_s: float,
        max_contexts: int,
        max_bytes: float,
        told: Callable[[SessionKey, str], None],
    ) -> None:
        self.ttl_s = ttl_s
        self._max_contexts = max_contexts
        self._max_bytes = max_bytes
        self._told = told
        self._kept: OrderedDict[SessionKey, AgentSessionContext] = OrderedDict()
        self._lock = RLock()
        self.counts = PoolCounts()

    def get(self, place: SessionKey, fingerprint: tuple[Any, ...]) -> AgentSessionContext | None:
        """The context, used now; None when there is none that is right and young enough."""
        with self._lock:
            context = self._kept.get(place)
            if context is None:
                return None
            if context.fingerprint == fingerprint and not self._expired(context):
                self._kept.move_to_end(place)
                context.last_used_s = time.monotonic()
                context.uses = context.uses + 1
                return context
            del self._kept[place]
            why = "expired" if context.fingerprint == fingerprint else "outdated"
        self._drop([place], why)
        return None

    def put(self, context: AgentSessionContext) -> None:
        """Keep a context, in place of its key's old one; others make room."""
        evicted = []
        with self._lock:
            self._kept[context.key] = context
            self._kept.move_to_end(context.key)
            total = sum(each.size_bytes for each in self._kept.values())
            for place, each in list(self._kept.items())[:-1]:  # the newest stays, however large
                if len(self._kept) <= self._max_contexts and total <= self._max_bytes:
                    break
                if not each.pins:
                    del self._kept[place]
                    total -= each.size_bytes
                    evicted.append(place)
        self._drop(evicted, "evicted")

    def expire(self) -> int:
        """Drop what nobody has used for the time to live; returns how many."""
        with self._lock:
            old = [place for place, context in self._kept.items() if self._expired(context)]
            for place in old:
                del self._kept[place]
        self._drop(old, "expired")
        return len(old)

    def remove(self, place: SessionKey | None, template: str | None) -> int:
        """Drop a key's context, those of a template, or all; returns how many."""
        with self._lock:
            doomed = [
                context.key
                for context in self._kept.values()
                if place in (None, context.key)
                and template in (None, context.template.metadata.name)
            ]
            for each in doomed:
                del self._kept[each]
        self._drop(doomed, "invalidated")
        return len(doomed)

    def all(self) -> list[AgentSessionContext]:
        """Those that are kept, the one used longest ago first."""
        with self._lock:
            return list(self._kept.values())

    def _expired(self, context: AgentSessionContext) -> bool:
        return not context.pins and time.monotonic() - context.last_used_s > self.ttl_s

    def _drop(self, places: list[SessionKey], why: str) -> None:
        counts = self.counts
        with self._lock:
            if why == "evicted":
                counts.evictions += len(places)
            elif why == "expired":
                counts.expired += len(places)
            elif why == "outdated":
                counts.outdated += len(places)
        for place in places:
            self._told(place, why)
