"""Implement `agent-runtime events`: the event log."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import parse_unix_time
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import open_events
from agent_runtime.escapes import escape_to_one_line, printable_json

if TYPE_CHECKING:
    from agent_runtime.event_bus.brokers import EventLog, EventQuery, StoredEvent

EXIT_DIFFERENT = 1
SUMMARY_KEYS = ("name", "status", "error", "code", "reason", "rule", "account", "missed")
"""Fields of an event's data that its line shows."""


@click.group()
@click.option(
    "--log",
    metavar="URL",
    help="sqlite:FILE, redis://..., nats://..., kafka://...; default: the state directory.",
)
@click.pass_context
def events(context: click.Context, log: str | None) -> None:
    """Follow, search, replay and export the event log."""
    context.obj = log


def with_log(url: str | None, action: Callable[[EventLog], Awaitable[Any]]) -> Any:
    """Return the result of `action` on the log, which is closed afterwards."""
    import asyncio

    async def run() -> Any:
        log = open_events(url)
        try:
            return await action(log)
        finally:
            await log.aclose()

    return asyncio.run(run())


def _query_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select events; the command receives them as one `EventQuery`."""

    @wraps(command)
    def with_query(*args: Any, types: Any, since: Any, until: Any, **parameters: Any) -> Any:
        from agent_runtime.event_bus.brokers import EventQuery

        names = ("run", "session", "tenant", "user", "agent")
        query_fields = {"run": "run_id", "session": "session_id", "user": "user_id"}
        criteria = {query_fields.get(name, name): parameters.pop(name) for name in names}
        begin = None if since is None else parse_unix_time(since, "--since")
        end = None if until is None else parse_unix_time(until, "--until")
        return command(
            *args,
            event_query=EventQuery(types, since=begin, until=end, **criteria),
            **parameters,
        )

    decorated: Callable[..., Any] = with_query
    for decorate in (
        click.option("--until", metavar="WHEN", help="As --since."),
        click.option(
            "--since",
            metavar="WHEN",
            help="2026-11-01, 2026-11-01T12:30 (UTC), or 2h for two hours ago.",
        ),
        click.option("--agent", help="Only this agent's."),
        click.option("--user", help="Only this user's."),
        click.option("--tenant", help="Only this tenant's."),
        click.option("--session", help="Only this session's."),
        click.option("--run", help="Only this run's."),
        click.option(
            "--type",
            "types",
            multiple=True,
            metavar="PATTERN",
            help="Only types like this (`llm.*`); repeatable.",
        ),
    ):
        decorated = decorate(decorated)
    return decorated


@events.command()
@_query_options
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Follow new events until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print CloudEvents, one per line.")
@click.pass_obj
def tail(
    url: str | None, event_query: EventQuery, lines: int, *, follow: bool, as_json: bool
) -> None:
    """Show the last events."""

    async def action(log: EventLog) -> None:
        stored_events = await log.query(event_query, limit=max(lines, 1), last=True)
        for stored in stored_events[-lines:] if lines else []:
            _print_event(stored, as_json=as_json)
        position = stored_events[-1].position if stored_events else None
        while follow:
            for stored in await log.query(event_query, after=position, wait_s=1.0):
                _print_event(stored, as_json=as_json)
                position = stored.position

    with_log(url, action)


@events.command()
@_query_options
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--after", metavar="POSITION", help="Only events after this position of the log.")
@click.option("--json", "as_json", is_flag=True, help="Print CloudEvents, one per line.")
@click.pass_obj
def query(
    url: str | None, event_query: EventQuery, limit: int, after: str | None, *, as_json: bool
) -> None:
    """Search the log, oldest first."""
    stored_events = with_log(url, lambda log: log.query(event_query, after=after, limit=limit))
    for stored in stored_events:
        _print_event(stored, as_json=as_json)
    if len(stored_events) == limit:
        echo(f"more: --after {stored_events[-1].position}", err=True)


@events.command()
@_query_options
@click.option(
    "-o",
    "--output",
    type=click.File("w", encoding="utf-8"),
    default="-",
    help="A file; default: stdout.",
)
@click.pass_obj
def export(url: str | None, event_query: EventQuery, output: Any) -> None:
    """Write all events that match as CloudEvents, one JSON object a line."""

    async def action(log: EventLog) -> int:
        position = None
        count = 0
        while page := await log.query(event_query, after=position, limit=1000):
            for stored in page:
                output.write(_event_json(stored) + "\n")
            position = page[-1].position
            count = count + len(page)
        return count

    echo(f"{with_log(url, action)} events", err=True)


@events.command()
@click.argument("run_id")
@click.option(
    "--from",
    "from_step",
    type=click.IntRange(1),
    metavar="STEP",
    help="Fork: run live from this step.",
)
@click.option("--model", metavar="PROVIDER:NAME", help="The live model of a fork.")
@click.option("--steps", is_flag=True, help="Only list the recorded steps.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def replay(
    url: str | None,
    run_id: str,
    from_step: int | None,
    model: str | None,
    *,
    steps: bool,
    as_json: bool,
) -> int:
    """Replay RUN_ID without model calls and print the first difference (exit code 1).

    `agent-runtime run --record` records a whole run. With --from the run is forked: steps before
    STEP are replayed, the rest is live.
    """
    from agent_runtime.replay import read_recording, replay_run

    if steps:
        _list_steps(with_log(url, lambda log: read_recording(log, run_id)).steps, as_json=as_json)
        return 0
    outcome = with_log(url, lambda log: replay_run(log, run_id, from_step=from_step, model=model))
    if as_json:
        echo_json(outcome.to_dict())
    elif from_step is not None and outcome.result is not None:
        echo(outcome.result.output)
    if not as_json:
        if outcome.template_changed:
            echo("note: the template has changed since the run was recorded", err=True)
        if outcome.difference is not None:
            echo(f"differs at {outcome.difference}", err=True)
        elif from_step is None:
            echo(
                f"the same: {len(outcome.recording.steps)} steps, status {outcome.recording.status}"
            )
    return (
        0 if outcome.same and (from_step is None or outcome.result is not None) else EXIT_DIFFERENT
    )


@events.command()
@click.argument("name", required=False)
def types(name: str | None) -> None:
    """List the types of events, or print the JSON Schema of NAME's data."""
    from agent_runtime.event_bus import EVENT_TYPES
    from agent_runtime.event_bus.event_types import check_type

    if name is None:
        for event_type in EVENT_TYPES.values():
            echo(f"{event_type.name:22} {event_type.description}")
        return
    check_type(name)
    echo_json(EVENT_TYPES[name].schema, indent=2)


def _list_steps(steps: Any, *, as_json: bool) -> None:
    for step in steps:
        if as_json:
            echo_json(step.to_dict())
        else:
            request_text = json.dumps(
                step.request[-1] if step.kind == "llm" and step.request else step.request,
                default=str,
            )
            echo(
                escape_to_one_line(
                    f"{step.number:>3} {step.kind:4} {step.name:24} {request_text[:80]}"
                )
            )


def _print_event(stored: StoredEvent, *, as_json: bool) -> None:
    if as_json:
        echo(_event_json(stored))
        return
    from datetime import UTC, datetime

    event = stored.event
    data = event.data if isinstance(event.data, dict) else {"data": event.data}
    timestamp = f"{datetime.fromtimestamp(event.occurred_at, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    session_or_run = event.session_id or event.run_id or "-"
    details = " ".join(f"{key}={data[key]}" for key in SUMMARY_KEYS if key in data)
    line = (
        f"{timestamp} {event.type:20} {event.agent or '-':16} {session_or_run:36} {details}"
    ).rstrip()
    echo(escape_to_one_line(line))


def _event_json(stored: StoredEvent) -> str:
    from agent_runtime.event_bus.cloud_event import encode_event

    text = encode_event(stored.event).decode()
    return printable_json(text)
