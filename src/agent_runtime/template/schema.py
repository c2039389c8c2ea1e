"""The published JSON Schema."""

from __future__ import annotations

import json
from typing import Any

from agent_runtime.template.spec import AgentTemplate

PATCH_SUFFIX = "Patch"
"""Suffix of the definitions that a template with parents is checked against."""
SCHEMA_FILE = "agent-template.v1.schema.json"


def template_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a template file, from the models that check it."""
    schema = AgentTemplate.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = {**schema.pop("$defs"), "AgentTemplate": schema}
    # The loader handles these before the models.
    schema["patternProperties"] = {"^x-": {}}
    patches = {
        f"{name}{PATCH_SUFFIX}": _patch(definition) for name, definition in definitions.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_FILE,
        "title": "agent_runtime AgentTemplate v1",
        "type": "object",
        "if": {"anyOf": [{"required": ["extends"]}, {"required": ["include"]}]},
        "then": {"$ref": f"#/$defs/AgentTemplate{PATCH_SUFFIX}"},
        "else": {"$ref": "#/$defs/AgentTemplate"},
        "$defs": {**definitions, **patches},
    }


def _patch(schema: Any) -> Any:
    """Relax a part that may come from a parent: no required keys, and lists may be changes."""
    if isinstance(schema, list):
        return [_patch(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    patch = {k: _patch(v) for k, v in schema.items() if k != "required"}
    if isinstance(name := schema.get("$ref"), str):
        patch["$ref"] = name + PATCH_SUFFIX
    if schema.get("type") != "array":
        return patch
    change = {"$append": patch, "$remove": {"type": "array"}}
    return {
        "anyOf": [patch, {"type": "object", "properties": change, "additionalProperties": False}]
    }


def template_schema_text() -> str:
    """Return the published schema's text."""
    return json.dumps(template_schema(), indent=2, ensure_ascii=False) + "\n"
