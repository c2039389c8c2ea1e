"""Checks of the JSON Schemas that a template carries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
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


@cache
def inputs_validator() -> Any:
    """Return the validator of callers' values: its `uniqueItems` takes time in proportion to the value.

    That of jsonschema compares each item with each other one: 3,000 objects took 30 s, on the event loop.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def unique_items(validator: Any, wanted: Any, items: Any, schema: Any) -> Iterator[Any]:
        if not wanted or not validator.is_type(items, "array"):
            return
        seen: set[str] = set()
        for number, item in enumerate(items):
            text = json.dumps(_comparable(item), sort_keys=True, default=str)
            if text in seen:
                yield ValidationError(f"item {number} is there twice: items are unique")
                return
            seen.add(text)

    return extend(Draft202012Validator, {"uniqueItems": unique_items})  # type: ignore[no-untyped-call]


def _comparable(value: Any) -> Any:
    """Return a value whose JSON is the same for what JSON Schema takes for equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return {name: _comparable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def outside_refs(value: Any) -> list[str]:
    """Return the references of a schema that point out of it; a validator would have to fetch them."""
    if isinstance(value, list):
        return [each for item in value for each in outside_refs(item)]
    if not isinstance(value, dict):
        return []
    own = [str(value[name]) for name in ("$ref", "$dynamicRef") if name in value]
    inside = [each for item in value.values() for each in outside_refs(item)]
    return [each for each in own if not each.startswith("#")] + inside


def has_refs(value: Any) -> bool:
    """Whether a schema points anywhere; a validator would go and fetch it."""
    if isinstance(value, dict):
        return "$ref" in value or "$dynamicRef" in value or any(has_refs(v) for v in value.values())
    return isinstance(value, list) and any(has_refs(v) for v in value)
