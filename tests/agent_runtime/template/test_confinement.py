"""A confined template reaches what the application lists, in every place where a template can name
something."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import AgentFactory, ConfigurationError, TemplateError, load_template
from agent_runtime.cli.main import cli
from agent_runtime.cli.state import settings
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.template import builtin_templates
from agent_runtime.template.confinement import Confinement
from agent_runtime.template.reach import Reach, reaches_of
from agent_runtime.testing import ScriptedChatModel, say

HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"


def write(folder: Path, body: str, name: str = "t.yaml") -> Path:
    path = folder / name
    path.write_text(HEAD + textwrap.dedent(body))
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the template's, with a document."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.md").write_text("# TOP SECRET\n\nThe treasure is under the tree.\n")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template's folder."""
    folder = tmp_path / "templates"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "own.md").write_text("# Own\n\nThe warranty of lamps is two years.\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COMPANY_CRM_PW", "dummy-value-of-a-variable")
    monkeypatch.setenv("OPENAI_API_KEY", "dummy-key-of-the-application")
    return folder


# Each says what it reaches, and the Confinement that allows just that.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a program": (
        "spec: {model: m, tools: [{mcp: {command: /bin/sh, args: [-c, 'touch STARTED; exit 1']}}]}",
        {"commands": ["/bin/sh -c 'touch STARTED; exit 1'"]},
    ),
    "a program of a sub-agent": (
        (
            "spec: {model: m, subagents: [{name: s, description: d, system_prompt: p,"
            " tools: [{mcp: {command: /bin/sh, args: [-c, 'touch STARTED; exit 1']}}]}]}"
        ),
        {"commands": ["/bin/sh -c 'touch STARTED; exit 1'"]},
    ),
    "an address of tools": (
        "spec: {model: m, tools: [{mcp: {url: 'http://127.0.0.1:9/mcp'}}]}",
        {"addresses": ["http://127.0.0.1:9/"]},
    ),
    "middleware that reads files": (
        "spec: {model: m, middleware: [{use: file_search, root_path: OUTSIDE}]}",
        {"middleware": ["file_search"], "roots": ["OUTSIDE"]},
    ),
    "a tool's argument": (
        "spec: {model: m, tools: [{use: document_search, args: {docs: OUTSIDE}}]}",
        {"roots": ["OUTSIDE"]},
    ),
    "a tool's argument from below": (
        "spec: {model: m, tools: [{use: document_search, args: {docs: ../outside}}]}",
        {"roots": ["OUTSIDE"]},
    ),
    "a tool's argument from the working folder": (
        "spec: {model: m, tools: [{use: document_search, args: {docs: docs/../../outside}}]}",
        {"roots": ["OUTSIDE"]},
    ),
    "an input's default": (
        (
            "inputs: {properties: {docs: {type: string, format: path, default: ../outside}}}\n"
            "spec: {model: m, tools: [{use: document_search, args: {docs: '{{ inputs.docs }}'}}]}"
        ),
        {"roots": ["OUTSIDE"]},
    ),
    "an address of a model, with the application's key": (
        "spec: {model: {id: 'openai:x', base_url: 'http://127.0.0.1:9/v1'}}",
        {"addresses": ["http://127.0.0.1:9/v1"], "accounts": ["openai at http://127.0.0.1:9/v1"]},
    ),
    "a variable as a key": (
        "spec: {model: {id: 'openai:x', api_key: {from_env: COMPANY_CRM_PW}}}",
        {"variables": ["COMPANY_CRM_PW"]},
    ),
    "a variable as text": (
        (
            "spec: {model: m, tools: [{use: document_search, args: {docs: "
            "'docs-of-${COMPANY_CRM_PW:-x}'}}]}"
        ),
        {"variables": ["COMPANY_CRM_PW"]},
    ),
    "a file as a key": (
        "spec: {model: {id: 'openai:x', api_key: {from_file: OUTSIDE/secret.md}}}",
        {"secret_files": ["OUTSIDE/secret.md"]},
    ),
    "a parameter of a client": (
        "spec: {model: {id: 'openai:x', params: {extra: {openai_proxy: 'http://127.0.0.1:9'}}}}",
        {"parameters": ["openai_proxy"]},
    ),
    "a program's environment": (
        "spec: {model: m, tools: [{mcp: {command: /bin/true, env: {PYTHONPATH: '.'}}}]}",
        {"commands": ["/bin/true"], "environment": ["PYTHONPATH"]},
    ),
    "a long path": (
        "spec: {model: m, tools: [{use: csv_top, args: {data: 'SLASHES/etc'}}]}",
        {"roots": ["/etc"]},
    ),
    "a path over a line's end": (
        'spec: {model: m, tools: [{use: csv_top, args: {data: "OUTSIDE/\\n/.."}}]}',
        {"roots": ["OUTSIDE"]},
    ),
    "a path like an address": (
        "spec: {model: m, tools: [{use: csv_top, args: {data: 'OUTSIDE/a://..'}}]}",
        {"roots": ["OUTSIDE"]},
    ),
    "a registered agent": ("spec: {model: m, tools: [{agent: writer}]}", {"agents": ["writer"]}),
    "a workflow": ("spec: {workflow: w}", {"workflows": ["w"]}),
    "a memory": ("spec: {model: m, memory: x}", {"memories": ["x"]}),
    "an order of layers": (
        "spec: {model: m, runtime: {pipeline: [retry]}}",
        {"settings": ["pipeline"]},
    ),
    "an expression": (
        (
            "inputs: {properties: {a: {type: string, pattern: '^(a+)+$', default: aa}}}\nspec: "
            "{model: m}"
        ),
        {"settings": ["patterns in inputs"]},
    ),
    "a budget's rule": (
        "spec: {model: m, runtime: {cost: {unknown_price: allow}}}",
        {"settings": ["unknown_price: allow"]},
    ),
}


