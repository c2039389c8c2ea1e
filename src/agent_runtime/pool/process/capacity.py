"""How many instances there may be: in all, of one agent, and by the sum of their memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus

if TYPE_CHECKING:
    from agent_runtime.pool.config import PoolConfig
    from agent_runtime.pool.process.instance_worker import InstanceWorker


class Room:
    """Counts the instances of a pool; those that are ending count until they have."""

    def __init__(self, config: PoolConfig, workers: Mapping[str, InstanceWorker]) -> None:
        self._config = config
        self._workers = workers

    def living(self) -> list[AgentInstance]:
        """Those that have not ended."""
        instances = (worker.instance for worker in self._workers.values())
        return [each for each in instances if each.status is not InstanceStatus.TERMINATED]

    def count(self, agent: str, *statuses: InstanceStatus) -> int:
        """An agent's instances in one of these states."""
        return sum(each.agent == agent and each.status in statuses for each in self.living())

    def within_limit(self, agent: str) -> bool:
        """Whether the agent's own limit allows one more."""
        limit = self._config.of(agent).limit
        return limit is None or sum(each.agent == agent for each in self.living()) < limit

    def within_pool(self, agent: str) -> bool:
        """Whether the pool's size and memory allow one more of this agent."""
        living = self.living()
        total_mb = self._config.total_memory_mb
        reserved_mb = sum(each.memory_limit_mb for each in living)
        fits = total_mb is None or reserved_mb + self._config.memory_of(agent) <= total_mb
        return fits and len(living) < self._config.size
