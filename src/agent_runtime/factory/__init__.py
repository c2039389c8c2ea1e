"""Build executors from templates: the agent, its tools and its layers; cache the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.factory.agent_factory import AgentFactory

# Loaded at first use: parts of this package are needed without the factory.
_EXPORTS = {
    "AgentFactory": "agent_runtime.factory.agent_factory",
}

__all__ = [
    "AgentFactory",
]

__getattr__ = lazy_exports(__name__, _EXPORTS)
