"""What a template reaches beyond its own text.

Programs, addresses, variables, secrets, files, middleware.
"""

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

Kind: TypeAlias = Literal[
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
    """One thing that a template reaches, and where the template says so."""

    kind: Kind
    value: str
    place: str


def reach_of(template: AgentTemplate) -> list[Reach]:
    """Return a template's targets, and the agents that it names by path.

    Paths are strings among the arguments of tools and middleware that name a file, or would leave
    the folder.
    """
    reached = [Reach("variable", name, "${...}") for name in template.variables]
    spec = template.spec
    for place, model in _models(template):
        reached += _of_model(model, place)
    parts: list[tuple[str, list[ToolSpec], list[MiddlewareSpec]]] = [
        ("spec", spec.tools, spec.middleware)
    ]
    parts += [
        (f"spec.subagents.{n}", list(each.tools or ()), each.middleware)
        for n, each in enumerate(spec.subagents)
    ]
    for place, tools, middleware in parts:
        for index, tool in enumerate(tools):
            if tool.mcp is not None:
                reached += _of_server(template, tool.mcp, f"{place}.tools.{index}.mcp")
            if tool.agent is not None and not is_path(tool.agent):
                reached.append(Reach("agent", tool.agent, f"{place}.tools.{index}.agent"))
        reached += [
            Reach("middleware", each.use, f"{place}.middleware.{n}")
            for n, each in enumerate(middleware)
        ]
    if spec.workflow is not None:
        reached.append(Reach("workflow", spec.workflow, "spec.workflow"))
    if spec.memory is not None:
        reached.append(Reach("memory", spec.memory, "spec.memory"))
    if spec.runtime.pipeline is not None:  # an order may leave a layer of the application out
        reached.append(Reach("setting", "pipeline", "spec.runtime.pipeline"))
    response = spec.response_format
    if response is not None and _is_costly(response.schema_):
        reached.append(
            Reach("setting", "patterns in response_format", "spec.response_format.schema")
        )
    if _is_costly(
        template.inputs
    ):  # an expression of somebody else's may take a minute for 30 characters
        reached.append(Reach("setting", "patterns in inputs", "inputs"))
    if spec.runtime.cost.unknown_price == "allow":
        reached.append(Reach("setting", "unknown_price: allow", "spec.runtime.cost.unknown_price"))
    reached += paths_of(
        template, {**dict.fromkeys(template.used_inputs(), ""), **_defaults(template)}
    )
    for name, inner in template.agents.items():
        reached += [each._replace(place=f"{name}: {each.place}") for each in reach_of(inner)]
    return reached


def paths_of(template: AgentTemplate, values: Mapping[str, Any]) -> list[Reach]:
    """Return the paths among a template's arguments and inputs, with these inputs."""
    reached: list[Reach] = []
    properties = template.inputs.get("properties", {})
    for name, schema in properties.items():
        value = values.get(name)
        if schema.get("format") == "path" and isinstance(value, str | Path) and str(value):
            reached.append(Reach("path", str(value), f"inputs.{name}"))
    for place, arguments in _arguments(template):
        try:
            rendered = render_value(arguments, values)
        except KeyError:  # an input without a value: the call is refused for it
            continue
        # The first keys are names of parameters; those below are the template's own words, as
        # values are.
        texts = strings_in(rendered) + [
            key for value in rendered.values() for key in _keys_in(value)
        ]
        reached += [Reach("path", text, place) for text in texts if is_path_like(text)]
    return reached


def _keys_in(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [*map(str, value), *(key for each in value.values() for key in _keys_in(each))]
    return [key for each in value for key in _keys_in(each)] if isinstance(value, list) else []


def is_path_like(text: str) -> bool:
    """Tell whether a text names a file.

    Absolute, of a home, upwards, a `file:` address, or one that is there.
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


_COSTLY = frozenset(
    {
        "pattern",
        "patternProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$ref",
        "$dynamicRef",
    }
)
"""Words of JSON Schema whose check may take a minute for a small value.

Expressions, and schemas that unfold.
"""


def _is_costly(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        return bool(_COSTLY & schema.keys()) or any(_is_costly(each) for each in schema.values())
    return isinstance(schema, list) and any(_is_costly(each) for each in schema)


def _defaults(template: AgentTemplate) -> dict[str, Any]:
    """Return the inputs' defaults; paths are meant from the template's folder."""
    folder = Path.cwd() if template.folder is None else template.folder
    defaults: dict[str, Any] = {}
    for name, schema in template.inputs.get("properties", {}).items():
        if "default" in schema:
            value = schema["default"]
            is_path = (
                schema.get("format") == "path"
                and isinstance(value, str)
                and not value.startswith("~")
            )
            defaults[name] = str(folder / value) if is_path else value
    return defaults


def _models(template: AgentTemplate) -> Iterator[tuple[str, ModelSpec]]:
    spec = template.spec
    if spec.model is not None:
        yield "spec.model", spec.model
    for number, each in enumerate(spec.subagents):
        if each.model is not None:
            yield f"spec.subagents.{number}.model", each.model


def _of_model(model: ModelSpec, place: str) -> Iterator[Reach]:
    if model.base_url is not None:
        yield Reach("address", model.base_url, f"{place}.base_url")
        if model.api_key is None:  # its client takes the account's own key from the environment
            yield Reach(
                "account", f"{model.id.partition(':')[0]} at {model.base_url}", f"{place}.base_url"
            )
    if model.api_key is not None:
        yield _of_secret(model.api_key, f"{place}.api_key")
    if model.limits != AtOnceLimits():  # of the whole account, for every agent of the process
        yield Reach("setting", "limits of a model", f"{place}.limits")
    for name in model.params.extra:
        yield Reach("parameter", name, f"{place}.params.extra.{name}")


def _of_server(template: AgentTemplate, server: McpSpec, place: str) -> Iterator[Reach]:
    if server.command is not None:
        yield Reach("command", shlex.join([server.command, *server.args]), f"{place}.command")
    if server.url is not None:
        yield Reach("address", server.url, f"{place}.url")
    if server.cwd is not None:
        folder = Path.cwd() if template.folder is None else template.folder
        # Not in the template's own folder: programs take modules and settings from where they are
        # started.
        yield Reach("working folder", str(folder / Path(server.cwd)), f"{place}.cwd")
    for kind, values in (("env", server.env), ("headers", server.headers)):
        for name, value in values.items():
            if isinstance(value, SecretRef):
                yield _of_secret(value, f"{place}.{kind}.{name}")
            if kind == "env":  # PYTHONPATH and its like make another program of an allowed one
                yield Reach("environment", name, f"{place}.{kind}.{name}")


def _of_secret(ref: SecretRef, place: str) -> Reach:
    if ref.from_env is not None:
        return Reach("variable", ref.from_env, place)
    return Reach("secret file", ref.from_file or "", place)


def _arguments(template: AgentTemplate) -> Iterator[tuple[str, Any]]:
    spec = template.spec
    for index, tool in enumerate(spec.tools):
        yield f"spec.tools.{index}.args", tool.args
    for index, each in enumerate(spec.middleware):
        yield f"spec.middleware.{index}", dict(each.model_extra or {})
    for number, inner in enumerate(spec.subagents):
        for index, tool in enumerate(inner.tools or ()):
            yield f"spec.subagents.{number}.tools.{index}.args", tool.args
        for index, each in enumerate(inner.middleware):
            yield f"spec.subagents.{number}.middleware.{index}", dict(each.model_extra or {})
