"""`agent-runtime validate`, `templates`, `schema` and `init`: everything about template files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.output import echo, echo_json
from agent_runtime.escapes import json_line

if TYPE_CHECKING:
    from agent_runtime.errors import Problem

EXIT_INVALID = 3
EXIT_NOT_FOUND = 4

_NEW_TEMPLATE = """\
# yaml-language-server: $schema=./agent-template.v1.schema.json
apiVersion: agent-runtime/v1
kind: AgentTemplate
metadata:
  name: {name}
  description: {description}
spec:
  model: {model}
  system_prompt: |
    {prompt}
{tools}  runtime:
    timeout: {{run: 5m, model_call: 90s}}
    limits: {{max_steps: 60, model_calls: 20, tool_calls: 40, tool_loop: 3}}
"""
_TOOL_SNIPPETS = {
    "none": "",
    "csv": "".join(
        f"    - {{use: {name}, args: {{data: FOLDER}}}}\n"
        for name in ("csv_describe", "csv_filter", "csv_aggregate", "csv_group", "csv_top")
    ),
    "documents": "    - {use: document_search, args: {docs: FOLDER}}\n",
}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@click.option("--confined", is_flag=True, help="Refuse access outside of the template's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as one JSON object.")
def validate(files: tuple[Path, ...], *, strict: bool, confined: bool, as_json: bool) -> int:
    """Check template FILES and show their effects; problems have line and column.

    Exits 3 when one is invalid.
    """
    from agent_runtime.secrets.redaction import SECRETS

    reports = [_validation_report(file, strict=strict, confined=confined) for file in files]
    if as_json:
        echo_json({"files": reports})
    else:
        for report in reports:
            for problem in report["problems"]:
                echo("{file}:{line}:{column}: {level}: {message}".format(**problem), err=True)
            if report["valid"]:
                echo(
                    f"{report['file']}: ok, {report['name']} {report['version']}, digest "
                    f"{report['digest'][:12]}"
                )
                for target in report["reaches"]:
                    echo(
                        SECRETS.text(
                            f"  reaches {target['kind']} {target['value']}  ({target['place']})"
                        )
                    )
    if any(report["missing"] for report in reports):
        return EXIT_NOT_FOUND
    return 0 if all(report["valid"] for report in reports) else EXIT_INVALID


def _validation_report(file: Path, *, strict: bool, confined: bool) -> dict[str, Any]:
    from agent_runtime.errors import Problem, TemplateError
    from agent_runtime.factory import AgentFactory
    from agent_runtime.secrets.redaction import SECRETS
    from agent_runtime.template import unused_inputs
    from agent_runtime.template.reach import reaches_of

    report: dict[str, Any] = {"file": str(file), "valid": False, "missing": False, "problems": []}
    try:
        factory = AgentFactory(templates="confined" if confined else "trusted")
        template = factory.get_template(file)  # unlisted variables of the environment are not read
        factory.check_template(template)
    except TemplateError as error:
        report["problems"] = [_problem_row(p, "error") for p in error.problems]
        return report
    except OSError as error:
        problem = Problem(f"cannot be read: {error.strerror}", file=str(file))
        return {**report, "missing": True, "problems": [_problem_row(problem, "error")]}
    level = "error" if strict else "warning"
    warnings = [_problem_row(Problem(w, file=str(file)), level) for w in unused_inputs(template)]
    valid = not (strict and warnings)
    reaches = [SECRETS.redact_json(target._asdict()) for target in reaches_of(template)]
    template_summary = {
        "name": template.metadata.name,
        "version": template.metadata.version,
        "digest": template.digest,
        "reaches": reaches,
    }
    return {**report, "valid": valid, "problems": warnings, **template_summary}


def _problem_row(problem: Problem, level: str) -> dict[str, Any]:
    fields = {
        name: getattr(problem, name)
        for name in ("code", "path", "file", "line", "column", "message")
    }
    return {
        "level": level,
        **fields,
        "message": f"{problem.path}: {problem.message}" if problem.path else problem.message,
    }


@click.group()
def templates() -> None:
    """List, show and create templates."""


@templates.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_templates(*, as_json: bool) -> None:
    """List the templates that come with the package."""
    from agent_runtime.template import builtin_templates, load_template

    loaded = [(load_template(path), path) for path in builtin_templates().values()]
    rows = [
        {
            "name": t.metadata.name,
            "version": t.metadata.version,
            "description": t.metadata.description,
            "file": str(p),
        }
        for t, p in loaded
    ]
    if as_json:
        echo_json({"templates": rows})
        return
    for row in rows:
        echo(f"{row['name']:10} {row['version']:8} {row['description']}")


@templates.command()
@click.argument("agent")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the resolved template as JSON, secrets by reference.",
)
def show(agent: str, *, as_json: bool) -> None:
    """Show AGENT (a registered name or a file): its text, or its resolved form."""
    from agent_runtime.factory import AgentFactory
    from agent_runtime.template import builtin_templates

    template = AgentFactory().get_template(agent)
    if as_json:
        resolved = template.model_dump(mode="json", by_alias=True, exclude_unset=True)
        echo_json({"digest": template.digest, "template": resolved}, indent=2)
        return
    echo(Path(builtin_templates().get(agent, agent)).read_text("utf-8"), nl=False)


@templates.command()
@click.argument("name")
@click.option(
    "--tools", type=click.Choice(sorted(_TOOL_SNIPPETS)), default="none", show_default=True
)
@click.option("--folder", default=".", show_default=True, help="Folder that the tools may read.")
def new(name: str, tools: str, folder: str) -> None:
    """Write NAME.yaml, a small template to start from."""
    _write_template(name, "", "auto", tools, folder)


@click.command()
@click.option("--name", prompt="Name", default="my-agent", show_default=True)
@click.option("--description", prompt="Its purpose", default="Answers questions.")
@click.option("--model", prompt="Model (auto takes the provider whose key is set)", default="auto")
@click.option("--tools", prompt="Tools", type=click.Choice(sorted(_TOOL_SNIPPETS)), default="none")
@click.option("--folder", default=".", help="Folder that the tools may read.")
def init(name: str, description: str, model: str, tools: str, folder: str) -> None:
    """Ask a few questions, then write a template that runs."""
    _write_template(name, description, model, tools, folder)


@click.command()
def schema() -> None:
    """Print the JSON Schema of templates."""
    from agent_runtime.template import template_schema_text

    echo(template_schema_text(), nl=False)


def _write_template(name: str, description: str, model: str, tools: str, folder: str) -> None:
    from agent_runtime.template import SCHEMA_FILE, parse_template, template_schema_text

    quoted_description = json_line(description or f"The agent {name}.")
    tools_text = _TOOL_SNIPPETS[tools].replace("FOLDER", json.dumps(str(Path(folder).resolve())))
    text = _NEW_TEMPLATE.format(
        name=json_line(name),
        description=quoted_description,
        model=json.dumps(model),
        prompt=(description or "Answer plainly. Say so when you do not know.")
        .replace("{{", "{ {")
        .replace("\n", " "),
        tools=f"  tools:\n{tools_text}" if tools_text else "",
    )
    parse_template(
        text, file=f"{name}.yaml"
    )  # before anything is written: a bad name is refused with its reason
    path = Path(f"{name}.yaml")
    if path.exists():
        raise click.UsageError(f"{path} exists already")
    path.write_text(text, "utf-8")
    if not Path(SCHEMA_FILE).exists():
        Path(SCHEMA_FILE).write_text(template_schema_text(), "utf-8")
    echo(f"wrote {path}", err=True)
    echo(f'agent-runtime run {path} "your question"')