def factory_of(templates: Any) -> AgentFactory:
    factory = AgentFactory(templates=templates)
    factory.register_model("m", ScriptedChatModel(script=lambda _: say("fine")))
    return factory


def filled(value: Any, outside: Path) -> Any:
    """Put the folder into a case."""
    if isinstance(value, dict):
        return {
            name: [each.replace("OUTSIDE", str(outside)) for each in values]
            for name, values in value.items()
        }
    return value.replace("OUTSIDE", str(outside)).replace("SLASHES", "/" * 4100)


@pytest.mark.parametrize("case", CASES)
def test_a_confined_template_reaches_nothing_that_is_not_listed(
    case: str, home: Path, outside: Path
) -> None:
    body, lists = CASES[case]
    path = write(home, filled(body, outside))
    for way in ("create", "check"):
        with pytest.raises(TemplateError) as refused:
            if way == "create":
                factory_of("confined").create_from_template(path)
            else:
                factory_of("confined").check_template(load_template(path))
        assert {problem.code for problem in refused.value.problems} == {"not_confined"}
    assert not (Path.cwd() / "STARTED").exists()  # nothing ran before it was refused
    confinement = Confinement(**filled(lists, outside))
    assert confinement.problems(load_template(path)) == []
    for name in lists:  # and each list is needed
        less = Confinement(
            **{other: values for other, values in filled(lists, outside).items() if other != name}
        )
        assert less.problems(load_template(path))


@pytest.mark.parametrize("case", CASES)
def test_a_template_s_own_agents_are_confined_with_it(case: str, home: Path, outside: Path) -> None:
    body, _ = CASES[case]
    write(home, filled(body, outside), "inner.yaml")
    path = write(home, "spec: {model: m, tools: [{agent: inner.yaml}]}")
    with pytest.raises(TemplateError, match="confined"):
        factory_of("confined").create_from_template(path)


def test_a_value_of_a_caller_is_held_to_the_folders_too(home: Path, outside: Path) -> None:
    body = (
        "inputs: {properties: {docs: {type: string, format: path, default: docs}}}\n"
        "spec: {model: m, tools: [{use: document_search, args: {docs: '{{ inputs.docs }}'}}]}"
    )
    path = write(home, body)
    factory = factory_of("confined")
    assert factory.create_from_template(path).execute_sync("x").output == "fine"
    for value in (str(outside), "docs/../../outside", "../outside", f"{home}/../outside"):
        with pytest.raises(TemplateError, match="confined"):
            factory.create_from_template(path, {"docs": value})


@pytest.mark.parametrize("args", ["{docs: x, more: {OUT: a}}", "{docs: x, more: [{a: {OUT: b}}]}"])
def test_a_path_among_the_keys_of_a_map_is_a_path(home: Path, outside: Path, args: str) -> None:
    path = write(
        home,
        "spec: {model: m, tools: [{use: document_search, args: "
        f"{args.replace('OUT', str(outside))}}}]}}",
    )
    with pytest.raises(TemplateError, match=f"confined.*{outside.name}"):
        factory_of("confined").create_from_template(path)


def test_a_link_out_of_the_folder_is_a_path_out_of_it(home: Path, outside: Path) -> None:
    (home / "docs" / "link").symlink_to(outside)
    path = write(
        home,
        f"spec: {{model: m, tools: [{{use: document_search, args: {{docs: {home}/docs/link}}}}]}}",
    )
    with pytest.raises(TemplateError, match="confined"):
        factory_of("confined").create_from_template(path)


