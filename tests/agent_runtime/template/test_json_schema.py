"""JSON Schemas of templates: matched in linear time, and refused when they contradict
themselves."""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.support.loop_watchdog import MAX_STALL_S, Watchdog

from agent_runtime import AgentTemplate, InputInvalid, TemplateError, parse_template
from agent_runtime.template.inputs import resolve_inputs
from agent_runtime.template.json_schema import SchemaCheck, schema_problems, to_plain_json

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"


def template_of(schema: dict[str, Any]) -> AgentTemplate:
    parts = {"apiVersion": "agent-runtime/v1", "kind": "AgentTemplate", "metadata": {"name": "t"}}
    return AgentTemplate.model_validate({**parts, "spec": {"model": "m"}, "inputs": schema})


async def test_an_expression_that_takes_for_ever_elsewhere_is_matched_at_once() -> None:
    template = template_of({"properties": {"n": {"type": "string", "pattern": "^(a+)+$"}}})
    watchdog = Watchdog()
    async with watchdog.watch():
        with pytest.raises(InputInvalid, match="does not match"):
            resolve_inputs(template, {"n": "a" * 30 + "!"})
        with pytest.raises(InputInvalid, match="does not match"):
            resolve_inputs(template, {"n": "a" * 1_000_000 + "!"})
        assert resolve_inputs(template, {"n": "a" * 30}) == {"n": "a" * 30}
    assert watchdog.longest_s < MAX_STALL_S


@pytest.mark.parametrize("word", ["pattern", "patternProperties"])
@pytest.mark.parametrize("pattern", ["(?=.*[0-9]).{8,}", r"(a)\1", "(?<!a)b", "("])
def test_an_expression_that_cannot_be_matched_in_linear_time_is_refused(
    word: str, pattern: str
) -> None:
    value = pattern if word == "pattern" else {pattern: {"type": "string"}}
    ((place, message),) = schema_problems({"properties": {"n": {word: value}}}, "inputs")
    assert (place.startswith("inputs.properties.n."), "linear time" in message) == (True, True)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "integer", "default": "many"}, "inputs.properties.n.default"),
        ({"type": "string", "enum": ["a"], "default": "b"}, "inputs.properties.n.default"),
        (
            {"type": "object", "properties": {"x": {"type": "integer", "default": "y"}}},
            "n.properties.x.default",
        ),
        ({"enum": []}, "inputs.properties.n"),
        ({"type": "string", "enum": [1, 2]}, "inputs.properties.n"),
        ({"type": "string", "const": 1}, "inputs.properties.n"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "inputs.properties.n"),
        ({"type": "integer", "exclusiveMinimum": 3, "maximum": 3}, "inputs.properties.n"),
        ({"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 4}, "inputs.properties.n"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "inputs.properties.n"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "inputs.properties.n"),
        (
            {"type": "array", "items": {"type": "string", "minLength": 5, "maxLength": 2}},
            "inputs.properties.n.items",
        ),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "inputs.properties.n"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused_at_its_place(
    schema: dict[str, Any], place: str
) -> None:
    with pytest.raises(TemplateError, match=place):
        parse_template(
            f"{HEAD}inputs: {{properties: {{n: {schema!r}}}}}\nspec: {{model: m}}\n".replace(
                "False", "no"
            )
        )


def test_an_input_that_is_required_and_not_declared_is_refused() -> None:
    with pytest.raises(TemplateError, match="'z' is required"):
        parse_template(
            f"{HEAD}inputs: {{properties: {{a: {{}}}}, required: [a, z]}}\nspec: {{model: m}}\n"
        )


def test_what_says_false_says_so_on_purpose() -> None:
    assert (
        schema_problems(
            {"properties": {"a": {"type": "object", "additionalProperties": False}}}, "inputs"
        )
        == []
    )


def test_a_schema_of_many_combinations_is_not_searched_for_ever() -> None:
    parts = [
        {"anyOf": [{"properties": {f"x{n}{k}": {"type": "string"}}} for k in range(6)]}
        for n in range(12)
    ]
    assert schema_problems({"allOf": parts}, "inputs") == []


def test_the_faults_of_nested_alternatives_are_not_collected_where_there_are_none() -> None:
    parts: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, 40):
        parts[f"d{n}"] = {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}, {"$ref": f"#/$defs/d{n - 1}"}]}
    assert list(SchemaCheck({"$defs": parts, "$ref": "#/$defs/d39"}).faults("a")) == []


