"""Good templates: inheritance, variables, files, inputs, digest, schema.

And properties of the reader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime import AgentTemplate, InputInvalid, TemplateError, load_template, parse_template
from agent_runtime.template import (
    SCHEMA_FILE,
    builtin_folder,
    builtin_templates,
    render_prompt,
    resolve_inputs,
    template_schema,
    template_schema_text,
)
from agent_runtime.template.document import to_python
from agent_runtime.template.duration import parse_duration_s
from agent_runtime.template.prompt import placeholders, render, render_value
from agent_runtime.template.yaml_reader import parse_scalar, read_yaml

BASE = """\
apiVersion: agent-runtime/v1
kind: AgentTemplate
metadata: {name: base, labels: {team: a, tier: b}}
spec:
  model: {id: "offline:", params: {temperature: 0.5}}
  tools: [csv_top, {use: csv_describe, args: {data: d}}]
  runtime: {limits: {tokens: 10, model_calls: 3}}
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_extends_merges_maps_and_replaces_lists(tmp_path: Path) -> None:
    child = (
        "extends: [base.yaml]\nmetadata: {name: child, labels: {tier: c}}\nspec: {tools: "
        "[csv_group]}\n"
    )
    template = load_template(write(tmp_path, child=child, base=BASE))
    assert template.metadata.name == "child"
    assert template.metadata.labels == {"team": "a", "tier": "c"}
    assert [t.use for t in template.spec.tools] == ["csv_group"]
    assert template.spec.runtime.limits.tokens == 10


def test_lists_can_be_appended_to_and_removed_from(tmp_path: Path) -> None:
    child = "extends: [base.yaml]\nspec: {tools: {$append: [csv_group], $remove: [csv_describe]}}\n"
    template = load_template(write(tmp_path, child=child, base=BASE))
    assert [t.use for t in template.spec.tools] == ["csv_top", "csv_group"]


def test_own_keys_win_over_includes_and_includes_over_parents(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        t="extends: [base.yaml]\ninclude: [policy.yaml]\nspec: {runtime: {limits: {tokens: 30}}}\n",
        base=BASE,
        policy="spec: {runtime: {limits: {tokens: 20, model_calls: 7}}}\n",
    )
    limits = load_template(path).spec.runtime.limits
    assert (limits.tokens, limits.model_calls) == (30, 7)


def test_variables_are_filled_in_and_plain_scalars_get_their_type(tmp_path: Path) -> None:
    text = BASE.replace("temperature: 0.5", "max_tokens: 1").replace(
        '"offline:"', '"${MODEL:-offline:}"'
    )
    text = text.replace("tokens: 10", "tokens: 10").replace(
        "name: base", 'name: "${NAME}", owner: "$${NAME} $5"'
    )
    text += "  x-note: ignored\n"
    template = load_template(write(tmp_path, t=text), environ={"NAME": "filled"})
    assert template.metadata.name == "filled"
    assert template.metadata.owner == "${NAME} $5"
    assert template.spec.model is not None
    assert template.spec.model.id == "offline:"
    block = BASE.replace(
        "  runtime: {limits: {tokens: 10, model_calls: 3}}\n",
        "  runtime:\n    limits:\n      tokens: ${N:-5}\n",
    )
    assert (
        load_template(write(tmp_path, t=block), environ={"N": "7"}).spec.runtime.limits.tokens == 7
    )
    assert load_template(write(tmp_path, t=block), environ={}).spec.runtime.limits.tokens == 5
    asked = block.replace(":-5", ":?set N to a number")
    with pytest.raises(TemplateError, match="N is not set: set N to a number"):
        load_template(write(tmp_path, t=asked), environ={})


def test_prompt_and_schema_files_are_part_of_the_digest(tmp_path: Path) -> None:
    text = BASE + "  system_prompt: {file: p.md}\n  response_format: {schema: s.json}\n"
    (tmp_path / "p.md").write_text("Hello ${NOT_A_VARIABLE}")
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"a": {"type": "string"}}}')
    path = write(tmp_path, t=text)
    first = load_template(path)
    assert first.spec.system_prompt == "Hello ${NOT_A_VARIABLE}"
    assert load_template(path).digest == first.digest
    (tmp_path / "p.md").write_text("Hi")
    second = load_template(path)
    assert second.digest != first.digest
    (tmp_path / "s.json").write_text('{"type": "object"}')
    assert load_template(path).digest != second.digest
    (tmp_path / "s.json").write_text("{not json")
    with pytest.raises(TemplateError, match="is not JSON"):
        load_template(path)


def test_the_digest_covers_nested_agents_and_not_the_place_of_the_file(tmp_path: Path) -> None:
    outer = BASE + ""
    outer = outer.replace(
        "[csv_top, {use: csv_describe, args: {data: d}}]", "[{agent: ./inner.yaml, as: helper}]"
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    digests = [
        load_template(write(tmp_path / f, outer=outer, inner=BASE)).digest for f in ("one", "two")
    ]
    assert digests[0] == digests[1]
    changed = load_template(
        write(tmp_path / "two", outer=outer, inner=BASE.replace("tokens: 10", "tokens: 11"))
    )
    assert changed.digest != digests[0]


def test_the_digest_holds_no_secret_and_does_not_change_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BASE.replace('{id: "offline:",', '{id: "openai:x", api_key: {from_env: DUMMY_KEY},')
    monkeypatch.setenv("DUMMY_KEY", "dummy-value-1")
    first = load_template(write(tmp_path, t=text))
    assert "dummy-value-1" not in first.model_dump_json()
    monkeypatch.setenv("DUMMY_KEY", "dummy-value-2")
    assert load_template(tmp_path / "t.yaml").digest == first.digest


def test_inputs_take_defaults_from_the_templates_folder_and_values_from_the_working_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        BASE
        + "inputs: {type: object, properties: {data: {type: string, format: path, default: d}, "
        "n: {type: integer}}}\n"
    )
    template = load_template(write(tmp_path, t=text))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert resolve_inputs(template, None) == {"data": str(tmp_path / "d")}
    assert resolve_inputs(template, {"data": "x", "n": 1}) == {
        "data": str(tmp_path / "work" / "x"),
        "n": 1,
    }
    with pytest.raises(InputInvalid, match='n: "one" is not of type '):
        resolve_inputs(template, {"n": "one"})