@pytest.mark.parametrize(
    ("allowed", "address", "covers"),
    [
        ("https://x.org/", "https://x.org/v1", True),
        ("https://x.org/v1/", "https://x.org/v1", True),
        ("https://x.org/v1", "https://x.org/v1/more", False),
        ("https://x.org/", "https://x.org.evil.com/v1", False),
        ("https://x.org/", "https://x.org@evil.com/v1", False),
        ("https://x.org/", "http://x.org/v1", False),
        ("https://x.org/v1/", "https://x.org/v1/../admin", False),
        ("https://x.org/v1/", "https://x.org/v1/%2e%2e/admin", False),
        ("https://x.org:443/", "https://x.org:8443/", False),
    ],
)
def test_an_address_is_compared_by_its_parts(
    home: Path, allowed: str, address: str, covers: bool
) -> None:
    path = write(home, f"spec: {{model: m, tools: [{{mcp: {{url: '{address}'}}}}]}}")
    assert (Confinement(addresses=[allowed]).problems(load_template(path)) == []) == covers


def test_a_trusted_template_says_what_it_reaches(home: Path, outside: Path) -> None:
    for case, (body, _) in CASES.items():
        path = write(home, filled(body, outside))
        assert reaches_of(load_template(path)), case
    harmless = write(
        home,
        "spec: {model: m, middleware: [{use: model_call_limit, run_limit: 2}], system_prompt: Hi}",
    )
    assert factory_of("confined").create_from_template(harmless).execute_sync("x").output == "fine"


def test_the_shipped_templates_are_confined() -> None:
    factory = AgentFactory(templates="confined")
    for name in ("analyst", "searcher", "writer"):
        factory.create_from_template(name)


@pytest.mark.parametrize(
    "body",
    [
        (
            "inputs: {properties: {x: {type: string, default: '${COMPANY_CRM_PW}'}}}\n"
            "spec: {model: m, system_prompt: 'Say {{ inputs.x }}'}"
        ),
        (
            "spec: {model: m, subagents: [{name: s, description: d, system_prompt: 'Say "
            "${COMPANY_CRM_PW}'}]}"
        ),
        (
            "spec: {model: m, subagents: [{name: s, description: 'Knows ${COMPANY_CRM_PW}', "
            "system_prompt: p}]}"
        ),
    ],
)
def test_a_variable_s_value_reaches_no_prompt(home: Path, body: str) -> None:
    with pytest.raises(TemplateError, match=r"no \$\{VAR\} in a prompt"):
        load_template(write(home, body))


def test_the_error_of_a_confined_template_quotes_no_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNAL_HOST", "db.corp-5432")
    path = write(home, "inputs: {properties: {a: {type: '${INTERNAL_HOST}'}}}\nspec: {model: m}")
    for way in (
        factory_of("confined").create_from_template,
        factory_of("confined").register_template,
    ):
        with pytest.raises(TemplateError) as refused:
            way(path)
        assert "db.corp" not in str(refused.value)


def test_the_folder_of_a_server_is_meant_from_the_template(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.parent)
    path = write(home, "spec: {model: m, tools: [{mcp: {command: /bin/true, cwd: docs}}]}")
    confinement = Confinement(commands=["/bin/true"], roots=[path.parent / "docs"])
    assert confinement.problems(load_template(path)) == []
    (problem,) = Confinement(commands=["/bin/true"]).problems(load_template(path))
    assert str(path.parent / "docs") in problem.message


def test_a_variable_s_value_is_masked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PLACE", "dummy-argument-of-a-program")
    load_template(
        write(
            home,
            "spec: {model: m, tools: [{mcp: {command: x, args: ['${SOME_PLACE}', "
            "'${COMPANY_CRM_PW}']}}]}",
        )
    )
    assert "dummy" not in SECRETS.text(f"{os.environ['SOME_PLACE']} {os.environ['COMPANY_CRM_PW']}")


def test_another_word_for_trust_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="trusted"):
        AgentFactory(templates="sandboxed")  # type: ignore[arg-type]


@given(st.text(st.sampled_from("./ab~"), max_size=12))
def test_no_spelling_of_a_path_leaves_the_folders(text: str) -> None:
    """Whatever is not refused is inside, as the operating system resolves it."""
    template = load_template(builtin_templates()["writer"])
    confinement = Confinement()
    folder = template.folder
    assert folder is not None
    if confinement.allows(Reach("path", text, ""), template):
        assert Path(os.path.realpath(Path(text).expanduser())).is_relative_to(
            os.path.realpath(folder)
        )


def test_the_commands_show_what_a_template_reaches(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, _ = CASES["a program"]
    path = str(write(home, body))
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(home / "state"))
    runner = CliRunner()
    for confined in (False, True):
        settings.cache_clear()
        monkeypatch.setenv("AGENT_RUNTIME_TEMPLATES", "confined" if confined else "trusted")
        validated = runner.invoke(
            cli, ["validate", *(["--confined"] if confined else []), path], standalone_mode=False
        )
        checked = runner.invoke(cli, ["doctor", "--template", path], standalone_mode=False)
        assert "touch STARTED" in checked.output
        assert ("FAIL" in checked.output) == confined
        assert ("reaches command /bin/sh" in validated.output) != confined
    settings.cache_clear()
