"""`agent-runtime triggers`: agents that start by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import shared_factory_arguments
from agent_runtime.cli.output import echo
from agent_runtime.cli.state import (
    event_recording,
    open_dead_letters,
    open_event_broker,
    open_factory,
    settings,
)

if TYPE_CHECKING:
    import asyncio

    from agent_runtime.triggers import TriggerHandler, TriggerRule


@click.group()
def triggers() -> None:
    """Check rules, and run them."""


@triggers.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
def check(files: tuple[str, ...]) -> None:
    """Check FILES as `run` does: rules, agents, secrets of webhooks.

    Disabled rules are included.
    """
    from agent_runtime.cli.state import settings
    from agent_runtime.factory import AgentFactory
    from agent_runtime.triggers import TriggerHandler, load_triggers

    factory = AgentFactory(templates=settings().templates)
    for file in files:
        rules = load_triggers(file)
        TriggerHandler(
            factory, [rule.model_copy(update={"enabled": True}) for rule in rules]
        )  # as the start does
        echo(f"{file}: {len(rules)} rules, ok")


@triggers.command()
@click.argument("file", type=click.Path())
@click.option(
    "--broker",
    metavar="URL",
    help="Broker of the events; default: this machine's event log.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address of the webhook server."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
def run(file: str, broker: str | None, host: str, port: int) -> None:
    """Run the rules of FILE until Ctrl-C: schedules, webhooks, and event triggers."""
    import asyncio

    from agent_runtime.triggers import load_triggers

    asyncio.run(_run_rules(load_triggers(file), broker, host, port))


async def _run_rules(
    rules: list[TriggerRule], broker_url: str | None, host: str, port: int
) -> None:
    from agent_runtime.triggers import TriggerHandler

    dead_letters = open_dead_letters(None)
    stop_event = _stop_on_signals()
    broker = (
        None if broker_url is None and settings().events == "off" else open_event_broker(broker_url)
    )
    sock = (
        _listen_socket(host, port)
        if any(rule.webhook is not None and rule.enabled for rule in rules)
        else None
    )
    try:
        async with (
            open_factory(**shared_factory_arguments()) as factory,
            event_recording(factory) as relay,
            # Events of this process come to the log by its own recording, unless another broker was
            # named.
            TriggerHandler(
                factory,
                rules,
                broker=broker,
                relay=broker_url is not None,
                dead_letters=dead_letters,
            ) as handler,
        ):
            handler.webhooks.flush = handler.webhooks.flush or (
                None if relay is None else relay.flush
            )
            echo(f"{len(handler.rules)} rules", err=True)
            if sock is None:
                await stop_event.wait()
            else:
                await _serve(handler, sock, stop_event)
        echo("stopped", err=True)
    finally:
        await dead_letters.aclose()
        if broker is not None:
            await broker.aclose()


def _stop_on_signals() -> asyncio.Event:
    """Return an event that Ctrl-C and SIGTERM set; running calls may then finish."""
    import asyncio
    import signal

    stop_event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_event.set)
    return stop_event


def _listen_socket(host: str, port: int) -> Any:
    import socket

    from agent_runtime.errors import ConfigurationError

    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise ConfigurationError(f"cannot listen for webhooks on {host}:{port}: {error}") from error


async def _serve(handler: TriggerHandler, sock: Any, stop_event: asyncio.Event) -> None:
    import asyncio
    from contextlib import nullcontext

    from agent_runtime.errors import MissingExtra

    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("listening for webhooks", "langchain-agent-runtime[triggers]") from error
    app: Any = handler.webhooks
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # the signals are ours
    server_task = asyncio.create_task(server.serve(sockets=[sock]))
    await asyncio.wait(
        {server_task, asyncio.ensure_future(stop_event.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    server.should_exit = True
    await server_task
