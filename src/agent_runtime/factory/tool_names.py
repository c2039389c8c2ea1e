"""Resolve the names of an agent's tools in its template; a name without a tool is an error.

A tool has the name that the model sees, and the one that the template uses: a registered name, a
reference, another agent. Approvals and limits apply to a tool under any of these. A name without a
tool would leave the intended tool unlimited.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError, InputInvalid, Problem, close_matches
from agent_runtime.template.inputs import resolve_inputs
from agent_runtime.template.prompt import render_value

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from agent_runtime.registry import Registry
    from agent_runtime.template import AgentTemplate
    from agent_runtime.template.parts_spec import MiddlewareSpec, ToolSpec

TOOL_NAME_ARGUMENTS: Mapping[str, str] = {
    "human_in_the_loop": "interrupt_on",
    "tool_call_limit": "tool_name",
    "tool_retry": "tools",
    "tool_error": "tools",
    "context_editing": "exclude_tools",
    "llm_tool_selector": "always_include",
    "tool_emulator": "tools",
}
"""LangChain middleware with an argument that names tools."""
_TOOLS_OF_MIDDLEWARE: Mapping[str, Sequence[str]] = {
    "todo_list": ("write_todos",),
    "file_search": ("glob_search", "grep_search"),
}
"""Tools that LangChain's middleware brings, for the check of a template, which builds nothing."""


class ToolNames:
    """The names of one agent's tools: `resolve` gives those that the model sees.

    `is_complete` is False while tools are missing that only building the agent makes known: an MCP
    server's.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, set[str]] = {}
        self.is_complete = True

    def add(self, tool_name: str, *others: str | None) -> None:
        """Add a tool by its name for the model, and by the names a template may use."""
        for name in (tool_name, *others):
            if name is not None:
                self._by_name.setdefault(name, set()).add(tool_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def unknown_message(self, name: str) -> str:
        """Return the error about a name of no tool."""
        return f"no tool of this agent is called '{name}': {close_matches(name, self._by_name)}"

    def resolve(self, name: str) -> list[str]:
        """Return the model's names of the tools called `name`.

        Raises ConfigurationError without any.
        """
        if name not in self._by_name:
            raise ConfigurationError(self.unknown_message(name))
        return sorted(self._by_name[name])

    def resolve_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the map with the names that the model sees.

        The name itself goes before another one of a tool.
        """
        resolved: dict[str, Any] = {}
        for name in sorted(values, key=lambda name: name in self._by_name.get(name, ())):
            resolved.update(dict.fromkeys(self.resolve(name), values[name]))
        return resolved

    def resolve_argument(self, middleware: str, value: Any) -> Any:
        """Return an argument of LangChain's middleware with the names that the model sees."""
        if isinstance(value, Mapping):
            return self.resolve_keys(value)
        if isinstance(value, str):
            names = self.resolve(value)
            if len(names) > 1:
                raise ConfigurationError(
                    f"middleware '{middleware}': '{value}' is several tools: {', '.join(names)}"
                )
            return names[0]
        if isinstance(value, list):
            return [
                name
                for entry in value
                for name in (self.resolve(entry) if isinstance(entry, str) else [entry])
            ]
        return value


def tool_names_in(middleware: Iterable[MiddlewareSpec]) -> list[tuple[int, str, str]]:
    """Return position, argument and value of tool names in LangChain middleware's arguments."""
    mentions: list[tuple[int, str, str]] = []
    for position, spec in enumerate(middleware):
        argument = TOOL_NAME_ARGUMENTS.get(spec.use)
        value = None if argument is None else (spec.model_extra or {}).get(argument)
        names = (
            [value]
            if isinstance(value, str)
            else value
            if isinstance(value, list | Mapping)
            else []
        )
        mentions += [(position, argument or "", name) for name in names if isinstance(name, str)]
    return mentions


def unknown_tool_names(
    template: AgentTemplate, registry: Registry, templates: Collection[str]
) -> list[Problem]:
    """Return a problem for each approval or middleware argument that names no tool.

    Nothing is built that has an effect; where that leaves tools unknown (an MCP server's), building
    the agent checks.
    """
    spec = template.spec
    if not spec.interrupt_on and not tool_names_in(spec.middleware):
        return []
    names = static_names(template, registry)
    if not names.is_complete:
        return []
    mentions = [(f"spec.interrupt_on.{name}", name) for name in spec.interrupt_on]
    mentions += [
        (f"spec.middleware.{position}.{argument}", name)
        for position, argument, name in tool_names_in(spec.middleware)
    ]
    return [
        template.problem(path, names.unknown_message(name), "unknown_tool")
        for path, name in mentions
        if name not in names
    ]


def static_names(template: AgentTemplate, registry: Registry) -> ToolNames:
    """Return a template's tool names as far as known without building the agent."""
    names = ToolNames()
    spec = template.spec
    for tool in spec.tools:
        name = _static_name(tool, template, registry)
        if name is None:
            names.is_complete = False
        else:
            names.add(name, tool.use, tool.ref, tool.agent)
    for middleware in spec.middleware:
        component = registry.middleware.get(middleware.use)
        if inspect.isclass(component):
            names.is_complete = False
        for name in (
            _TOOLS_OF_MIDDLEWARE.get(middleware.use, ())
            if component is None
            else tool_names_of(component)
        ):
            names.add(name)
    if spec.subagents:
        names.add("task")
    if template.skills:
        names.add("read_skill")
    return names


def tool_names_of(middleware: Any) -> list[str]:
    """Return the names of the tools that a middleware brings."""
    names = [getattr(tool, "name", None) for tool in getattr(middleware, "tools", None) or ()]
    return [name for name in names if isinstance(name, str)]


def _static_name(tool: ToolSpec, template: AgentTemplate, registry: Registry) -> str | None:
    if tool.mcp is not None:
        return None
    if tool.agent is not None:
        nested_template = template.agents.get(tool.agent)
        return tool.as_ or (
            tool.agent if nested_template is None else nested_template.metadata.name
        )
    built_tool: BaseTool
    try:
        args = render_value(tool.args, resolve_inputs(template, None)) if tool.args else {}
        built_tool = (
            registry.tool(tool.use, args)
            if tool.use is not None
            else registry.ref(tool.ref or "", args)
        )
    except (
        ConfigurationError,
        InputInvalid,
        KeyError,
    ):  # an input without a default, a folder that is not there yet
        declared_name: str | None = getattr(registry.tools.get(tool.use or ""), "_tool_name", None)
        return declared_name
    return built_tool.name
