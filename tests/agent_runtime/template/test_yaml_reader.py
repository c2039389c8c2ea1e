"""Bad templates.

Each gives its typed error with its place, on the loader and on the command line, and runs nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_runtime import AgentFactory, InputInvalid, Problem, TemplateError, load_template
from agent_runtime.cli import cli
from agent_runtime.cli.exit_codes import exit_code
from agent_runtime.template import unused_inputs

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\n"


def whole(**parts: str) -> str:
    """A small valid template with parts replaced."""
    name = parts.get("name", "t")
    model = parts.get("model", "{id: 'offline:'}")
    rest = parts.get("rest", "")
    return (
        f"{HEAD}metadata: {{name: {name}}}\n{parts.get('top', '')}spec:\n  model: {model}\n{rest}"
    )


def params(text: str) -> str:
    return whole(model=f"{{id: 'offline:', params: {{{text}}}}}")


def prompt(text: str) -> str:
    inputs = (
        "inputs: {type: object, properties: {a: {type: string, default: x}, user: {type: "
        "string, default: y}}}\n"
    )
    return whole(top=inputs, rest=f"  system_prompt: '{text}'\n")


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
FAKE_KEY = "sk-" + "dummy0" * 5

ROWS: list[tuple[str, str | bytes, str, tuple[int, int] | str | None]] = [
    # id, file, what the message says, the place: line and column, or the text that stands there
    ("T-01", "", "the file is empty", (1, 1)),
    ("T-02", "a:\n\tb: 1", "tab", (2, 1)),
    (
        "T-03",
        whole(model="a").replace("  model: a\n", "  model: a\n  model: b\n"),
        "appears twice: lines 5 and 6",
        (6, 3),
    ),
    ("T-04", "x: !!python/object/apply:os.system ['true']", "tags are not allowed", (1, 4)),
    ("T-05", "x: !foo 1", "tags are not allowed", (1, 4)),
    ("T-06", "a: &x 1\nb: *x", "aliases are not allowed", (2, 4)),
    ("T-07", BOMB, "aliases are not allowed", (2, 10)),
    ("T-08", "&a [*a]", "anchors are not allowed", (1, 1)),
    ("T-09", "[" * 5000 + "]" * 5000, "deeper than 32", (1, 33)),
    ("T-10", "a: " + "x" * 1_000_000, "at most 262144", (1, 1)),
    ("T-11", b"a: 1\nb: '\xff'", "byte 0xff at offset 9", (2, 5)),
    ("T-12", b"\xef\xbb\xbfa: 1", "byte-order mark", (1, 1)),
    ("T-13", whole(rest="  modle: x\n"), "did you mean 'model'", "modle: x"),
    ("T-14", params("temperature: no"), "valid number", "no}"),
    ("T-15", params("temperature: .nan"), "finite", ".nan"),
    ("T-16", params("temperature: .inf"), "finite", ".inf"),
    ("T-17", params("temperature: -1"), "greater than or equal to 0", "-1"),
    ("T-18", params("max_tokens: 0"), "greater than or equal to 1", "0}"),
    ("T-19", params("max_tokens: -5"), "greater than or equal to 1", "-5"),
    ("T-20", params("max_tokens: 1e3"), "valid integer", "1e3"),
    ("T-21", whole(rest="  tools: [os.system]\n"), "unknown tool 'os.system'", "os.system"),
    (
        "T-22",
        whole(rest="  tools: [{ref: 'os:system'}]\n"),
        "unknown tool 'os:system'",
        "'os:system'",
    ),
    ("T-22b", whole(rest="  tool: 'pkg.mod:func'\n"), "did you mean 'tools'", "tool: 'pkg"),
    ("T-23", prompt("{{ inputs.user.__class__ }}"), "not a placeholder", "'{{"),
    ("T-24", prompt("{{ inputs.a[0] }}"), "not a placeholder", "'{{"),
    ("T-25", prompt("{{ 0 }}"), "not a placeholder", "'{{"),
    ("T-26", prompt("{{ inputs.a!r }}"), "not a placeholder", "'{{"),
    ("T-27", prompt("{{ inputs.a:>1000000000 }}"), "not a placeholder", "'{{"),
    ("T-27b", prompt("{{ inputs.a"), "without its", "'{{"),
    ("T-28", prompt("{{ inputs.other }}"), "used but not declared", "'{{"),
    (
        "T-31",
        whole(top="extends: [./missing.yaml]\n"),
        "there is no file 'missing.yaml'".replace("'m", "'./m"),
        "./missing",
    ),
    (
        "T-33",
        whole(top="include: [../../etc/passwd]\n"),
        "leaves the template's folder",
        "../../etc",
    ),
    ("T-34", whole(top="include: [/etc/passwd]\n"), "absolute path", "/etc/passwd"),
    (
        "T-36",
        params("temperature: ~, seed: 1").replace("'offline:'", '"${ENV_NOT_SET}"'),
        "ENV_NOT_SET is not set",
        '"${ENV',
    ),
    ("T-37", whole(model="{id: '${OOPS'}"), "without a name and its", "'${OOPS"),
    (
        "T-38",
        whole(rest="  runtime: {budget: {run_usd: '$5'}}\n"),
        "unknown key 'budget'",
        "budget:",
    ),
    ("T-39", whole(rest="  runtime: {limits: {tokens: -1}}\n"), "greater than or equal to 1", "-1"),
    ("T-40", whole(rest="  runtime: {limits: {tokens: 0}}\n"), "greater than or equal to 1", "0}"),
    ("T-41", params(f"stop: ['{FAKE_KEY}']"), "looks like a secret", "'sk-"),
    ("T-42", whole(name="a/b"), "a name has at most 64", "a/b"),
    ("T-43", whole(name="a..b"), "a name has at most 64", "a..b"),
    ("T-44", whole(name="a" * 300), "a name has at most 64", "aaa"),
    ("T-45", whole(name="cafe\u0301"), "a name has at most 64", "cafe"),
    ("T-46", whole(name="__proto__"), "a name has at most 64", "__proto__"),
    ("two documents", "a: 1\n---\nb: 2\n", "more than one YAML document", (2, 1)),
    ("complex key", "? [a]\n: 1\n", "a key must be a plain string", (1, 3)),
    ("not a map", "- a\n", "a template is a map", (1, 1)),
    ("no spec", HEAD + "metadata: {name: t}\n", "key 'spec' is required", (1, 1)),
    (
        "no model",
        HEAD + "metadata: {name: t}\nspec: {tools: []}\n",
        "give a model, or a workflow",
        "{tools",
    ),
    (
        "model and workflow",
        whole(rest="  workflow: w\n"),
        "has no meaning beside 'workflow'",
        "{id",
    ),
    (
        "two kinds of tool",
        whole(rest="  tools: [{use: a, agent: b}]\n"),
        "exactly one of use, ref, agent and mcp",
        "{use: a",
    ),
    (
        "as without agent",
        whole(rest="  tools: [{use: csv_top, as: b}]\n"),
        "'as' names an agent tool",
        "{use: csv",
    ),
    ("bad duration", whole(rest="  runtime: {timeout: {run: 20}}\n"), "with a unit", "20}"),
    ("zero duration", whole(rest="  runtime: {timeout: {run: 0s}}\n"), "above 0", "0s}"),
    (
        "unknown middleware",
        whole(rest="  middleware: [{use: pi}]\n"),
        "unknown middleware 'pi'",
        "pi}",
    ),
    (
        "unknown layer",
        whole(rest="  runtime: {pipeline: [guard]}\n"),
        "unknown layer 'guard'",
        "guard]",
    ),
    (
        "no rate",
        whole(rest="  runtime: {rate_limits: [60 a minute]}\n"),
        "should match pattern",
        "60 a",
    ),
    (
        "no slots",
        whole(rest="  runtime: {concurrency: {limits: [{calls: 0}]}}\n"),
        "greater than",
        "0}]",
    ),
    (
        "per nobody",
        whole(rest="  runtime: {concurrency: {limits: [{calls: 1, per: [nobody]}]}}\n"),
        "'user'",
        "nobody",
    ),
    (
        "unknown workflow",
        HEAD + "metadata: {name: t}\nspec: {workflow: w}\n",
        "unknown workflow 'w'",
        "w}",
    ),
    ("future key", whole(rest="  budget: {}\n"), "unknown key 'budget'", "budget"),
    ("literal api key", whole(model="{id: 'openai:x', api_key: plain}"), "api_key", "plain}"),
    (
        "two secret sources",
        whole(model="{id: 'openai:x', api_key: {}}"),
        "exactly one of from_env",
        "{}}",
    ),
    (
        "bad input schema",
        whole(top="inputs: {type: object, properties: {a: {type: 5}}}\n"),
        "not a valid JSON Schema",
        None,
    ),
    ("inputs not an object", whole(top="inputs: {type: string}\n"), "type object", "{type: string"),
    ("5,000 digits", params("seed: " + "9" * 5000), "valid integer", "999"),
    ("null byte", whole(top='extends: ["a\\0b"]\n'), "not a usable path", '"a'),
    (
        "odd property name",
        whole(top="inputs: {type: object, properties: {\u00b2: {type: 5}}}\n"),
        "not a valid JSON Schema",
        None,
    ),
    (
        "boolean property",
        whole(top="inputs: {type: object, properties: {a: true}}\n"),
        "each property is a map",
        None,
    ),
    (
        "remote $ref",
        whole(top="inputs: {properties: {a: {$ref: 'http://127.0.0.1:9/'}}}\n"),
        "'$ref' is not",
        None,
    ),
    (
        "bad response schema",
        whole(rest="  response_format: {schema: {type: banana}}\n"),
        "of type object",
        None,
    ),
    ("wrong api version", whole().replace("/v1", "/v9"), "agent-runtime/v1", "agent-runtime/v9"),
    ("version not a string", whole(name="t, version: 1.0"), "valid string", "1.0"),
]

WATCHED = ("import", "exec", "compile", "os.system", "subprocess.Popen", "open")
_seen: list[tuple[str, str]] | None = None


def _hook(event: str, args: Any) -> None:
    if _seen is not None and event in WATCHED:
        _seen.append((event, str(args[0]) if args else ""))


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Every import, exec, spawn and open while the block runs."""
    global _seen  # noqa: PLW0603 - an audit hook cannot be removed, only told to be quiet
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None


