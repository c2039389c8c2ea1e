"""`agent-runtime triggers`: agents that start by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import shared_seats
from agent_runtime.cli.state import event_recording, open_dead, open_event_broker

if TYPE_CHECKING:
    from agent_runtime.triggers import TriggerHandler, TriggerRule


@click.group()
def triggers() -> None:
    """Check rules, and run them."""


@triggers.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
def check(files: tuple[str, ...]) -> None:
    """Check FILES: that each rule can work, and that its agent is known."""
    from agent_runtime.factory import AgentFactory
    from agent_runtime.triggers import load_triggers

    factory = AgentFactory()
    for file in files:
        rules = load_triggers(file)
        for rule in rules:
            factory.get_template(rule.start)
        click.echo(f"{file}: {len(rules)} rules, ok")


@triggers.command()
@click.argument("file", type=click.Path())
@click.option("--broker", metavar="URL", help="Whose events start agents; default: those of this command's own runs.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where webhooks are listened for.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
def run(file: str, broker: str | None, host: str, port: int) -> None:
    """Run the rules of FILE until Ctrl-C: schedules, webhooks, and what events start."""
    import asyncio

    from agent_runtime.triggers import load_triggers

    rules = load_triggers(file)
    try:
        asyncio.run(_run(rules, broker, host, port))
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


async def _run(rules: list[TriggerRule], broker_url: str | None, host: str, port: int) -> None:
    import asyncio

    from agent_runtime.factory import AgentFactory
    from agent_runtime.triggers import TriggerHandler

    letters = open_dead(None)
    broker = None if broker_url is None else open_event_broker(broker_url)
    try:
        async with (
            AgentFactory(**shared_seats()) as factory,
            event_recording(factory),
            TriggerHandler(factory, rules, broker=broker, dead_letters=letters) as handler,
        ):
            click.echo(f"{len(handler.rules)} rules", err=True)
            if any(rule.webhook is not None for rule in handler.rules):
                await _serve(handler, host, port)
            else:
                await asyncio.Event().wait()
    finally:
        await letters.aclose()
        if broker is not None:
            await broker.aclose()


async def _serve(handler: TriggerHandler, host: str, port: int) -> None:
    from agent_runtime.errors import MissingExtra

    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("listening for webhooks", "langchain-agent-runtime[triggers]") from error
    app: Any = handler.webhooks
    await uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", lifespan="off")).serve()
