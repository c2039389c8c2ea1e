"""JSON Schemas that a template carries.

Checked when it is read, and compiled for the values that they are for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from agent_runtime.size_limits import size_limit

PATTERN_BYTES = size_limit("pattern_bytes")
"""Memory of one compiled pattern; a larger one is refused when the template is read."""
MAX_MESSAGE = 300
MAX_PARTS_FOR_ALL_FAULTS = 200
"""Most parts of a value for which all faults are reported."""
MAX_COMBINATIONS = 200
"""Combinations of a schema's branches that are searched for contradictions.

14 to the fifth took 2.8 s and 756 MB.
"""
MAX_CHOICES = 500
"""Values of its `enum`s together: 3,000 under a `not` took 3.5 s."""
_BRANCH_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf"})
_DOUBLING_KEYWORDS = frozenset({"dependentSchemas", "patternProperties"})
_TWO_BRANCH_KEYWORDS = frozenset({"not", "if", "contains", "propertyNames"})
_UNSEARCHED_KEYWORDS = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_PATTERN_KEYWORDS = frozenset({"pattern", "patternProperties"})


class Fault(NamedTuple):
    """Locate a fault in a value by its path, and describe it."""

    instance_path: tuple[str | int, ...]
    message: str


class SchemaCheck:
    """Compile a JSON Schema (draft 2020-12).

    Patterns are matched in linear time, so they have neither look-around nor back-references;
    references outside of the schema are not followed. Raises ValueError for an invalid schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema_rs import Draft202012Validator

        self._validator = Draft202012Validator(to_plain_json(schema), **_options())

    def faults(self, value: Any) -> Iterator[Fault]:
        """Yield the faults of a value: all of a small one, the first of a large one.

        All faults are collected before the first is yielded: half a million wrong items took 9.5 s
        and 842 MB.
        """
        from jsonschema_rs import ValidationError

        try:
            plain = to_plain_json(value)
        except ValueError as error:
            yield Fault((), str(error))
            return
        if self._validator.is_valid(
            plain
        ):  # faults of nested `anyOf` are collected in exponential time
            return
        if _is_small(plain, MAX_PARTS_FOR_ALL_FAULTS):
            for fault in self._validator.iter_errors(plain):
                yield Fault(tuple(fault.instance_path), _shorten(fault.message))
            return
        try:
            self._validator.validate(plain)
        except ValidationError as fault:
            yield Fault(tuple(fault.instance_path), _shorten(fault.message))


def _is_small(value: Any, max_parts: int) -> bool:
    pending = [value]
    for _ in range(max_parts):
        if not pending:
            return True
        part = pending.pop()
        if isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list):
            pending += part
        if len(pending) > max_parts:
            return False
    return not pending


def _shorten(message: str) -> str:
    """Shorten the value in a message: the rule is at the end."""
    if len(message) <= MAX_MESSAGE:
        return message
    return f"{message[: MAX_MESSAGE // 3]} ... {message[-2 * MAX_MESSAGE // 3 :]}"


def to_plain_json(value: Any) -> Any:
    """Return a copy of `value` made of JSON's own types.

    Subclasses as their bases, tuples as lists.

    Raises ValueError for anything else: other types, keys that are not text, NaN, half of a
    surrogate pair, cycles.
    """
    try:
        return _to_json_value(value)
    except RecursionError:
        raise ValueError("a value that is nested too deep, or contains itself") from None


