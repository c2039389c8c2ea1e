"""Tools for agents in processes of their own.

Some answer, others do everything that a process can do wrong.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
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
    return str(_DEEDS[argument]())


async def remember(argument: str) -> str:
    """Keep something in the long-term memory."""
    from langgraph.config import get_store

    await get_store().aput(("facts",), "colour", {"is": argument})
    return "kept"


async def peek(argument: str) -> str:
    """Try to read another session's checkpoint through this process's own way to them."""
    from agent_runtime.remote.remote_parts import RemoteCheckpointer

    try:
        found = await RemoteCheckpointer().aget_tuple(
            {"configurable": {"thread_id": argument, "checkpoint_ns": ""}}
        )
    except Exception as error:  # noqa: BLE001 - what it is, is the answer
        return type(error).__name__
    return f"read {found}"


class Opaque:
    """A value that is written in one process and cannot be read in another."""

    def __reduce__(self) -> Any:
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> Opaque:
    if os.getpid() != pid:
        raise ValueError("not here")
    return Opaque()


async def chatter(argument: str) -> str:
    """Say something that cannot be read elsewhere, then go on talking."""
    from langgraph.config import get_stream_writer

    write = get_stream_writer()
    _UNDER_WAY.append("chatter")
    try:
        write(Opaque())
        for number in range(20):
            write({"secret of": argument, "n": number})
            await asyncio.sleep(0.05)
    finally:
        _UNDER_WAY.remove("chatter")
    return "said"


async def flood(argument: str) -> str:
    """Say a lot."""
    from langgraph.config import get_stream_writer

    write = get_stream_writer()
    for _ in range(100):
        write("x" * (4 << 20))
        await asyncio.sleep(0)
    return "said"


_LEFT: list[Any] = []
_UNDER_WAY: list[str] = []


def busy(argument: str) -> str:
    """What of earlier calls still runs in this process."""
    return ", ".join(_UNDER_WAY) or "nothing"


async def linger(argument: str) -> str:
    """Leave something running."""

    async def later() -> None:
        from agent_runtime.remote.channel import channel

        _UNDER_WAY.append("later")
        try:
            await asyncio.sleep(0.3)
            _LEFT.append(await channel().call("turn", "tool_results"))
        finally:
            _UNDER_WAY.remove("later")

    _LEFT.append(asyncio.create_task(later()))
    return "gone"


async def large(argument: str) -> str:
    """Fetch something large from the long-term memory."""
    from langgraph.config import get_store

    found = await get_store().aget(("large",), "it")
    return str(len(found.value["text"])) if found else "nothing"


def pretend(argument: str) -> str:
    """Raise what a pool would."""
    from agent_runtime.errors import WorkerDied

    raise WorkerDied(1)


def allocate(argument: str) -> str:
    """Ask for so many MiB at once."""
    return str(len(bytearray(int(argument) << 20)))


def variable(argument: str) -> str:
    """A variable of the environment."""
    return os.environ.get(argument, "none")


def configured(argument: str, config: RunnableConfig) -> str:
    """What the caller configured."""
    return str(config["configurable"].get(argument))


def twins(argument: str) -> str:
    """Fork, and return in both."""
    if os.fork() == 0:
        time.sleep(1)
    return "twin"


def slow_setup(registry: Any) -> None:
    """A setup that does not end."""
    time.sleep(600)


def child(argument: str) -> str:
    """Start a process that stays, in a session of its own."""
    program = "import os, time; os.setsid(); time.sleep(600)"
    return str(subprocess.Popen([sys.executable, "-c", program]).pid)


def register(registry: Any) -> None:
    """What a pool's `setup` names."""

    def local(argument: str) -> str:
        """Answer."""
        return f"registered {argument}"

    registry.register(registry.tools, "local", local)


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


_DEEDS: dict[str, Callable[[], Any]] = {
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
    "echo": echo, "pid": pid, "nap": nap, "anap": anap, "burn": burn, "artifact": artifact,
    "misbehave": misbehave,
    "hog": hog, "child": child, "chatter": chatter, "flood": flood, "linger": linger,
    "large": large,
    "pretend": pretend, "variable": variable, "configured": configured, "twins": twins,
    "peek": peek, "busy": busy, "allocate": allocate, "remember": remember,
}  # fmt: skip
