"""Keys of `configurable` that belong to the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from agent_runtime.errors import ReservedKey
from agent_runtime.types import AgentContext

RESERVED_KEYS = frozenset(
    {"checkpoint_id", "checkpoint_ns", "checkpoint_map", "run_id", "tenant", "user", "user_id"}
)
_LANGGRAPH_KEYS = ("__pregel_read", "__pregel_send")


def is_subgraph_call(configurable: Mapping[str, Any]) -> bool:
    """Tell whether LangGraph itself made this config.

    The call is a node of another graph that runs in this context.
    """
    ambient_configurable = (var_child_runnable_config.get() or {}).get("configurable") or {}
    return any(
        callable(configurable.get(key)) and ambient_configurable.get(key) is not None
        for key in _LANGGRAPH_KEYS
    )


def refuse_reserved_keys(context: AgentContext) -> None:
    """Raise ReservedKey for a key that would choose another caller's or another moment's state.

    LangGraph would obey them (and keeps scalars of `configurable` in every checkpoint); they are
    refused, not ignored.
    """
    configurable = (context.config or {}).get("configurable") or {}
    if not configurable or is_subgraph_call(configurable):
        return
    for key in configurable:
        if key in RESERVED_KEYS or key.startswith("__"):
            raise ReservedKey(f"'{key}' may not be set by a caller", f"configurable.{key}")