def _to_json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start} is half of a surrogate pair") from None
        return text
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number in JSON")
        return float(value)
    if isinstance(value, Mapping):
        return {_checked_key(name): _to_json_value(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(element) for element in value]
    raise ValueError(f"a {type(value).__name__} is not a JSON value")


def _checked_key(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is a key, but not text")
    text: str = _to_json_value(name)
    return text


@cache
def _options() -> dict[str, Any]:
    from jsonschema_rs import RegexOptions

    patterns = RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)
    return {"pattern_options": patterns, "offline": True}


def schema_problems(schema: dict[str, Any], path: str) -> list[tuple[str, str]]:
    """Return the problems of a JSON Schema of type object, including contradictions, with paths."""
    from jsonschema_rs import Draft202012Validator, ReferencingError, ValidationError

    if schema.get("type", "object") != "object":
        return [(path, f"{path} must be a JSON Schema of type object")]
    try:
        Draft202012Validator(to_plain_json(schema), **_options())
    except ValidationError as error:
        return [_schema_fault(error, path)]
    except (ValueError, ReferencingError) as error:
        return [(path, f"not a valid JSON Schema: {error}")]
    if not all(isinstance(p, dict) for p in schema.get("properties", {}).values()):
        return [(f"{path}.properties", "each property is a map such as {type: string}")]
    return [*_contradictions(schema, path), *_default_problems(schema, path)]


def undeclared_required(schema: dict[str, Any]) -> list[str]:
    """Return the names that are required and not declared: no value of a caller can have them."""
    required = schema.get("required", [])
    return [name for name in required if name not in schema.get("properties", {})]


def _schema_fault(error: Any, path: str) -> tuple[str, str]:
    schema_path = ".".join([path, *map(str, error.instance_path)])
    if _PATTERN_KEYWORDS & {*map(str, error.instance_path)}:
        pattern = error.instance if isinstance(error.instance, str) else error.instance_path[-1]
        return schema_path, (
            f"'{pattern}' is no pattern that can be matched in linear time: look-around and "
            "back-references are not "
            "supported"
        )
    return schema_path, f"not a valid JSON Schema: {error.message}"


def _contradictions(schema: dict[str, Any], path: str) -> list[tuple[str, str]]:
    """Return the parts of a schema that no value can satisfy, except `false` itself."""
    from jsonschema_rs.canonical import UnsatisfiableReason, find_unsatisfiable

    combinations, choices = _search_size(schema)
    if combinations > MAX_COMBINATIONS or choices > MAX_CHOICES:
        return []
    unsatisfiable = find_unsatisfiable(to_plain_json(schema), **_options())
    pointers = [
        pointer
        for pointer, reason in unsatisfiable.items()
        if not isinstance(reason, UnsatisfiableReason.Literal)
    ]
    innermost = [
        candidate
        for candidate in pointers
        if not any(other.startswith(f"{candidate}/") for other in pointers)
    ]
    return [
        (path + pointer.replace("/", "."), "it contradicts itself: no value can meet it")
        for pointer in innermost
    ]


def _search_size(value: Any) -> tuple[int, int]:
    """Return how many combinations of branches and how many choices a schema has."""
    combinations = 1
    choices = 0
    pending = [value]
    while pending and combinations <= MAX_COMBINATIONS:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        if not isinstance(part, dict):
            continue
        pending += part.values()
        for name, inner in part.items():
            size = len(inner) if isinstance(inner, list | dict) else 0
            if name in _BRANCH_KEYWORDS:
                combinations *= max(1, size)
            elif name in _DOUBLING_KEYWORDS:
                combinations *= 2 ** min(size, 10)
            elif name in _TWO_BRANCH_KEYWORDS:
                combinations *= 2
            elif name in _UNSEARCHED_KEYWORDS:
                combinations = MAX_COMBINATIONS + 1
            elif name == "enum":
                choices += size
    return combinations, choices


def _default_problems(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the defaults of properties that do not fit their own schema."""
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    for name, property_schema in properties.items() if isinstance(properties, dict) else ():
        property_path = f"{path}.properties.{name}"
        if (
            isinstance(property_schema, dict)
            and "default" in property_schema
            and not has_refs(property_schema)
        ):
            for fault in SchemaCheck(property_schema).faults(property_schema["default"]):
                yield f"{property_path}.default", f"it does not fit its own schema: {fault.message}"
        yield from _default_problems(property_schema, property_path)


def external_refs(value: Any) -> list[str]:
    """Return a schema's external references, which a validator would have to fetch."""
    if isinstance(value, list):
        return [reference for item in value for reference in external_refs(item)]
    if not isinstance(value, dict):
        return []
    direct_refs = [str(value[name]) for name in ("$ref", "$dynamicRef") if name in value]
    nested_refs = [reference for item in value.values() for reference in external_refs(item)]
    return [reference for reference in direct_refs if not reference.startswith("#")] + nested_refs


def has_refs(value: Any) -> bool:
    """Return whether a schema has references, which a validator would fetch."""
    if isinstance(value, dict):
        return "$ref" in value or "$dynamicRef" in value or any(has_refs(v) for v in value.values())
    return isinstance(value, list) and any(has_refs(v) for v in value)
