"""`agent-runtime pool` on the command line: a real pool in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.ports import free_port

from agent_runtime import AgentFactory, RuntimeMetrics
from agent_runtime.cli import cli
from agent_runtime.cli.exit_codes import exit_code
from agent_runtime.cli.pool_table import pool_status_table
from agent_runtime.cli.state import settings
from agent_runtime.errors import ConfigurationError
from agent_runtime.pool import (
    AgentInstancePool,
    AgentSessionPool,
    AgentTask,
    ControlSocket,
    PoolConfig,
    watch_pools,
)
from agent_runtime.pool.control import send_request

QUESTION = "What is the total amount in the North?"
ANSWER = (
    "The sum of amount where region = North is 15002.4. (offline stand-in, not a language model)"
)


def command(*args: str, code: int = 0) -> str:
    """What a command prints, in this process: the pool is in another one."""
    done = CliRunner().invoke(cli, args, standalone_mode=False)
    failed = (
        0
        if done.exception is None
        else getattr(done.exception, "exit_code", exit_code(done.exception))
    )
    assert (done.return_value or failed or 0) == code, (done.output, done.exception)
    return done.output if done.exception is None else str(done.exception)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(tmp_path / "h"))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.fixture
def running(home: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A pool, started as a user does; and the port of its metrics."""
    (home / "pool.yaml").write_text("pool:\n  size: 2\n  agents:\n    analyst: {warm: 1}\n")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "agent_runtime", "pool", "start", "analyst",
         "--config", str(home / "pool.yaml"), "--metrics-port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert "is ready: 2 instances at most" in process.stdout.readline()
        yield process, port
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_a_pool_is_started_asked_watched_and_drained(
    home: Path, running: tuple[subprocess.Popen[str], int]
) -> None:
    process, port = running
    assert command("pool", "run", "analyst", QUESTION).strip() == ANSWER
    result = json.loads(command("pool", "run", "analyst", QUESTION, "--json", "--priority", "high"))
    assert (result["output"], result["usage"]["model_calls"]) == (ANSWER, 3)
    socket_file = home / "h" / "pools" / f"{process.pid}.sock"
    assert socket_file.stat().st_mode & 0o777 == 0o600
    shown = command("pool", "status")
    assert f"pool {process.pid}: 1/2 instances" in shown
    assert "analyst" in shown.splitlines()[2]
    assert "idle" in shown.splitlines()[2]
    status = json.loads(command("pool", "status", "--json"))
    assert status["pool"]["instances"][0]["tasks_done"] == 2
    assert command("pool", "top", "--count", "2", "--interval", "50ms").count("1/2 instances") == 2
    assert "unknown_component" in command("pool", "run", "nobody", "x", code=1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        metrics = answer.read().decode()
    assert 'agent_runtime_pool_instances{agent="analyst",status="idle"} 1.0' in metrics
    assert "agent_runtime_pool_starts_total 1.0" in metrics
    assert "drained; 0 tasks were cancelled" in command("pool", "drain")
    assert process.wait(20) == 0
    assert "no pool is running" in command("pool", "status", code=1)
    assert "no pool is running" in command("pool", "run", "analyst", "x", code=2)


def test_the_socket_of_a_killed_pool_is_cleared_away(home: Path) -> None:
    folder = home / "h" / "pools"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "99999.sock"))  # and nobody listens any more
    assert "no pool is running" in command("pool", "status", code=1)
    assert list(folder.iterdir()) == []


def test_a_wrong_configuration_ends_before_anything_starts(home: Path) -> None:
    (home / "pool.yaml").write_text("pool: {sice: 3}\n")
    assert "did you mean 'size'" in command(
        "pool", "start", "--config", str(home / "pool.yaml"), code=3
    )


@asynccontextmanager
async def opened(
    **seats: Any,
) -> AsyncIterator[tuple[AgentFactory, AgentSessionPool, AgentInstancePool]]:
    async with (
        AgentFactory(**seats) as factory,
        AgentSessionPool(factory) as warm,
        AgentInstancePool(factory, PoolConfig(size=1)) as pool,
    ):
        yield factory, warm, pool


async def test_the_socket_answers_what_it_does_not_understand(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with pytest.raises(ConfigurationError, match="no pool answers"):
        _ = [each async for each in send_request(path, {})]
    async with opened() as (_, warm, pool), ControlSocket(pool, path, sessions=warm):
        requests: list[tuple[dict[str, Any], str]] = [
            ({}, "input_invalid"),
            ({"do": "run", "agent": "analyst", "input": "x", "priority": "top"}, "input_invalid"),
            ({"do": "run", "agent": "nobody", "input": "x"}, "unknown_component"),
            ({"do": "run", "agent": "analyst", "input": "x", "timeout_s": "soon"}, "input_invalid"),
            ({"do": "drain", "grace_s": []}, "input_invalid"),
        ]
        for request, code in requests:
            (answer,) = [each async for each in send_request(path, request)]
            assert answer["error"]["code"] == code, answer
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"nonsense\n")
        assert b"input_invalid" in await reader.readline()
        writer.close()
        await warm.get_or_create("a:b:c", "analyst")
        (status,) = [each async for each in send_request(path, {"do": "status"})]
        assert status["warm"]["size"] == 1
        assert f"pool {os.getpid()}" in pool_status_table(status)
        with pytest.raises(ConfigurationError, match="longer than"):
            ControlSocket(pool, tmp_path / ("x" * 120))


async def test_pools_are_among_the_metrics() -> None:
    metrics = RuntimeMetrics()
    async with opened(metrics=metrics) as (factory, warm, pool):
        watch_pools(metrics, factory, instances=pool, sessions=warm)
        await pool.run(AgentTask("analyst", QUESTION))
        for _ in range(2):
            await warm.get_or_create("a:b:c", "analyst")
        text = metrics.render().decode()
    for line in (
        'agent_runtime_pool_instances{agent="analyst",status="idle"} 1.0',
        'agent_runtime_pool_queue{priority="normal"} 0.0',
        "agent_runtime_warm_contexts 1.0",
        "agent_runtime_warm_hit_ratio 0.5",
        "agent_runtime_warm_builds_total 1.0",
        'agent_runtime_provider_in_flight{provider="offline"} 0.0',
    ):
        assert line in text