class Colour(str, enum.Enum):  # noqa: UP042 - the older form is what callers have
    RED = "red"


class Name(str):
    __slots__ = ()


class Number(int):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Name("x"), "x"),
        (Number(3), 3),
        ((1, 2), [1, 2]),
        (OrderedDict(a=Name("x")), {"a": "x"}),
        ({Name("a"): True}, {"a": True}),
    ],
)
def test_subclasses_are_what_they_extend(value: Any, plain: Any) -> None:
    assert to_plain_json(value) == plain
    assert type(to_plain_json(value)) is type(plain)


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [{1}, b"x", float("nan"), float("inf"), "\ud800", {1: 2}, {"\ud800": 1}, object(), circle()],
)
def test_what_is_no_json_is_a_fault_and_no_crash(value: Any) -> None:
    (fault,) = SchemaCheck({}).faults(value)
    assert fault.message
    with pytest.raises(InputInvalid, match="n"):
        resolve_inputs(template_of({"properties": {"n": {}}}), {"n": value})


@pytest.mark.parametrize(
    "items", [{"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}]
)
async def test_a_value_with_very_many_faults_is_refused_at_once(items: dict[str, Any]) -> None:
    template = template_of({"properties": {"tags": {"type": "array", "items": items}}})
    watchdog = Watchdog()
    async with watchdog.watch():
        with pytest.raises(InputInvalid, match=r"tags\.0"):
            resolve_inputs(template, {"tags": list(range(100_000))})
    assert watchdog.longest_s < MAX_STALL_S
    assert len(list(SchemaCheck({"items": items}).faults([1, 2, 3]))) == 3


LARGE_SCHEMAS: dict[str, Any] = {
    "products": {
        f"p{n}": {"anyOf": [{"properties": {f"x{k}": {}}} for k in range(14)]} for n in range(5)
    },
    "dependencies": {
        "a": {"dependentSchemas": {f"x{n}": {"required": [f"y{n}"]} for n in range(24)}}
    },
    "choices": {"a": {"not": {"enum": list(range(3000))}, "enum": list(range(3000))}},
    "patterns": {"a": {"patternProperties": {f"^{n}": {"minimum": n} for n in range(20)}}},
}


@pytest.mark.parametrize("properties", LARGE_SCHEMAS.values(), ids=list(LARGE_SCHEMAS))
def test_what_would_unfold_is_not_searched(
    properties: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Any] = []

    def search(schema: Any, **_: Any) -> dict[str, Any]:
        searched.append(schema)
        return {}

    monkeypatch.setattr("jsonschema_rs.canonical.find_unsatisfiable", search)
    assert schema_problems({"properties": properties}, "inputs") == []
    assert searched == []
    assert schema_problems({"properties": {"a": {"enum": [1, 2]}}}, "inputs") == []
    assert len(searched) == 1


def test_a_fault_of_a_long_value_is_a_short_message() -> None:
    (fault,) = SchemaCheck({"type": "integer"}).faults("x" * 100_000)
    assert len(fault.message) < 400
    assert fault.message.endswith('is not of type "integer"')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=5,
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "array", "object", "boolean",
            "null"]),
            "minimum": st.integers(-2, 2), "maxLength": st.integers(0, 2),
            "pattern": st.sampled_from(["^a", "b$"]),
            "enum": st.lists(VALUES, min_size=1, max_size=2), "uniqueItems": st.booleans(),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "items": inner, "additionalProperties": inner, "not": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        },
    ),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, VALUES)
def test_a_value_fits_exactly_where_jsonschema_says_so(schema: dict[str, Any], value: Any) -> None:
    faults = list(SchemaCheck(schema).faults(value))
    assert (not faults) == Draft202012Validator(schema).is_valid(value)


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, VALUES)
def test_a_schema_that_is_said_to_contradict_itself_fits_nothing(
    schema: dict[str, Any], value: Any
) -> None:
    problems = dict(schema_problems({"properties": {"n": schema}}, "inputs"))
    if "inputs.properties.n" in problems:
        assert not Draft202012Validator(schema).is_valid(value)
