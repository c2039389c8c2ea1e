"""Share MCP servers: one process or connection for all agents that may share it, while in use."""

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.mcp.connection_pool import McpConnectionPool
    from agent_runtime.mcp.server import credential_scope

_EXPORTS = {
    "McpConnectionPool": "agent_runtime.mcp.connection_pool",
    "credential_scope": "agent_runtime.mcp.server",
}

__all__ = ["McpConnectionPool", "credential_scope"]
__getattr__ = lazy_exports(__name__, _EXPORTS)
