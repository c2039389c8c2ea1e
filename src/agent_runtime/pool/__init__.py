"""Keep agents warm before calls, and run agents in separate processes."""

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.pool.config import AgentLimits, PoolConfig
    from agent_runtime.pool.control import ControlSocket
    from agent_runtime.pool.metrics import watch_pools
    from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus
    from agent_runtime.pool.process.instance_pool import AgentInstancePool
    from agent_runtime.pool.task import AgentTask, TaskPriority
    from agent_runtime.pool.template_watch import TemplateWatch
    from agent_runtime.pool.warm.session_context import AgentSessionContext, SessionKey
    from agent_runtime.pool.warm.session_pool import AgentSessionPool

_HOME = {
    "AgentInstance": "agent_runtime.pool.process.instance",
    "AgentInstancePool": "agent_runtime.pool.process.instance_pool",
    "AgentLimits": "agent_runtime.pool.config",
    "AgentSessionContext": "agent_runtime.pool.warm.session_context",
    "AgentSessionPool": "agent_runtime.pool.warm.session_pool",
    "AgentTask": "agent_runtime.pool.task",
    "ControlSocket": "agent_runtime.pool.control",
    "InstanceStatus": "agent_runtime.pool.process.instance",
    "PoolConfig": "agent_runtime.pool.config",
    "SessionKey": "agent_runtime.pool.warm.session_context",
    "TaskPriority": "agent_runtime.pool.task",
    "TemplateWatch": "agent_runtime.pool.template_watch",
    "watch_pools": "agent_runtime.pool.metrics",
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
__getattr__ = lazy_exports("agent_runtime.pool", _HOME)