def test_an_input_without_default_must_be_given() -> None:
    text = BASE + "inputs: {type: object, properties: {who: {type: string}}}\n"
    template = parse_template(text)
    assert resolve_inputs(template, None) == {}
    used = parse_template(
        text.replace("  tools:", '  system_prompt: "Hi {{ inputs.who }}"\n  tools:')
    )
    with pytest.raises(InputInvalid, match="who: no value given"):
        resolve_inputs(used, None)
    assert (
        render_prompt(used, resolve_inputs(used, {"who": "{{ inputs.who }}"}))
        == "Hi {{ inputs.who }}"
    )


def test_rendering_is_plain_substitution() -> None:
    assert (
        render("{{inputs.a}} and {{ inputs.b }}", {"a": "x", "b": [1, True]}) == "x and [1, true]"
    )
    assert render_value({"n": "{{ inputs.n }}", "l": ["{{ inputs.n }}!"]}, {"n": 5}) == {
        "n": 5,
        "l": ["5!"],
    }
    assert placeholders("no braces")[0] == set()


def test_durations() -> None:
    assert [parse_duration_s(d) for d in ("500ms", "20s", "1.5m", "2h", "30d")] == [
        0.5,
        20,
        90,
        7200,
        2592000,
    ]
    for wrong in ("20", "s", "-1s", "1 s", "0s", 20, None, "1e3s"):
        with pytest.raises(ValueError, match="unit"):
            parse_duration_s(wrong)


def test_yaml_12_core_scalars() -> None:
    known = {
        "null": None, "~": None, "": None, "true": True, "False": False, "yes": "yes", "on": "on",
        "no": "no",
        "12": 12, "-3": -3, "+4": 4, "010": 10, "0o10": 8, "0x1F": 31, "1.5": 1.5, ".5": 0.5,
        "1e3": 1000.0,
        "1:30": "1:30", "1_000": "1_000", "2026-01-01": "2026-01-01", ".inf": float("inf"),
        "-.inf": float("-inf"),
    }  # fmt: skip
    for text, value in known.items():
        assert parse_scalar(text) == value
        assert type(parse_scalar(text)) is type(value)


PRINTABLE = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cn", "Zl", "Zp"], exclude_characters="\ufeff"
    )
)
JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | PRINTABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PRINTABLE, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_what_yaml_writes_the_reader_reads(value: Any) -> None:
    # JSON is YAML 1.2: quoted strings, numbers and words mean the same in both.
    assert to_python(read_yaml(json.dumps(value, ensure_ascii=False).encode(), "t")) == value


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused_with_a_place(data: bytes) -> None:
    try:
        parse_template(
            data.decode("utf-8", "surrogateescape")
            .encode("utf-8", "surrogatepass")
            .decode("utf-8", "replace")
        )
    except TemplateError as error:
        assert all(p.line >= 1 and p.column >= 1 for p in error.problems)
    try:
        read_yaml(data, "t")
    except TemplateError as error:
        assert error.problems


@given(st.text(max_size=80))
@settings(deadline=None)
def test_a_prompt_is_kept_or_refused_never_changed(text: str) -> None:
    names, wrong = placeholders(text)
    if not names and not wrong:
        assert render(text, {}) == text


def test_the_published_schema_is_in_sync_and_accepts_the_shipped_templates() -> None:
    assert (builtin_folder() / SCHEMA_FILE).read_text("utf-8") == template_schema_text()
    jsonschema.Draft202012Validator.check_schema(template_schema())
    for path in builtin_templates().values():
        text = path.read_text("utf-8")
        assert text.startswith(f"# yaml-language-server: $schema=./{SCHEMA_FILE}\n")
        jsonschema.validate(yaml.safe_load(text), template_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"apiVersion": "agent-runtime/v1", "modle": 1}, template_schema())


def test_the_published_schema_lets_a_child_leave_out_and_change_what_its_parent_has() -> None:
    child = {
        "extends": ["base.yaml"],
        "metadata": {"version": "2.0.0"},
        "spec": {
            "model": {"params": {"temperature": 0}},
            "tools": {"$append": ["csv_group"], "$remove": ["csv_top"]},
        },
    }
    jsonschema.validate(child, template_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({k: v for k, v in child.items() if k != "extends"}, template_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**child, "spec": {"tools": {"$apend": []}}}, template_schema())


def test_a_template_can_be_made_in_python() -> None:
    template = AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "p"},
            "spec": {"model": "offline:", "runtime": {"timeout": {"run": "20s"}}},
        }
    )
    assert template.spec.runtime.timeout.run == 20
    assert len(template.digest) == 64
