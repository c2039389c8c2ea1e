"""Cache compiled agents by their keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import RLock

from agent_runtime.factory.cache_keys import AgentKey
from agent_runtime.orchestration.executor import AgentExecutor


class AgentCache:
    """Keep at most `max_agents` agents, least recently used first out. Safe in any thread."""

    def __init__(self, max_agents: int) -> None:
        self._max_agents = max_agents
        self._lock = RLock()
        self._agents_by_key: OrderedDict[AgentKey, AgentExecutor] = OrderedDict()
        self._build_locks: dict[AgentKey, RLock] = {}

    def agents(self) -> list[AgentExecutor]:
        """Return the agents that are in the cache now."""
        with self._lock:
            return list(self._agents_by_key.values())

    def get(self, key: AgentKey) -> AgentExecutor | None:
        """Return the agent of a key, or None."""
        with self._lock:
            if (agent := self._agents_by_key.get(key)) is not None:
                self._agents_by_key.move_to_end(key)
            return agent

    def get_or_build(self, key: AgentKey, build: Callable[[], AgentExecutor]) -> AgentExecutor:
        """Return the agent of a key; build it once for all threads that ask for the same."""
        if (agent := self.get(key)) is not None:
            return agent
        with self._lock:
            build_lock = self._build_locks.setdefault(key, RLock())
        with build_lock:  # callers of other keys do not wait for this one
            if (agent := self.get(key)) is not None:
                return agent
            try:
                agent = build()
            finally:
                self._build_locks.pop(key, None)
            with self._lock:
                self._agents_by_key[key] = agent
                while len(self._agents_by_key) > self._max_agents:
                    self._agents_by_key.popitem(last=False)
            return agent
