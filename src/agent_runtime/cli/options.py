"""Options and helpers that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.output import echo

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Hold the options of the agent to build."""

    agent: str
    model: str | None
    inputs: tuple[str, ...]
    timeout: str | None
    quiet: bool
    session: str | None = None
    store: str | None = None
    ledger: str | None = None
    budget: float | None = None
    record: bool = False

    def factory_arguments(self) -> dict[str, Any]:
        """Return the factory's arguments for every agent of the command line."""
        return shared_factory_arguments(self.ledger, self.budget, record=self.record)


def shared_factory_arguments(
    ledger: str | None = None, budget: float | None = None, *, record: bool = False
) -> dict[str, Any]:
    """Return a command's arguments for its AgentFactory; `record` stores events with contents."""
    from agent_runtime.budgets import Budget
    from agent_runtime.cli.state import open_ledger, settings
    from agent_runtime.event_bus import EventBus
    from agent_runtime.limits import open_limits
    from agent_runtime.monitoring import configure_logging
    from agent_runtime.monitoring.callback_handler import AgentCallbackHandler

    configure_logging(settings().log_level, settings().log_format)
    run_budget_usd = budget or settings().budget
    limits_url = settings().limits or "memory:"
    bus = EventBus()
    return {
        "event_bus": bus,
        "callback_handler": AgentCallbackHandler(bus=bus, content=record),
        "ledger": open_ledger(ledger),
        "budgets": [] if run_budget_usd is None else [Budget("run", usd=run_budget_usd)],
        "limits": open_limits(limits_url, processes=settings().processes),
        "templates": settings().templates,
    }


def agent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `AGENT` and its options; the command receives them as one `AgentOptions`, first."""

    @wraps(command)
    def with_options(**parameters: Any) -> Any:
        options = AgentOptions(
            **{field.name: parameters.pop(field.name) for field in fields(AgentOptions)}
        )
        return command(options, **parameters)

    decorated: Callable[..., Any] = with_options
    decorators = (
        click.argument("agent", shell_complete=_complete_agent),
        click.option(
            "--model", metavar="PROVIDER:NAME", help="Use this model instead of the template's."
        ),
        click.option(
            "--input",
            "inputs",
            metavar="NAME=VALUE",
            multiple=True,
            help="A template input; repeatable.",
        ),
        click.option(
            "--timeout", metavar="DURATION", help="Time limit of a call: 30s, 5m, or seconds."
        ),
        click.option(
            "--session",
            metavar="ID",
            help="Continue this conversation, or create it.",
        ),
        click.option(
            "--store",
            metavar="URL",
            help="Store of sessions: sqlite:FILE, redis://..., memory:.",
        ),
        click.option(
            "--ledger",
            metavar="URL",
            help="Ledger of spending; default: in the state directory.",
        ),
        click.option(
            "--budget",
            type=click.FloatRange(0, min_open=True),
            metavar="USD",
            help="Most that a call may spend.",
        ),
        click.option(
            "--record",
            is_flag=True,
            help="Record questions, answers and tool results, for replays.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="No notes on stderr."),
    )
    for decorate in reversed(decorators):
        decorated = decorate(decorated)
    return decorated


def _complete_agent(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[Any]:
    from click.shell_completion import CompletionItem

    from agent_runtime.template.builtin import builtin_templates

    names = [CompletionItem(name) for name in builtin_templates() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def build_agent(factory: AgentFactory, options: AgentOptions) -> AgentExecutor:
    """Build the executor that the options describe; raises the factory's errors."""
    overrides: dict[str, Any] = {}
    if options.model is not None:
        overrides["model"] = options.model
    if options.timeout is not None:
        overrides["runtime"] = {"timeout": {"run": parse_seconds(options.timeout, "--timeout")}}
    template = factory.get_template(options.agent)
    if not options.quiet:
        warn_offline_model(options.model or (template.spec.model.id if template.spec.model else ""))
    inputs = _parse_inputs(template.inputs.get("properties", {}), options.inputs)
    executor = factory.create_from_template(options.agent, inputs, **overrides)
    return _as_operator(executor) if template.spec.runtime.auth.require else executor


def _as_operator(executor: AgentExecutor) -> AgentExecutor:
    """Call as the operator, who owns the state directory and could create any key."""
    from agent_runtime.auth.identities import OPERATOR
    from agent_runtime.types import Principal

    return executor.with_caller(principal=Principal(OPERATOR, scopes=frozenset({"*"})))


def parse_seconds(text: str, option: str) -> float:
    """Return the seconds of a duration on the command line: `30s`, `5m`, or a number of seconds."""
    from agent_runtime.template.duration import parse_duration_s

    try:
        return parse_duration_s(f"{text}s" if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def parse_unix_time(text: str, option: str) -> float:
    """Return the Unix seconds of a time on the command line.

    A day, an hour or minute of it (UTC), or a duration before now.
    """
    import re
    import time
    from datetime import UTC, datetime

    if re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d)?)?", text):
        time_format = {10: "%Y-%m-%d", 13: "%Y-%m-%dT%H", 16: "%Y-%m-%dT%H:%M"}[len(text)]
        try:
            return datetime.strptime(text, time_format).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise click.BadParameter(f"'{text}' is not a date", param_hint=option) from None
    return time.time() - parse_seconds(text, option)


def _parse_inputs(properties: dict[str, Any], pairs: tuple[str, ...]) -> dict[str, Any]:
    from agent_runtime.template.yaml_reader import parse_scalar

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"'{pair}' is not NAME=VALUE", param_hint="--input")
        values[name] = (
            text if properties.get(name, {}).get("type") == "string" else parse_scalar(text)
        )
    return values


def warn_offline_model(model_id: str) -> None:
    """Print on stderr which model `auto` selects, where that may surprise."""
    from agent_runtime.models.resolve import auto_model

    if model_id != "auto":
        return
    chosen, notes = auto_model()
    for note in notes:
        echo(f"note: {note}", err=True)
    if chosen == "offline:":
        echo(
            "note: no provider key is set, so the offline stand-in answers; --model "
            "provider:name uses a real model",
            err=True,
        )
