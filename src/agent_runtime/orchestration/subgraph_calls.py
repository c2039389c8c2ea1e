"""Keys of `configurable` that belong to the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from agent_runtime.errors import ReservedKey
from agent_runtime.types import AgentContext

RESERVED = frozenset(
    {"checkpoint_id", "checkpoint_ns", "checkpoint_map", "run_id", "tenant", "user", "user_id"}
)
_FROM_LANGGRAPH = ("__pregel_read", "__pregel_send")


def inside_a_graph(configurable: Mapping[str, Any]) -> bool:
    """Tell whether LangGraph itself made this config.

    The call is a node of another graph that runs in this context.
    """
    around = (var_child_runnable_config.get() or {}).get("configurable") or {}
    return any(
        callable(configurable.get(key)) and around.get(key) is not None for key in _FROM_LANGGRAPH
    )


def refuse_reserved_keys(context: AgentContext) -> None:
    """Raise ReservedKey for a key that would choose another caller's or another moment's state.

    LangGraph would obey them (and keeps scalars of `configurable` in every checkpoint); they are
    refused, not ignored.
    """
    given = (context.config or {}).get("configurable") or {}
    if not given or inside_a_graph(given):
        return
    for key in given:
        if key in RESERVED or key.startswith("__"):
            raise ReservedKey(f"'{key}' may not be set by a caller", f"configurable.{key}")
