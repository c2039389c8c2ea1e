"""Templates with the tests' MCP server, and that server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent_runtime.testing import ScriptedChatModel, say

PROGRAM = str(Path(__file__).with_name("mcp_program.py"))


def program_tool(*args: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """A template's entry for the server as a program."""
    return {
        "mcp": {
            "command": sys.executable,
            "args": [PROGRAM, *args],
            "timeout": "20s",
            "env": env or {},
        }
    }


def calling(*calls: tuple[str, dict[str, Any]]) -> ScriptedChatModel:
    """A model that calls tools, and says "done" when they have answered."""
    return ScriptedChatModel(
        script=lambda messages: say("done") if messages[-1].type == "tool" else say("", *calls)
    )


@contextlib.contextmanager
def http_server(port: int, env: dict[str, str] | None = None) -> Iterator[None]:
    """The server over HTTP, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "--port", str(port)], env={**os.environ, **(env or {})}
    )
    try:
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(holds: Callable[[], Any], limit_s: float = 15) -> bool:
    """Wait until something holds, and say whether it does."""
    end_s = time.monotonic() + limit_s
    while not holds() and time.monotonic() < end_s:
        await asyncio.sleep(0.03)
    return bool(holds())
