"""Agents that are warm before the call, and agents in processes of their own."""

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.pool.config import AgentLimits, PoolConfig
    from agent_runtime.pool.instance import AgentInstance, InstanceStatus
    from agent_runtime.pool.instance_pool import AgentInstancePool
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
    "InstanceStatus": "instance",
    "PoolConfig": "config",
    "SessionKey": "session_context",
    "TaskPriority": "task",
    "TemplateWatch": "template_watch",
}

__all__ = [
    "AgentInstance",
    "AgentInstancePool",
    "AgentLimits",
    "AgentSessionContext",
    "AgentSessionPool",
    "AgentTask",
    "InstanceStatus",
    "PoolConfig",
    "SessionKey",
    "TaskPriority",
    "TemplateWatch",
]
__getattr__ = imported_late("agent_runtime.pool", _HOME)