def problems(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(TemplateError) as failed:
        AgentFactory().check_template(load_template(path))
    return failed.value.problems


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what loading needs before anything is watched."""
    path = tmp_path_factory.mktemp("warm") / "warm.yaml"
    for text in (
        prompt("{{ inputs.a }}") + "  modle: x\n",
        prompt("{{ 0 }}"),
        prompt("{{ inputs.user.x }}"),
    ):
        path.write_text(text)
        problems(path)


@pytest.mark.parametrize(("row", "content", "message", "place"), ROWS, ids=[r[0] for r in ROWS])
def test_a_bad_template_gives_its_error_at_its_place(
    row: str,
    content: str | bytes,
    message: str,
    place: tuple[int, int] | str | None,
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with watched() as events:
        found = problems(path)
    assert time.process_time() - started < 2  # a bound against blow-ups, not a timing
    hit = [p for p in found if message in str(p)]
    assert hit, [str(p) for p in found]
    if isinstance(place, str):
        text = content if isinstance(content, str) else ""
        assert text.split("\n", hit[0].line - 1)[-1][hit[0].column - 1 :].startswith(place)
    elif place is not None:
        assert (hit[0].line, hit[0].column) == place
    assert FAKE_KEY not in "".join(map(str, found))
    outside = [e for e in events if e[0] != "open" or not e[1].startswith(str(tmp_path))]
    assert outside == [], outside
    code = {"T-21": "unknown_tool", "T-22": "unknown_tool", "T-41": "secret_in_template"}.get(
        row, "template_invalid"
    )
    assert hit[0].code == code

    shown = CliRunner().invoke(cli, ["validate", str(path)], standalone_mode=False)
    assert shown.return_value == 3
    assert message in shown.stderr
    assert "Traceback" not in shown.output + shown.stderr
    assert FAKE_KEY not in shown.output + shown.stderr


def test_all_problems_of_a_file_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        whole(
            name="a/b",
            model="{id: '${NOT_SET_1}', params: {temperature: 7}}",
            rest="  modle: x\n  tols: []\n",
        )
    )
    messages = " | ".join(str(p) for p in problems(path))
    for word in ("a name has", "NOT_SET_1", "less than or equal to 2", "modle", "tols"):
        assert word in messages


def test_yaml_12_words_stay_strings(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(whole(name="no, owner: on, labels: {a: yes, b: 'off'}"))
    metadata = load_template(path).metadata
    assert (metadata.name, metadata.owner, metadata.labels) == (
        "no",
        "on",
        {"a": "yes", "b": "off"},
    )


def test_an_unused_input_is_a_warning_and_json_in_a_prompt_is_text(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(prompt('say {"a": 1} or {x} for $5 and ${HOME} {{ inputs.a }}'))
    template = load_template(path)
    assert template.spec.system_prompt == 'say {"a": 1} or {x} for $5 and ${HOME} {{ inputs.a }}'
    assert [w.split()[1] for w in unused_inputs(template)] == ["'user'"]
    assert CliRunner().invoke(cli, ["validate", str(path)], standalone_mode=False).return_value == 0
    assert (
        CliRunner()
        .invoke(cli, ["validate", "--strict", str(path)], standalone_mode=False)
        .return_value
        == 3
    )


def test_a_cycle_of_extends_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(whole(top="extends: [b.yaml]\n"))
    (tmp_path / "b.yaml").write_text("extends: [a.yaml]\n")
    assert "a.yaml -> b.yaml -> a.yaml" in str(problems(tmp_path / "a.yaml")[0])


def test_a_chain_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"t{i}.yaml").write_text(
            f"extends: [t{i + 1}.yaml]\n" if i else whole(top="extends: [t1.yaml]\n")
        )
    (tmp_path / "t9.yaml").write_text("x-end: 1\n")
    assert "deeper than 8" in str(problems(tmp_path / "t0.yaml")[0])


def test_a_link_that_leaves_the_folder_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "outside.yaml"
    secret.write_text("canary: 1\n")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.yaml").symlink_to(secret)
    (folder / "t.yaml").write_text(whole(top="include: [link.yaml]\n"))
    with watched() as events:
        found = problems(folder / "t.yaml")
    assert "leaves the template's folder" in str(found[0])
    assert "canary" not in str(found)
    assert not [e for e in events if Path(e[1]).name in ("outside.yaml", "link.yaml")]


def test_agents_that_call_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.yaml").write_text(
            whole(name=one, rest=f"  tools: [{{agent: ./{other}.yaml}}]\n")
        )
    assert "a.yaml -> b.yaml -> a.yaml" in str(problems(tmp_path / "a.yaml")[0])


def test_a_problem_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("spec:\n  runtime:\n    limits: {tokens: 0}\n")
    (tmp_path / "t.yaml").write_text(whole(top="include: [policy.yaml]\n"))
    problem = problems(tmp_path / "t.yaml")[0]
    assert (Path(problem.file).name, problem.line) == ("policy.yaml", 3)


@pytest.mark.parametrize(
    ("inputs", "path"),
    [({"nope": 1}, "nope"), ({"a": 5}, "a")],
)
def test_wrong_input_values_name_the_input(
    inputs: dict[str, Any], path: str, tmp_path: Path
) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(prompt("{{ inputs.a }}"))
    with pytest.raises(InputInvalid) as failed:
        AgentFactory().create_from_template(file, inputs)
    assert failed.value.path == path
    assert exit_code(failed.value) == 2
