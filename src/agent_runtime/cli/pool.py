"""Implement `agent-runtime pool`: agents in processes, started, called, observed and drained."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import parse_seconds, shared_factory_arguments
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.pool_table import pool_status_table
from agent_runtime.cli.state import (
    event_recording,
    open_dead_letters,
    open_factory,
    open_sessions,
    state_folder,
)
from agent_runtime.escapes import escape_to_one_line

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

POOL_FOLDER = "pools"


@click.group()
def pool() -> None:
    """Run agents in separate, prestarted processes."""


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # not at the top: `--help` pays for every import

    return asyncio.run(coroutine)


@pool.command()
@click.argument("agents", nargs=-1)
@click.option("--config", type=click.Path(dir_okay=False), help="A YAML file with a 'pool:' map.")
@click.option(
    "--templates",
    type=click.Path(file_okay=False),
    help="A folder of templates, watched for changes.",
)
@click.option("--store", metavar="URL", help="Store of sessions; default: in the state directory.")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics on 127.0.0.1."
)
def start(
    agents: tuple[str, ...],
    config: str | None,
    templates: str | None,
    store: str | None,
    metrics_port: int | None,
) -> int:
    """Start a pool with one warm instance of each of AGENTS; Ctrl-C or SIGTERM ends it."""
    return int(_run_coroutine(_run_pool(agents, config, templates, store, metrics_port)))


async def _run_pool(
    agents: tuple[str, ...],
    config_file: str | None,
    templates: str | None,
    store: str | None,
    port: int | None,
) -> int:
    import asyncio
    import os
    import signal
    from contextlib import AsyncExitStack

    from agent_runtime.monitoring import RuntimeMetrics
    from agent_runtime.pool import (
        AgentInstancePool,
        ControlSocket,
        PoolConfig,
        TemplateWatch,
        watch_pools,
    )

    config = PoolConfig() if config_file is None else PoolConfig.load(config_file)
    metrics = None if port is None else RuntimeMetrics()
    async with AsyncExitStack() as stack:
        factory_arguments = {
            "session_manager": open_sessions(store),
            "metrics": metrics,
            **shared_factory_arguments(),
        }
        factory = await stack.enter_async_context(open_factory(**factory_arguments))
        await stack.enter_async_context(event_recording(factory))
        if templates is not None:
            await stack.enter_async_context(TemplateWatch(factory, templates))
        instance_pool = await stack.enter_async_context(
            AgentInstancePool(factory, config, dead_letters=open_dead_letters())
        )
        path = state_folder() / POOL_FOLDER / f"{os.getpid()}.sock"
        control = await stack.enter_async_context(ControlSocket(instance_pool, path))
        if metrics is not None and port is not None:
            from prometheus_client import start_http_server

            watch_pools(metrics, factory, instances=instance_pool)
            server, _ = start_http_server(port, "127.0.0.1", metrics.registry)
            stack.callback(server.shutdown)
        for agent in agents:
            await instance_pool.warm_up(agent)
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, control.drained.set)
        echo(f"pool {os.getpid()} is ready: {config.size} instances at most, control socket {path}")
        await control.drained.wait()
        cancelled = 0 if instance_pool.draining else await instance_pool.drain(30.0)
        echo(f"pool {os.getpid()} has ended, {cancelled} tasks were cancelled")
    return 0


def _socket_paths() -> list[Path]:
    return sorted((state_folder() / POOL_FOLDER).glob("*.sock"))


def _select_socket(pid: int | None) -> Path:
    alive = {str(pool_status["pid"]) for pool_status in _run_coroutine(_statuses(pid))}
    live_sockets = [path for path in _socket_paths() if path.stem in alive]
    if not live_sockets:
        raise click.UsageError("no pool is running: start one with `agent-runtime pool start`")
    if len(live_sockets) > 1:
        raise click.UsageError(
            f"several pools are running, say which: --pid {', '.join(p.stem for p in live_sockets)}"
        )
    return live_sockets[0]


async def _statuses(pid: int | None) -> list[dict[str, Any]]:
    from contextlib import aclosing

    from agent_runtime.errors import ConfigurationError
    from agent_runtime.pool.control import send_request

    statuses = []
    for path in [
        socket_path
        for socket_path in _socket_paths()
        if pid is None or socket_path.stem == str(pid)
    ]:
        try:
            async with aclosing(send_request(path, {"do": "status"})) as answers:
                statuses += [answer async for answer in answers]
        except ConfigurationError:
            path.unlink(missing_ok=True)  # its process was killed
    return statuses


PID = click.option("--pid", type=int, help="The pool's process; required when several pools run.")


@pool.command()
@PID
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each pool.")
def status(pid: int | None, *, as_json: bool) -> int:
    """Show the pools of this user, their instances and queues; exits 1 without a pool."""
    statuses = _run_coroutine(_statuses(pid))
    for pool_status in statuses:
        echo_json(pool_status) if as_json else echo(pool_status_table(pool_status))
    if not statuses and not as_json:
        echo("no pool is running", err=True)
    return 0 if statuses else 1


@pool.command()
@PID
@click.option("--interval", default="1s", metavar="DURATION", help="Refresh interval.")
@click.option("--count", type=click.IntRange(1), help="End after this many refreshes.")
def top(pid: int | None, interval: str, count: int | None) -> int:
    """Show the pools as they change, until Ctrl-C."""
    import time

    wait_s = parse_seconds(interval, "--interval")
    refresh_count = 0
    while count is None or refresh_count < count:
        text = (
            "\n".join(
                pool_status_table(pool_status) for pool_status in _run_coroutine(_statuses(pid))
            )
            or "no pool is running"
        )
        if sys.stdout.isatty():
            click.clear()
        echo(text)
        refresh_count += 1
        if count is None or refresh_count < count:
            time.sleep(wait_s)
    return 0


@pool.command()
@PID
@click.option("--grace", default="30s", metavar="DURATION", help="Time for running tasks to end.")
def drain(pid: int | None, grace: str) -> int:
    """Drain a pool: refuse new tasks, finish the running ones within the grace, and end it."""
    for answer in _run_coroutine(
        _collect_answers(
            _select_socket(pid), {"do": "drain", "grace_s": parse_seconds(grace, "--grace")}
        )
    ):
        _raise_error(answer)
        echo(f"drained; {answer['cancelled']} tasks were cancelled")
    return 0


async def _collect_answers(path: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    from agent_runtime.pool.control import send_request

    return [answer async for answer in send_request(path, request)]


def _raise_error(answer: dict[str, Any]) -> None:
    if answer["type"] == "error":
        raise click.ClickException(
            f"{answer['error']['code']}: {escape_to_one_line(answer['error']['message'])}"
        )


@pool.command()
@click.argument("agent")
@click.argument("prompt", required=False)
@PID
@click.option("--session", metavar="ID", help="Continue this conversation.")
@click.option(
    "--priority", type=click.Choice(["low", "normal", "high", "urgent"]), default="normal"
)
@click.option("--timeout", metavar="DURATION", help="Time limit of the call, including its wait.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def run(
    agent: str,
    prompt: str | None,
    pid: int | None,
    session: str | None,
    priority: str,
    timeout: str | None,
    *,
    as_json: bool,
) -> int:
    """Run AGENT on PROMPT (or stdin) in an instance of a running pool; the answer is streamed."""
    from pathlib import Path

    text = prompt if prompt not in (None, "-") else sys.stdin.read().strip()
    name = (
        str(Path(agent).resolve()) if "/" in agent or agent.endswith((".yaml", ".yml")) else agent
    )
    request = {
        "do": "run",
        "agent": name,
        "input": text,
        "session_id": session,
        "priority": priority,
    }
    if timeout is not None:
        request["timeout_s"] = str(parse_seconds(timeout, "--timeout"))
    return int(_run_coroutine(_print_answer(_select_socket(pid), request, as_json=as_json)))


async def _print_answer(path: Path, request: dict[str, Any], *, as_json: bool) -> int:
    from agent_runtime.cli.sessions import EXIT_INTERRUPTED
    from agent_runtime.pool.control import send_request

    printed_text = ""
    async for answer in send_request(path, request):
        _raise_error(answer)
        if answer["type"] == "text" and not as_json:
            echo(answer["text"], nl=False)
            printed_text += answer["text"]
        elif answer["type"] == "result":
            if as_json:
                echo_json(answer)
            elif not printed_text.endswith(answer["output"]):
                echo(("\n" if printed_text else "") + answer["output"], nl=False)
            if not as_json:
                echo()
            return EXIT_INTERRUPTED if answer["status"] == "interrupted" else 0
    raise click.ClickException("the pool ended before its answer")
