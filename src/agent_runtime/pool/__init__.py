"""Agents that are warm before the call, and agents in processes of their own."""

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.pool.config import AgentLimits, PoolConfig
    from agent_runtime.pool.control import ControlSocket
    from agent_runtime.pool.instance import AgentInstance, InstanceStatus
    from agent_runtime.pool.instance_pool import AgentInstancePool
    from agent_runtime.pool.metrics import watch_pools
    from agent_runtime.pool.session_context import AgentSessionContext, SessionKey
    from agent_runtime.pool.session_pool import AgentSessionPool
    from agent_runtime.pool.task import AgentTask, TaskPriority
    from agent_runtime.pool.template_watch import TemplateWatch

_HOME = {
    "AgentInstance": "instance",
    "AgentInstancePool": "instance_pool",
    "AgentLimits": "config",
    "AgentSessionContext": "session_context",
    "AgentSessionPool": "session_pool",
    "AgentTask": "task",
    "ControlSocket": "control",
    "InstanceStatus": "instance",
    "PoolConfig": "config",
    "SessionKey": "session_context",
    "TaskPriority": "task",
    "TemplateWatch": "template_watch",
    "watch_pools": "metrics",
}

__all__ = [
    "AgentInstance",
    "AgentInstancePool",
    "AgentLimits",
    "AgentSessionContext",
    "AgentSessionPool",
    "AgentTask",
    "ControlSocket",
    "InstanceStatus",
    "PoolConfig",
    "SessionKey",
    "TaskPriority",
    "TemplateWatch",
    "watch_pools",
]
__getattr__ = imported_late("agent_runtime.pool", _HOME)
