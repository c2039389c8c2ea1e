"""What a worker needs to make an agent.

The template, and the components that it names, made ready to travel.
"""

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
class Place:
    """Where an object is imported from."""

    module: str
    name: str

    def found(self) -> Any:
        """The object; raises ImportError, AttributeError."""
        current: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            current = getattr(current, part)
        return current


@dataclass(frozen=True, slots=True)
class Recipe:
    """An agent, to be made in another process.

    `components` are those of the registry, by table and name.
    """

    agent: str
    template: AgentTemplate
    values: Mapping[str, Any]
    components: Mapping[str, Mapping[str, Place | bytes]]
    allowed_refs: frozenset[str]
    keeps_answer: frozenset[str]
    setup: Place | None
    max_steps: int | None
    idle_timeout_s: float | None
    has_sessions: bool

    def registry(self, registry: Registry) -> None:
        """Register what the recipe brings; raises what importing it raises."""
        for table, entries in self.components.items():
            known = getattr(registry, table)
            for name, entry in entries.items():
                known[name] = entry.found() if isinstance(entry, Place) else pickle.loads(entry)  # noqa: S301
        registry.keeps_answer.update(self.keeps_answer)
        if self.setup is not None:
            self.setup.found()(registry)


def recipe_of(
    agent: str,
    template: AgentTemplate,
    values: Mapping[str, Any],
    registry: Registry,
    setup: str | None,
    *,
    keeps: bool,
) -> Recipe:
    """The recipe of a template's agent; raises NotPortable for a component that cannot travel.

    `values` are the template's inputs; `keeps` says whether its calls may have sessions.
    """
    runtime = template.spec.runtime
    plain = template.model_copy()
    plain._place = None  # a function that knows the file
    module, _, name = (setup or "").partition(":")
    return Recipe(
        agent,
        plain,
        values,
        components_of(template, registry, has_setup=bool(setup)),
        registry.allowed_refs,
        frozenset(registry.keeps_answer),
        Place(module, name) if setup else None,
        runtime.limits.max_steps,
        runtime.timeout.idle,
        keeps,
    )


def components_of(
    template: AgentTemplate, registry: Registry, *, has_setup: bool
) -> dict[str, dict[str, Place | bytes]]:
    """The registered components that a template names.

    Raises NotPortable for one that cannot travel, unless there is a setup function that may
    register it over there.
    """
    found: dict[str, dict[str, Place | bytes]] = {}
    for table, name in _named(template):
        if name not in getattr(registry, table):
            continue
        try:
            found.setdefault(table, {})[name] = portable(
                getattr(registry, table)[name], f"{table}: '{name}'"
            )
        except NotPortable:
            if not has_setup:
                raise
    return found


def _named(template: AgentTemplate) -> Iterator[tuple[str, str]]:
    spec = template.spec
    yield from (("tools", tool.use) for tool in spec.all_tools() if tool.use)
    yield from (
        ("middleware", each.use) for each in spec.middleware if each.use not in LANGCHAIN_MIDDLEWARE
    )
    if spec.workflow:
        yield "workflows", spec.workflow


def portable(component: Any, what: str) -> Place | bytes:
    """A component as the place that it is imported from, or as its pickle; raises NotPortable."""
    if (place := place_of(component)) is not None:
        return place
    try:
        data = pickle.dumps(component, 5)
        pickle.loads(data)  # noqa: S301 - just made
    except Exception as error:
        raise NotPortable(
            f"{what} cannot be sent to an agent's process ({type(error).__name__}: {error}): "
            "make it importable by "
            "name from a module, or register it in the function that the pool's `setup` names"
        ) from error
    return data


def place_of(component: Any) -> Place | None:
    """Where this very object can be imported from, or None."""
    inner = getattr(component, "func", None) or getattr(component, "coroutine", None) or component
    module = getattr(inner, "__module__", None)
    name = getattr(inner, "__qualname__", None)
    if module in sys.modules and name and _at(module, name) is component:
        return Place(module, name)
    home = sys.modules.get(module or "")
    if home is None or inspect.isclass(component) or inspect.isfunction(component):
        return None
    # A graph or a model has no name of its own: look whether its module's has one for it.
    kept = next((key for key, value in vars(home).items() if value is component), None)
    return None if kept is None else Place(home.__name__, kept)


def _at(module: str, name: str) -> Any:
    try:
        return Place(module, name).found()
    except (ImportError, AttributeError):
        return None
