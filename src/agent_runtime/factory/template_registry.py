"""Register components for templates: tools, models, middleware, memories, workflows, templates."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.store.base import BaseStore

from agent_runtime.checkpoints.tenant_store import TenantStore
from agent_runtime.errors import ConfigurationError, UnknownComponent
from agent_runtime.orchestration.middleware import Middleware
from agent_runtime.registry import Registry
from agent_runtime.run.gated_model import gated
from agent_runtime.template import AgentTemplate, builtin_templates, load_template
from agent_runtime.template.spec import is_path


class TemplateRegistry:
    """The registration half of AgentFactory. Its methods may be called from any thread."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._templates: dict[str, AgentTemplate | Path] = dict(builtin_templates())
        self._environ: Mapping[str, str] | None = None
        """What `${VAR}` of templates is filled from; None is the process's environment."""
        self._lock = threading.RLock()

    def register_template(
        self, template: AgentTemplate | str | Path, name: str | None = None
    ) -> str:
        """Make a template (or the one in a file) known by `name`, by default its own.

        Returns the name.
        """
        loaded = template if isinstance(template, AgentTemplate) else self._load(template)
        name = name or loaded.metadata.name
        with self._lock:
            self._check_owner(name, loaded)
            self._templates[name] = loaded
            self.registry.generation += 1
        return name

    def _check_owner(self, name: str, template: AgentTemplate) -> None:
        """Raise ConfigurationError when a confined template takes the name of another one."""
        existing = self._templates.get(name)
        if self._environ is None or existing is None:  # trusted templates may replace each other
            return
        folder = existing.parent if isinstance(existing, Path) else existing.folder
        if folder != template.folder:
            raise ConfigurationError(
                f"'{name}' is the name of another template, and confined ones do not replace it"
            )

    def unregister_template(self, name: str) -> None:
        """Remove a name; existing executors stay usable. Raises UnknownComponent."""
        with self._lock:
            if self._templates.pop(name, None) is None:
                raise UnknownComponent("template", name, self._templates)
            self.registry.generation += 1

    def get_template(self, name_or_path: str | Path) -> AgentTemplate:
        """Return the template of a registered name, or in a file.

        Raises as `create_from_template`.
        """
        name = str(name_or_path)
        if is_path(name_or_path):
            return self._load(name_or_path)
        with self._lock:
            template_or_path = self._templates.get(name)
            if template_or_path is None:
                raise UnknownComponent("template", name, self._templates)
            if isinstance(template_or_path, Path):  # a shipped one, read at its first use
                template_or_path = self._templates[name] = self._load(template_or_path)
            return template_or_path

    def _load(self, path: str | Path) -> AgentTemplate:
        return load_template(path, environ=self._environ)

    def take_templates(self, other: TemplateRegistry) -> None:
        """Register every template of `other`."""
        with self._lock, other._lock:
            self._templates.update(other._templates)
            self.registry.generation += 1

    def list_templates(self) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(self._templates)

    def register_tool(self, name: str, tool: Any) -> None:
        """Register a LangChain tool, a function, a tool class, or a `tool_factory`."""
        self.registry.register(self.registry.tools, name, tool)

    def register_model(self, name: str, factory: Any) -> None:
        """Register a chat model, or a function that makes one from `spec.model.params`."""
        gated_model = gated(factory) if isinstance(factory, BaseChatModel) else None
        self.registry.register(
            self.registry.models, name, factory if gated_model is None else lambda **_: gated_model
        )

    def register_middleware(
        self, name: str, middleware: Any, *, streams_safely: bool = False
    ) -> None:
        """Register a runtime layer (`runtime.pipeline`) or a LangChain middleware.

        Accepts an instance or a class of either `agent_runtime.Middleware` or LangChain's
        `AgentMiddleware`, which determines where templates can name it. Raises ConfigurationError
        for anything else.

        An agent with a LangChain middleware that wraps model calls or acts after them streams its
        messages whole, because such a hook may change them; `streams_safely` declares that this one
        does not, so tokens stream.
        """
        from langchain.agents.middleware import AgentMiddleware

        cls = middleware if isinstance(middleware, type) else type(middleware)
        if issubclass(cls, Middleware):
            self.registry.register(self.registry.layers, name, middleware)
        elif issubclass(cls, AgentMiddleware):
            (
                self.registry.streams_safely.add
                if streams_safely
                else self.registry.streams_safely.discard
            )(name)
            self.registry.register(self.registry.middleware, name, middleware)
        else:
            raise ConfigurationError(
                f"'{name}' is neither a runtime Middleware nor a LangChain AgentMiddleware"
            )

    def register_memory(self, name: str, store: BaseStore, *, shared: bool = False) -> None:
        """Register a LangGraph store for `spec.memory`: long-term memory beyond a session.

        Each tenant has separate namespaces in it, below the tenant's name; with `shared` all
        tenants read and write the same ones, as the agent's tools name them.
        """
        if not isinstance(store, BaseStore):
            raise ConfigurationError(f"'{name}' is not a LangGraph store: {type(store).__name__}")
        self.registry.register(
            self.registry.memories, name, store if shared else TenantStore(store)
        )

    def register_workflow(self, name: str, workflow: Any) -> None:
        """Register any Runnable or compiled graph, for `spec.workflow`."""
        self.registry.register(self.registry.workflows, name, workflow)
