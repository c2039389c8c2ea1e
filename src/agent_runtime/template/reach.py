"""List a template's reach: programs, addresses, variables, secrets, files, middleware."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from agent_runtime.template.parts_spec import (
    AtOnceLimits,
    McpSpec,
    MiddlewareSpec,
    ModelSpec,
    SecretRef,
    ToolSpec,
)
from agent_runtime.template.prompt import render_value, strings_in
from agent_runtime.template.spec import AgentTemplate, is_path

ReachKind: TypeAlias = Literal[
    "command",
    "environment",
    "working folder",
    "address",
    "account",
    "variable",
    "secret file",
    "middleware",
    "agent",
    "workflow",
    "memory",
    "parameter",
    "path",
    "setting",
]


_ADDRESS = re.compile(r"(?i)[a-z][a-z0-9+.-]*://")


class Reach(NamedTuple):
    """Describe one thing that a template reaches, with its location."""

    kind: ReachKind
    value: str
    place: str


def reaches_of(template: AgentTemplate) -> list[Reach]:
    """Return a template's targets, and the agents that it names by path.

    Paths are strings among the arguments of tools and middleware that name a file, or would leave
    the folder.
    """
    reaches = [Reach("variable", name, "${...}") for name in template.variables]
    spec = template.spec
    for location, model in _models_with_location(template):
        reaches += _model_reaches(model, location)
    parts: list[tuple[str, list[ToolSpec], list[MiddlewareSpec]]] = [
        ("spec", spec.tools, spec.middleware)
    ]
    parts += [
        (f"spec.subagents.{n}", list(subagent.tools or ()), subagent.middleware)
        for n, subagent in enumerate(spec.subagents)
    ]
    for location, tools, middleware in parts:
        for index, tool in enumerate(tools):
            if tool.mcp is not None:
                reaches += _server_reaches(template, tool.mcp, f"{location}.tools.{index}.mcp")
            if tool.agent is not None and not is_path(tool.agent):
                reaches.append(Reach("agent", tool.agent, f"{location}.tools.{index}.agent"))
        reaches += [
            Reach("middleware", middleware_spec.use, f"{location}.middleware.{n}")
            for n, middleware_spec in enumerate(middleware)
        ]
    if spec.workflow is not None:
        reaches.append(Reach("workflow", spec.workflow, "spec.workflow"))
    if spec.memory is not None:
        reaches.append(Reach("memory", spec.memory, "spec.memory"))
    if spec.runtime.pipeline is not None:  # an order may leave a layer of the application out
        reaches.append(Reach("setting", "pipeline", "spec.runtime.pipeline"))
    response = spec.response_format
    if response is not None and _is_slow_to_check(response.schema_):
        reaches.append(
            Reach("setting", "patterns in response_format", "spec.response_format.schema")
        )
    if _is_slow_to_check(
        template.inputs
    ):  # an untrusted expression may take a minute for 30 characters
        reaches.append(Reach("setting", "patterns in inputs", "inputs"))
    if spec.runtime.cost.unknown_price == "allow":
        reaches.append(Reach("setting", "unknown_price: allow", "spec.runtime.cost.unknown_price"))
    reaches += path_reaches(
        template, {**dict.fromkeys(template.used_inputs(), ""), **_default_inputs(template)}
    )
    for name, nested_template in template.agents.items():
        reaches += [
            nested_reach._replace(place=f"{name}: {nested_reach.place}")
            for nested_reach in reaches_of(nested_template)
        ]
    return reaches


def path_reaches(template: AgentTemplate, values: Mapping[str, Any]) -> list[Reach]:
    """Return the paths among a template's arguments and inputs, with these inputs."""
    reaches: list[Reach] = []
    properties = template.inputs.get("properties", {})
    for name, schema in properties.items():
        value = values.get(name)
        if schema.get("format") == "path" and isinstance(value, str | Path) and str(value):
            reaches.append(Reach("path", str(value), f"inputs.{name}"))
    for location, arguments in _arguments_with_location(template):
        try:
            rendered = render_value(arguments, values)
        except KeyError:  # an input without a value: the call is refused for it
            continue
        # The first keys are names of parameters; those below are the template's own words, as
        # values are.
        texts = strings_in(rendered) + [
            key for value in rendered.values() for key in _nested_keys(value)
        ]
        reaches += [Reach("path", text, location) for text in texts if is_path_like(text)]
    return reaches


