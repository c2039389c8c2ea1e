"""Check components before a registry takes them."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.store.base import BaseStore

from agent_runtime.checkpoints.tenant_store import TenantStore
from agent_runtime.errors import ConfigurationError
from agent_runtime.orchestration.middleware import Middleware
from agent_runtime.registry import Registry
from agent_runtime.run.gated_model import gated


def register_model(registry: Registry, name: str, factory: Any) -> None:
    """Register a chat model, which is gated here, or a function that makes one."""
    gated_model = gated(factory) if isinstance(factory, BaseChatModel) else None
    registry.register(
        registry.models, name, factory if gated_model is None else lambda **_: gated_model
    )


def register_middleware(
    registry: Registry, name: str, middleware: Any, *, streams_safely: bool
) -> None:
    """Register a runtime layer or a LangChain middleware, an instance or a class.

    Raises ConfigurationError for anything else.
    """
    from langchain.agents.middleware import AgentMiddleware

    cls = middleware if isinstance(middleware, type) else type(middleware)
    if issubclass(cls, Middleware):
        registry.register(registry.layers, name, middleware)
        return
    if not issubclass(cls, AgentMiddleware):
        raise ConfigurationError(
            f"'{name}' is neither a runtime Middleware nor a LangChain AgentMiddleware"
        )
    if streams_safely:
        registry.streams_safely.add(name)
    else:
        registry.streams_safely.discard(name)
    registry.register(registry.middleware, name, middleware)


def register_memory(registry: Registry, name: str, store: BaseStore, *, shared: bool) -> None:
    """Register a LangGraph store, with separate namespaces for each tenant unless `shared`.

    Raises ConfigurationError for anything else.
    """
    if not isinstance(store, BaseStore):
        raise ConfigurationError(f"'{name}' is not a LangGraph store: {type(store).__name__}")
    registry.register(registry.memories, name, store if shared else TenantStore(store))
