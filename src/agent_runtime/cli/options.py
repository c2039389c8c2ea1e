"""Options and helpers that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor

F = TypeVar("F", bound=Callable[..., Any])


def agent_options(command: F) -> F:
    """`AGENT` and what says how it is built."""
    decorators = (
        click.argument("agent", shell_complete=_complete_agent),
        click.option("--model", metavar="PROVIDER:NAME", help="Use this model instead of the template's."),
        click.option("--input", "inputs", metavar="NAME=VALUE", multiple=True, help="A template input; repeatable."),
        click.option("--timeout", metavar="DURATION", help="Time limit of a call: 30s, 5m, or seconds."),
        click.option("-q", "--quiet", is_flag=True, help="No notes on stderr."),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _complete_agent(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from agent_runtime.template.shipped import shipped_templates

    names = [CompletionItem(name) for name in shipped_templates() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def build_agent(
    factory: AgentFactory, agent: str, model: str | None, inputs: tuple[str, ...], timeout: str | None, *, quiet: bool
) -> AgentExecutor:
    """The executor that the options describe; raises what the factory raises."""
    overrides: dict[str, Any] = {}
    if model is not None:
        overrides["model"] = model
    if timeout is not None:
        overrides["runtime"] = {"timeout": {"run": _seconds(timeout)}}
    template = factory.get_template(agent)
    if not quiet:
        _note_model(model or (template.spec.model.id if template.spec.model else ""))
    return factory.create_from_template(template, _values(template.inputs.get("properties", {}), inputs), **overrides)


def _seconds(text: str) -> float:
    from agent_runtime.template.spec import parse_duration_s

    try:
        return parse_duration_s(f"{text}s" if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None


def _values(properties: dict[str, Any], pairs: tuple[str, ...]) -> dict[str, Any]:
    from agent_runtime.template.yaml_reader import scalar

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"'{pair}' is not NAME=VALUE", param_hint="--input")
        values[name] = text if properties.get(name, {}).get("type") == "string" else scalar(text)
    return values


def _note_model(model_id: str) -> None:
    from agent_runtime.models.resolve import auto_model

    if model_id != "auto":
        return
    chosen, notes = auto_model()
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if chosen == "offline:":
        click.echo(
            "note: no provider key is set, so the offline stand-in answers; --model provider:name uses a real model",
            err=True,
        )
