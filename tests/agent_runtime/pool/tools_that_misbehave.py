"""Tools for agents in processes of their own: some answer, others do everything that a process can do wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.tools import tool

from agent_runtime.testing import Say, say


def script(messages: list[BaseMessage]) -> Say:
    """Calls the tool that the question names, `name argument`, then says what it answered."""
    last = messages[-1]
    if last.type == "tool":
        return say(f"it said {last.text}")
    name, _, argument = str(last.text).partition(" ")
    if name == "say":
        return say(argument)
    return say("", (name, {"argument": argument}))


def echo(argument: str) -> str:
    """Answer the argument."""
    return argument


def pid(argument: str) -> str:
    """The process that this runs in."""
    return str(os.getpid())


def nap(argument: str) -> str:
    """Sleep for so many seconds."""
    time.sleep(float(argument))
    return "rested"


async def anap(argument: str) -> str:
    """Sleep for so many seconds, cancellable."""
    await asyncio.sleep(float(argument))
    return "rested"


def burn(argument: str) -> str:
    """Compute for so many rounds."""
    total = 0
    for n in range(int(argument)):
        total += n * n % 7
    return str(total)


class Unpicklable(Exception):
    """An exception that neither pickles nor loads."""

    def __init__(self, message: str, *, lock: Any) -> None:
        self.lock = lock
        super().__init__(message)


@tool(response_format="content_and_artifact")
def artifact(argument: str) -> tuple[str, Any]:
    """Answer with something that cannot leave its process."""
    return argument, threading.Lock()


async def misbehave(argument: str) -> str:
    """Do what the argument says."""
    await asyncio.sleep(0)
    return _DEEDS[argument]()


async def remember(argument: str) -> str:
    """Keep something in the long-term memory."""
    from langgraph.config import get_store

    await get_store().aput(("facts",), "colour", {"is": argument})
    return "kept"


async def peek(argument: str) -> str:
    """Try to read another session's checkpoint through this process's own way to them."""
    from agent_runtime.pool.isolation.remote_parts import RemoteCheckpointer

    try:
        found = await RemoteCheckpointer().aget_tuple({"configurable": {"thread_id": argument, "checkpoint_ns": ""}})
    except Exception as error:  # noqa: BLE001 - what it is, is the answer
        return type(error).__name__
    return f"read {found}"


def child(argument: str) -> str:
    """Start a process that stays, in a session of its own."""
    program = "import os, time; os.setsid(); time.sleep(600)"
    return str(subprocess.Popen([sys.executable, "-c", program]).pid)


def register(registry: Any) -> None:
    """What a pool's `setup` names."""

    def local(argument: str) -> str:
        """Answer."""
        return f"registered {argument}"

    registry.put(registry.tools, "local", local)


def hog(argument: str) -> str:
    """Busy in a thread for ever."""
    while True:
        pass


def _memory() -> str:
    kept = []
    while True:
        kept.append(bytearray(8 << 20))
        time.sleep(0.002)


def _loop() -> str:
    while True:
        pass


def _flood() -> str:
    while True:
        os.write(1, b"x" * 65_536)


def _fork() -> str:
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    os._exit(3)


def _daemon() -> str:
    program = "import os, time; os.setsid(); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", program])
    time.sleep(0.3)
    os._exit(4)


def _raise() -> str:
    raise Unpicklable("as told", lock=threading.Lock())


_DEEDS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "memory": _memory,
    "loop": _loop,
    "flood": _flood,
    "fork": _fork,
    "daemon": _daemon,
    "exit": lambda: os._exit(0),
    "raise": _raise,
    "leave": lambda: sys.exit(7),
}

TOOLS = {
    "echo": echo, "pid": pid, "nap": nap, "anap": anap, "burn": burn, "artifact": artifact, "misbehave": misbehave,
    "hog": hog, "child": child, "peek": peek, "remember": remember,
}  # fmt: skip
