"""The values of a template's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_runtime.errors import InputInvalid, close_matches
from agent_runtime.template.json_schema import SchemaCheck
from agent_runtime.template.prompt import render
from agent_runtime.template.skills import with_skills
from agent_runtime.template.spec import AgentTemplate


def resolve_inputs(template: AgentTemplate, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `inputs` with the template's defaults, checked against its schema.

    A property with `format: path` becomes an absolute path: a default is relative to the template's
    folder, a value to the working directory. Raises InputInvalid naming the input.
    """
    if not template.inputs and not inputs:
        return {}
    properties: dict[str, Any] = template.inputs.get("properties", {})
    values = dict(inputs or {})
    if unknown := sorted(set(values) - set(properties)):
        raise InputInvalid(f"unknown input: {close_matches(unknown[0], properties)}", unknown[0])
    for name, schema in properties.items():
        uses_default = name not in values
        if uses_default and "default" in schema:
            values[name] = schema["default"]
        if schema.get("format") == "path" and isinstance(values.get(name), str | Path):
            folder = template.folder if uses_default and template.folder is not None else Path.cwd()
            values[name] = str((folder / Path(values[name]).expanduser()).resolve())
    _check_values(template, values)
    missing = template.used_inputs() - set(values)
    if missing:
        raise InputInvalid("no value given, and it has no default", min(missing))
    return values


def _check_values(template: AgentTemplate, values: dict[str, Any]) -> None:
    if not template.inputs:
        return
    for fault in SchemaCheck(template.inputs).faults(values):
        raise InputInvalid(fault.message, ".".join(map(str, fault.instance_path)) or "inputs")


def render_prompt(template: AgentTemplate, inputs: Mapping[str, Any]) -> str | None:
    """Return the system prompt with its inputs filled in, or None without a prompt."""
    prompt = template.spec.system_prompt
    return with_skills(render(prompt, inputs), template.skills) if isinstance(prompt, str) else None
