"""`agent-runtime doctor`: whether everything that is configured works."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import click

from agent_runtime.cli.batch_options import open_batch_journal
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import (
    open_dead_letters,
    open_events,
    open_keys,
    open_ledger,
    open_sessions,
    settings,
)

PROVIDER_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "MISTRAL_API_KEY")


@click.command()
@click.option(
    "--template",
    "templates",
    multiple=True,
    help="Show this template's effects, too; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, templates: tuple[str, ...], as_json: bool) -> int:
    """Check Python, settings, provider keys and stores. Exits 1 when something does not work.

    Shows no secret.
    """
    from agent_runtime.secrets.redaction import SECRETS

    setting_rows = settings().describe()
    checks: list[dict[str, Any]] = [
        {"check": name, "ok": ok, "detail": SECRETS.text(detail)}
        for name, ok, detail in [
            *_checks(),
            *(row for template in templates for row in _check_reach(template)),
        ]
    ]
    if as_json:
        echo_json({"settings": setting_rows, "checks": checks})
    else:
        for name, row in setting_rows.items():
            echo(f"{name:18} {row['value'] or '-':32} {row['source']}")
        for row in checks:
            echo(f"{'ok  ' if row['ok'] else 'FAIL'} {row['check']:18} {row['detail']}")
    return 0 if all(row["ok"] for row in checks) else 1


def _checks() -> Iterator[tuple[str, bool, str]]:
    import platform

    from agent_runtime.event_bus.brokers import EventQuery

    yield "python", True, platform.python_version()
    present = [name for name in PROVIDER_KEYS if os.environ.get(name)]
    yield "provider keys", True, ", ".join(present) or "none: the offline stand-in answers"
    yield _check_store("sessions", open_sessions, lambda manager: manager.list_sessions(limit=1))
    yield _check_store("ledger", open_ledger, lambda ledger: ledger.balances())
    yield _check_store("keys", open_keys, lambda keys: keys.store.list_keys())
    if settings().events != "off":
        yield _check_store("events", open_events, lambda log: log.query(EventQuery(), limit=1))
    yield _check_store("batches", open_batch_journal, lambda journal: journal.list(limit=1))
    yield _check_store("dead letters", open_dead_letters, lambda letters: letters.list(limit=1))
    if (url := settings().limits) is not None:
        yield _check_store(
            "limits", lambda: _open_limit_store(url), lambda limits: limits.windows.acquire([])
        )


def _check_reach(name: str) -> Iterator[tuple[str, bool, str]]:
    """Report whether a template may reach its targets; all may where it is trusted."""
    from agent_runtime.errors import AgentRuntimeError
    from agent_runtime.factory import AgentFactory
    from agent_runtime.template.confinement import Confinement
    from agent_runtime.template.reach import reaches_of

    try:
        template = AgentFactory().get_template(name)
    except (AgentRuntimeError, OSError) as error:
        yield name, False, str(error)
        return
    targets = reaches_of(template)
    for target in targets:
        is_allowed = settings().templates == "trusted" or Confinement().allows(target, template)
        yield name, is_allowed, f"reaches {target.kind} {target.value} ({target.place})"
    if not targets:
        yield name, True, "reaches nothing but its folder and registered tools"


def _check_store(
    name: str, open_store: Callable[[], Any], probe: Callable[[Any], Awaitable[Any]]
) -> tuple[str, bool, str]:
    import asyncio

    from agent_runtime.errors import AgentRuntimeError

    async def check() -> None:
        store = open_store()
        try:
            await probe(store)
        finally:
            await store.aclose()

    try:
        asyncio.run(check())
    except (AgentRuntimeError, OSError) as error:
        return name, False, str(error)
    return name, True, "answers"


def _open_limit_store(url: str) -> Any:
    from agent_runtime.limits import open_limits

    return open_limits(url)
