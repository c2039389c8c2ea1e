"""Checks of the JSON Schemas that a template carries."""

from __future__ import annotations

from typing import Any


def schema_problems(schema: dict[str, Any], at: str) -> list[tuple[str, str]]:
    """What is wrong with a JSON Schema of type object."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if schema.get("type", "object") != "object":
        return [(at, f"{at} must be a JSON Schema of type object")]
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return [(".".join([at, *map(str, error.absolute_path)]), f"not a valid JSON Schema: {error.message}")]
    if not all(isinstance(p, dict) for p in schema.get("properties", {}).values()):
        return [(f"{at}.properties", "each property is a map such as {type: string}")]
    return []


def has_refs(value: Any) -> bool:
    """Whether a schema points anywhere; a validator would go and fetch it."""
    if isinstance(value, dict):
        return "$ref" in value or "$dynamicRef" in value or any(has_refs(v) for v in value.values())
    return isinstance(value, list) and any(has_refs(v) for v in value)
