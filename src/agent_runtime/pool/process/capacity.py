"""How many instances there may be: in all, of one agent, and by the sum of their memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus

if TYPE_CHECKING:
    from agent_runtime.pool.config import PoolConfig
    from agent_runtime.pool.process.instance_worker import InstanceWorker


class Capacity:
    """Counts the instances of a pool; those that are ending count until they have."""

    def __init__(self, config: PoolConfig, workers: Mapping[str, InstanceWorker]) -> None:
        self._config = config
        self._workers = workers

    def live_instances(self) -> list[AgentInstance]:
        """Return the instances that have not ended."""
        instances = (worker.instance for worker in self._workers.values())
        return [
            instance for instance in instances if instance.status is not InstanceStatus.TERMINATED
        ]

    def count(self, agent: str, *statuses: InstanceStatus) -> int:
        """Return how many instances of an agent have one of these statuses."""
        return sum(
            instance.agent == agent and instance.status in statuses
            for instance in self.live_instances()
        )

    def fits_agent_limit(self, agent: str) -> bool:
        """Return whether the agent's own limit allows one more."""
        limit = self._config.limits_for(agent).limit
        return (
            limit is None
            or sum(instance.agent == agent for instance in self.live_instances()) < limit
        )

    def fits_pool(self, agent: str) -> bool:
        """Return whether the pool's size and memory allow one more of this agent."""
        live_instances = self.live_instances()
        total_mb = self._config.total_memory_mb
        reserved_mb = sum(instance.memory_limit_mb for instance in live_instances)
        fits_memory = total_mb is None or reserved_mb + self._config.memory_of(agent) <= total_mb
        return fits_memory and len(live_instances) < self._config.size
