"""Describe an agent for a worker: the template and its components, in transferable form."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import NotPortable
from agent_runtime.registry import LANGCHAIN_MIDDLEWARE, Registry

if TYPE_CHECKING:
    from agent_runtime.template import AgentTemplate


@dataclass(frozen=True, slots=True)
class ImportPath:
    """Where an object is imported from."""

    module: str
    name: str

    def resolve(self) -> Any:
        """Return the object; raises ImportError, AttributeError."""
        current: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            current = getattr(current, part)
        return current


@dataclass(frozen=True, slots=True)
class RemoteAgentSpec:
    """An agent, to be made in another process.

    `components` are those of the registry, by table and name.
    """

    agent: str
    template: AgentTemplate
    values: Mapping[str, Any]
    components: Mapping[str, Mapping[str, ImportPath | bytes]]
    allowed_refs: frozenset[str]
    streams_safely: frozenset[str]
    setup: ImportPath | None
    max_steps: int | None
    idle_timeout_s: float | None
    has_sessions: bool

    def register_into(self, registry: Registry) -> None:
        """Register the spec's components; raises the errors of importing them."""
        for table, entries in self.components.items():
            registered_components = getattr(registry, table)
            for name, entry in entries.items():
                registered_components[name] = (
                    entry.resolve() if isinstance(entry, ImportPath) else pickle.loads(entry)  # noqa: S301
                )
        registry.streams_safely.update(self.streams_safely)
        if self.setup is not None:
            self.setup.resolve()(registry)


def make_agent_spec(
    agent: str,
    template: AgentTemplate,
    values: Mapping[str, Any],
    registry: Registry,
    setup: str | None,
    *,
    has_sessions: bool,
) -> RemoteAgentSpec:
    """Return the spec of a template's agent; raises NotPortable for an untransferable component.

    `values` are the template's inputs; `has_sessions` says whether its calls may have sessions.
    """
    runtime = template.spec.runtime
    transferable_template = template.model_copy()
    transferable_template._locate = None  # a function that knows the file
    module, _, name = (setup or "").partition(":")
    return RemoteAgentSpec(
        agent,
        transferable_template,
        values,
        components_of(template, registry, has_setup=bool(setup)),
        registry.allowed_refs,
        frozenset(registry.streams_safely),
        ImportPath(module, name) if setup else None,
        runtime.limits.max_steps,
        runtime.timeout.idle,
        has_sessions,
    )


def components_of(
    template: AgentTemplate, registry: Registry, *, has_setup: bool
) -> dict[str, dict[str, ImportPath | bytes]]:
    """Return the registered components that a template names.

    Raises NotPortable for an untransferable one, unless a setup function may register it in the
    worker.
    """
    components: dict[str, dict[str, ImportPath | bytes]] = {}
    for table, name in _component_references(template):
        if name not in getattr(registry, table):
            continue
        try:
            components.setdefault(table, {})[name] = to_transferable(
                getattr(registry, table)[name], f"{table}: '{name}'"
            )
        except NotPortable:
            if not has_setup:
                raise
    return components


def _component_references(template: AgentTemplate) -> Iterator[tuple[str, str]]:
    spec = template.spec
    yield from (("tools", tool.use) for tool in spec.all_tools() if tool.use)
    yield from (
        ("middleware", middleware.use)
        for middleware in spec.middleware
        if middleware.use not in LANGCHAIN_MIDDLEWARE
    )
    if spec.workflow:
        yield "workflows", spec.workflow


def to_transferable(component: Any, description: str) -> ImportPath | bytes:
    """Return a component's import path, or its pickle; raises NotPortable."""
    if (import_path := import_path_of(component)) is not None:
        return import_path
    try:
        data = pickle.dumps(component, 5)
        pickle.loads(data)  # noqa: S301 - just made
    except Exception as error:
        raise NotPortable(
            f"{description} cannot be sent to an agent's process ({type(error).__name__}: "
            f"{error}): "
            "make it importable by "
            "name from a module, or register it in the function that the pool's `setup` names"
        ) from error
    return data


def import_path_of(component: Any) -> ImportPath | None:
    """Return where this very object can be imported from, or None."""
    function = (
        getattr(component, "func", None) or getattr(component, "coroutine", None) or component
    )
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if module in sys.modules and name and _import_or_none(module, name) is component:
        return ImportPath(module, name)
    module_object = sys.modules.get(module or "")
    if module_object is None or inspect.isclass(component) or inspect.isfunction(component):
        return None
    # A graph or a model has no name of its own: search its module for it.
    attribute_name = next(
        (key for key, value in vars(module_object).items() if value is component), None
    )
    return None if attribute_name is None else ImportPath(module_object.__name__, attribute_name)


def _import_or_none(module: str, name: str) -> Any:
    try:
        return ImportPath(module, name).resolve()
    except (ImportError, AttributeError):
        return None
