"""Agents that are warm before the call, and agents in processes of their own."""

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.pool.config import AgentLimits, PoolConfig
    from agent_runtime.pool.instance import AgentInstance, InstanceStatus
    from agent_runtime.pool.instance_pool import AgentInstancePool
    from agent_runtime.pool.task import AgentTask, TaskPriority

_HOME = {
    "AgentInstance": "instance",
    "AgentInstancePool": "instance_pool",
    "AgentLimits": "config",
    "AgentTask": "task",
    "InstanceStatus": "instance",
    "PoolConfig": "config",
    "TaskPriority": "task",
}

__all__ = [
    "AgentInstance",
    "AgentInstancePool",
    "AgentLimits",
    "AgentTask",
    "InstanceStatus",
    "PoolConfig",
    "TaskPriority",
]
__getattr__ = imported_late("agent_runtime.pool", _HOME)
