"""MCP servers.

One process or connection for all agents that may share it, held open while somebody uses it.
"""

from typing import TYPE_CHECKING

from agent_runtime._lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.mcp.connection_pool import McpBroker
    from agent_runtime.mcp.server import credential_scope

_HOME = {
    "McpBroker": "agent_runtime.mcp.connection_pool",
    "credential_scope": "agent_runtime.mcp.server",
}

__all__ = ["McpBroker", "credential_scope"]
__getattr__ = imported_late(__name__, _HOME)