def _nested_keys(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [
            *map(str, value),
            *(key for nested_value in value.values() for key in _nested_keys(nested_value)),
        ]
    return (
        [key for element in value for key in _nested_keys(element)]
        if isinstance(value, list)
        else []
    )


def is_path_like(text: str) -> bool:
    """Return whether a text names a file.

    Absolute, in a home, upwards, `file:`, or an existing one.
    """
    if text.lower().startswith("file:"):
        return True
    if _ADDRESS.match(text):
        return False
    path = Path(text)
    if path.is_absolute() or text.startswith("~") or ".." in path.parts:
        return True
    try:
        return bool(text) and path.exists()
    except (OSError, ValueError):  # a name that is too long, a null byte
        return False


_SLOW_KEYWORDS = frozenset(
    {
        "pattern",
        "patternProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$ref",
        "$dynamicRef",
    }
)
"""Keywords of JSON Schema whose check may take a minute: expressions, and unfolding schemas."""


def _is_slow_to_check(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        return bool(_SLOW_KEYWORDS & schema.keys()) or any(
            _is_slow_to_check(subschema) for subschema in schema.values()
        )
    return isinstance(schema, list) and any(_is_slow_to_check(subschema) for subschema in schema)


def _default_inputs(template: AgentTemplate) -> dict[str, Any]:
    """Return the inputs' defaults; paths are meant from the template's folder."""
    folder = Path.cwd() if template.folder is None else template.folder
    defaults: dict[str, Any] = {}
    for name, schema in template.inputs.get("properties", {}).items():
        if "default" in schema:
            value = schema["default"]
            is_relative_path = (
                schema.get("format") == "path"
                and isinstance(value, str)
                and not value.startswith("~")
            )
            defaults[name] = str(folder / value) if is_relative_path else value
    return defaults


def _models_with_location(template: AgentTemplate) -> Iterator[tuple[str, ModelSpec]]:
    spec = template.spec
    if spec.model is not None:
        yield "spec.model", spec.model
    for number, subagent in enumerate(spec.subagents):
        if subagent.model is not None:
            yield f"spec.subagents.{number}.model", subagent.model


def _model_reaches(model: ModelSpec, location: str) -> Iterator[Reach]:
    if model.base_url is not None:
        yield Reach("address", model.base_url, f"{location}.base_url")
        if model.api_key is None:  # its client takes the account's own key from the environment
            yield Reach(
                "account",
                f"{model.id.partition(':')[0]} at {model.base_url}",
                f"{location}.base_url",
            )
    if model.api_key is not None:
        yield _secret_reach(model.api_key, f"{location}.api_key")
    if model.limits != AtOnceLimits():  # of the whole account, for every agent of the process
        yield Reach("setting", "limits of a model", f"{location}.limits")
    for name in model.params.extra:
        yield Reach("parameter", name, f"{location}.params.extra.{name}")


def _server_reaches(template: AgentTemplate, server: McpSpec, location: str) -> Iterator[Reach]:
    if server.command is not None:
        yield Reach("command", shlex.join([server.command, *server.args]), f"{location}.command")
    if server.url is not None:
        yield Reach("address", server.url, f"{location}.url")
    if server.cwd is not None:
        folder = Path.cwd() if template.folder is None else template.folder
        # Not in the template's own folder: programs take modules and settings from where they are
        # started.
        yield Reach("working folder", str(folder / Path(server.cwd)), f"{location}.cwd")
    for kind, values in (("env", server.env), ("headers", server.headers)):
        for name, value in values.items():
            if isinstance(value, SecretRef):
                yield _secret_reach(value, f"{location}.{kind}.{name}")
            if kind == "env":  # PYTHONPATH and its like make another program of an allowed one
                yield Reach("environment", name, f"{location}.{kind}.{name}")


def _secret_reach(ref: SecretRef, location: str) -> Reach:
    if ref.from_env is not None:
        return Reach("variable", ref.from_env, location)
    return Reach("secret file", ref.from_file or "", location)


def _arguments_with_location(template: AgentTemplate) -> Iterator[tuple[str, Any]]:
    spec = template.spec
    for index, tool in enumerate(spec.tools):
        yield f"spec.tools.{index}.args", tool.args
    for index, middleware_spec in enumerate(spec.middleware):
        yield f"spec.middleware.{index}", dict(middleware_spec.model_extra or {})
    for number, subagent in enumerate(spec.subagents):
        for index, tool in enumerate(subagent.tools or ()):
            yield f"spec.subagents.{number}.tools.{index}.args", tool.args
        for index, middleware_spec in enumerate(subagent.middleware):
            yield (
                f"spec.subagents.{number}.middleware.{index}",
                dict(middleware_spec.model_extra or {}),
            )
