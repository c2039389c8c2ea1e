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
MAX_ALL_FAULTS = 200
"""Parts of a value that has all its faults told."""
MAX_COMBINATIONS = 200
"""Combinations of a schema's branches that are searched for contradictions.

14 to the fifth took 2.8 s and 756 MB.
"""
MAX_CHOICES = 500
"""Values of its `enum`s together: 3,000 under a `not` took 3.5 s."""
_BRANCHES = frozenset({"allOf", "anyOf", "oneOf"})
_DOUBLING = frozenset({"dependentSchemas", "patternProperties"})
_TWO = frozenset({"not", "if", "contains", "propertyNames"})
_UNSEARCHED = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_PATTERNS = frozenset({"pattern", "patternProperties"})


class Fault(NamedTuple):
    """What is wrong at one place of a value: the steps to it, and a sentence."""

    place: tuple[str | int, ...]
    message: str


class SchemaCheck:
    """A compiled JSON Schema (draft 2020-12).

    Patterns are matched in linear time, so they have neither look-around nor back-references;
    references to anywhere outside of the schema are not followed. Raises ValueError for what is no
    schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema_rs import Draft202012Validator

        self._validator = Draft202012Validator(plain_json(schema), **_options())

    def faults(self, value: Any) -> Iterator[Fault]:
        """Yield what does not fit: all of it for a small value, the first fault of a large one.

        All faults are collected before the first is given: half a million wrong items took 9.5 s
        and 842 MB.
        """
        from jsonschema_rs import ValidationError

        try:
            plain = plain_json(value)
        except ValueError as error:
            yield Fault((), str(error))
            return
        if self._validator.is_valid(
            plain
        ):  # faults of nested `anyOf` are collected in exponential time
            return
        if _is_small(plain, MAX_ALL_FAULTS):
            for fault in self._validator.iter_errors(plain):
                yield Fault(tuple(fault.instance_path), _shortened(fault.message))
            return
        try:
            self._validator.validate(plain)
        except ValidationError as fault:
            yield Fault(tuple(fault.instance_path), _shortened(fault.message))


def _is_small(value: Any, parts: int) -> bool:
    waiting = [value]
    for _ in range(parts):
        if not waiting:
            return True
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        if len(waiting) > parts:
            return False
    return not waiting


def _shortened(message: str) -> str:
    """Return a message with its value shortened: the rule stands at the end."""
    if len(message) <= MAX_MESSAGE:
        return message
    return f"{message[: MAX_MESSAGE // 3]} ... {message[-2 * MAX_MESSAGE // 3 :]}"


def plain_json(value: Any) -> Any:
    """Return a copy of `value` made of JSON's own types.

    Subclasses as what they extend, a tuple as a list.

    Raises ValueError for what is no JSON: other types, keys that are no text, NaN, half of a
    surrogate pair, circles.
    """
    try:
        return _plain(value)
    except RecursionError:
        raise ValueError("a value that is nested too deep, or contains itself") from None


def _plain(value: Any) -> Any:
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
            raise ValueError(f"{value} is no number in JSON")
        return float(value)
    if isinstance(value, Mapping):
        return {_key(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    raise ValueError(f"a {type(value).__name__} is no value of JSON")


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is the name of a value, and no text")
    text: str = _plain(name)
    return text


@cache
def _options() -> dict[str, Any]:
    from jsonschema_rs import RegexOptions

    patterns = RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)
    return {"pattern_options": patterns, "offline": True}


def schema_problems(schema: dict[str, Any], at: str) -> list[tuple[str, str]]:
    """Return what is wrong with a JSON Schema of type object, as places and sentences.

    Contradictions too.
    """
    from jsonschema_rs import Draft202012Validator, ReferencingError, ValidationError

    if schema.get("type", "object") != "object":
        return [(at, f"{at} must be a JSON Schema of type object")]
    try:
        Draft202012Validator(plain_json(schema), **_options())
    except ValidationError as error:
        return [_schema_fault(error, at)]
    except (ValueError, ReferencingError) as error:
        return [(at, f"not a valid JSON Schema: {error}")]
    if not all(isinstance(p, dict) for p in schema.get("properties", {}).values()):
        return [(f"{at}.properties", "each property is a map such as {type: string}")]
    return [*_contradictions(schema, at), *_wrong_defaults(schema, at)]


def undeclared(schema: dict[str, Any]) -> list[str]:
    """Return the names that are required and not declared: no value of a caller can have them."""
    required = schema.get("required", [])
    return [name for name in required if name not in schema.get("properties", {})]


def _schema_fault(error: Any, at: str) -> tuple[str, str]:
    place = ".".join([at, *map(str, error.instance_path)])
    if _PATTERNS & {*map(str, error.instance_path)}:
        pattern = error.instance if isinstance(error.instance, str) else error.instance_path[-1]
        return place, (
            f"'{pattern}' is no pattern that can be matched in linear time: look-around and "
            "back-references are not "
            "supported"
        )
    return place, f"not a valid JSON Schema: {error.message}"


def _contradictions(schema: dict[str, Any], at: str) -> list[tuple[str, str]]:
    """Return the parts of a schema that no value can meet, but those that say `false`."""
    from jsonschema_rs.canonical import UnsatisfiableReason, find_unsatisfiable

    combinations, choices = _search_size(schema)
    if combinations > MAX_COMBINATIONS or choices > MAX_CHOICES:
        return []
    empty = find_unsatisfiable(plain_json(schema), **_options())
    places = [
        pointer
        for pointer, reason in empty.items()
        if not isinstance(reason, UnsatisfiableReason.Literal)
    ]
    inner = [each for each in places if not any(other.startswith(f"{each}/") for other in places)]
    return [
        (at + pointer.replace("/", "."), "it contradicts itself: no value can meet it")
        for pointer in inner
    ]


def _search_size(value: Any) -> tuple[int, int]:
    """Return how many combinations of branches and how many choices a schema has."""
    combinations = 1
    choices = 0
    waiting = [value]
    while waiting and combinations <= MAX_COMBINATIONS:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        waiting += part.values()
        for name, inner in part.items():
            size = len(inner) if isinstance(inner, list | dict) else 0
            if name in _BRANCHES:
                combinations *= max(1, size)
            elif name in _DOUBLING:
                combinations *= 2 ** min(size, 10)
            elif name in _TWO:
                combinations *= 2
            elif name in _UNSEARCHED:
                combinations = MAX_COMBINATIONS + 1
            elif name == "enum":
                choices += size
    return combinations, choices


def _wrong_defaults(schema: Any, at: str) -> Iterator[tuple[str, str]]:
    """Yield the defaults of properties that do not fit their own schema."""
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    for name, each in properties.items() if isinstance(properties, dict) else ():
        place = f"{at}.properties.{name}"
        if isinstance(each, dict) and "default" in each and not has_refs(each):
            for fault in SchemaCheck(each).faults(each["default"]):
                yield f"{place}.default", f"it does not fit its own schema: {fault.message}"
        yield from _wrong_defaults(each, place)


def outside_refs(value: Any) -> list[str]:
    """Return a schema's external references, which a validator would have to fetch."""
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
