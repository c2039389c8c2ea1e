"""One worker process: its start, its pipe, its end."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import socket
import sys
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError
from agent_runtime.pool.process.orphan_reaper import guard_main
from agent_runtime.pool.process.process_tree import kill_family
from agent_runtime.pool.process.worker import MARK, worker_main
from agent_runtime.remote.link import Link
from agent_runtime.subprocess_output import OutputTail

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PRELOAD = "agent_runtime.pool.process.preload"
_ALIVE: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


def zygote(preload: Sequence[str] = ()) -> Any:
    """The context whose fork server has LangChain loaded.

    Raises ConfigurationError where there can be none.

    A program has one fork server: `preload` counts when it is the first to be started.
    """
    if sys.platform != "linux":
        raise ConfigurationError(
            "agents in processes of their own need Linux: /proc, process groups, a fork server"
        )
    if (
        multiprocessing.parent_process() is not None
        and multiprocessing.process.current_process().name == "agent"
    ):
        raise ConfigurationError(
            "a pool is started while this program is imported by an agent's process: start it "
            "under "
            "`if __name__ == '__main__':`"
        )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD, *preload])
    return context


async def warm_up(context: Any) -> None:
    """Start the fork server, which imports LangChain (about 1 s), and wait for it."""
    await asyncio.to_thread(forkserver.ensure_running)
    probe = context.Process(target=_nothing, name="agent")
    await asyncio.to_thread(probe.start)
    await asyncio.to_thread(probe.join)


def _nothing() -> None:
    """What the first process does."""


class Guard:
    """The process that ends the workers when the application cannot."""

    def __init__(self, context: Any) -> None:
        here, there = multiprocessing.Pipe()
        self._pipe: Connection = here
        self._process = context.Process(target=guard_main, args=(there,), name="agent", daemon=True)
        self._process.start()
        there.close()

    def tell(self, pid: int, instance_id: str, *, alive: bool) -> None:
        """Which workers there are."""
        self._pipe.send((alive, pid, instance_id))

    @property
    def pid(self) -> int | None:
        """The guard's own process id."""
        pid: int | None = self._process.pid
        return pid

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(5)


class WorkerProcess:
    """A worker from its start to its end. `on_exit` is called once, with its exit code (negative.

    A signal).

    The end is told by the fork server, which waits for it: a grandchild that holds the pipes open
    changes nothing.
    """

    def __init__(self, instance_id: str, process: Any, link: Link, output: OutputTail) -> None:
        self.instance_id = instance_id
        self._process = process
        self.link = link
        self._output = output
        self.pid: int = process.pid
        self.exited = asyncio.get_running_loop().create_future()
        self._on_exit: Callable[[int | None], None] | None = None
        asyncio.get_running_loop().add_reader(process.sentinel, self._ended)
        _ALIVE.add(self)

    @classmethod
    async def start(
        cls,
        context: Any,
        instance_id: str,
        *,
        on_message: Callable[[tuple[Any, ...]], None],
        on_broken: Callable[[Exception], None],
        on_output: Callable[[int], None],
        beat_s: float,
        address_space_mb: int,
    ) -> WorkerProcess:
        """Fork one; raises OSError when that cannot be done."""
        here, there = multiprocessing.Pipe()
        read, write = multiprocessing.Pipe(duplex=False)
        process = context.Process(
            target=worker_main,
            args=(there, write, instance_id, dict(os.environ), beat_s, address_space_mb),
            name="agent",
        )
        try:
            await asyncio.to_thread(process.start)
        finally:
            there.close()
            write.close()
        sock = socket.socket(fileno=os.dup(here.fileno()))
        here.close()
        output = OutputTail(os.dup(read.fileno()), on_output)
        read.close()
        sock.setblocking(False)
        return cls(instance_id, process, await Link.open(sock, on_message, on_broken), output)

    def when_ended(self, told: Callable[[int | None], None]) -> None:
        """Call `told` when the process has ended, also when it has already."""
        self._on_exit = told
        if self.exited.done():
            told(self.exited.result())

    @property
    def tail(self) -> str:
        """The last that it wrote."""
        return self._output.tail

    def kill(self) -> None:
        """Kill it and everything that it started."""
        kill_family(self.pid, MARK, self.instance_id)

    def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._process.sentinel)
        code: int | None = self._process.exitcode
        self.kill()  # what it started, and left
        _ALIVE.discard(self)
        loop.call_soon(self._tell_end, code, -1)

    def _tell_end(self, code: int | None, seen: int) -> None:
        self.link.resume()
        if (
            self.link.received != seen
        ):  # what it had sent before is in the socket still: that is read first
            asyncio.get_running_loop().call_soon(self._tell_end, code, self.link.received)
            return
        self._output.drain()
        self.link.close()
        self._output.close()
        self._process.close()
        if not self.exited.done():
            self.exited.set_result(code)
        if self._on_exit is not None:
            self._on_exit(code)


@atexit.register
def _end_all() -> None:
    """Kill the workers of a program that exits without closing its pools."""
    for process in list(_ALIVE):
        process.kill()
