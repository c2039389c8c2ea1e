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
from agent_runtime.pool.process.orphan_reaper import reaper_main
from agent_runtime.pool.process.process_tree import kill_process_tree
from agent_runtime.pool.process.worker import INSTANCE_VARIABLE, worker_main
from agent_runtime.remote.link import Link
from agent_runtime.subprocess_output import OutputTail

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PRELOAD = "agent_runtime.pool.process.preload"
_LIVE_PROCESSES: weakref.WeakSet[WorkerProcess] = weakref.WeakSet()


def fork_server_context(preload: Sequence[str] = ()) -> Any:
    """Return the context of a fork server with LangChain loaded.

    Raises ConfigurationError where it is not available. A program has one fork server: `preload`
    counts for the first one started.
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


async def start_fork_server(context: Any) -> None:
    """Start the fork server, which imports LangChain (about 1 s), and wait for it."""
    await asyncio.to_thread(forkserver.ensure_running)
    probe = context.Process(target=_noop, name="agent")
    await asyncio.to_thread(probe.start)
    await asyncio.to_thread(probe.join)


def _noop() -> None:
    """Do nothing, as the first process."""


class OrphanReaper:
    """The process that ends the workers when the application cannot."""

    def __init__(self, context: Any) -> None:
        parent_end, child_end = multiprocessing.Pipe()
        self._pipe: Connection = parent_end
        self._process = context.Process(
            target=reaper_main, args=(child_end,), name="agent", daemon=True
        )
        self._process.start()
        child_end.close()

    def track(self, pid: int, instance_id: str, *, alive: bool) -> None:
        """Track the start or end of a worker."""
        self._pipe.send((alive, pid, instance_id))

    @property
    def pid(self) -> int | None:
        """Return the reaper's own process id."""
        pid: int | None = self._process.pid
        return pid

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(5)


class WorkerProcess:
    """Run a worker process.

    `on_exit` is called once, with the exit code, which is negative after a signal. The fork server
    reports the end, because it waits for the process: a grandchild with open pipes changes nothing.
    """

    def __init__(self, instance_id: str, process: Any, link: Link, output: OutputTail) -> None:
        self.instance_id = instance_id
        self._process = process
        self.link = link
        self._output = output
        self.pid: int = process.pid
        self.exit_future = asyncio.get_running_loop().create_future()
        self._on_exit: Callable[[int | None], None] | None = None
        asyncio.get_running_loop().add_reader(process.sentinel, self._on_sentinel)
        _LIVE_PROCESSES.add(self)

    @classmethod
    async def start(
        cls,
        context: Any,
        instance_id: str,
        *,
        on_message: Callable[[tuple[Any, ...]], None],
        on_broken: Callable[[Exception], None],
        on_output: Callable[[int], None],
        heartbeat_s: float,
        address_space_mb: int,
    ) -> WorkerProcess:
        """Fork one; raises OSError when that cannot be done."""
        parent_end, child_end = multiprocessing.Pipe()
        output_reader, output_writer = multiprocessing.Pipe(duplex=False)
        process = context.Process(
            target=worker_main,
            args=(
                child_end,
                output_writer,
                instance_id,
                dict(os.environ),
                heartbeat_s,
                address_space_mb,
            ),
            name="agent",
        )
        try:
            await asyncio.to_thread(process.start)
        finally:
            child_end.close()
            output_writer.close()
        sock = socket.socket(fileno=os.dup(parent_end.fileno()))
        parent_end.close()
        output = OutputTail(os.dup(output_reader.fileno()), on_output)
        output_reader.close()
        sock.setblocking(False)
        return cls(instance_id, process, await Link.open(sock, on_message, on_broken), output)

    def set_exit_callback(self, on_exit: Callable[[int | None], None]) -> None:
        """Call `on_exit` when the process has ended, also when it has already."""
        self._on_exit = on_exit
        if self.exit_future.done():
            on_exit(self.exit_future.result())

    @property
    def output_tail(self) -> str:
        """Return the last of its output."""
        return self._output.tail

    def kill(self) -> None:
        """Kill it and everything that it started."""
        kill_process_tree(self.pid, INSTANCE_VARIABLE, self.instance_id)

    def _on_sentinel(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._process.sentinel)
        code: int | None = self._process.exitcode
        self.kill()  # its remaining children
        _LIVE_PROCESSES.discard(self)
        loop.call_soon(self._notify_exit, code, -1)

    def _notify_exit(self, code: int | None, last_received: int) -> None:
        self.link.resume()
        if self.link.received_count != last_received:  # messages still in the socket are read first
            asyncio.get_running_loop().call_soon(self._notify_exit, code, self.link.received_count)
            return
        self._output.drain()
        self.link.close()
        self._output.close()
        self._process.close()
        if not self.exit_future.done():
            self.exit_future.set_result(code)
        if self._on_exit is not None:
            self._on_exit(code)


@atexit.register
def _kill_all() -> None:
    """Kill the workers of a program that exits without closing its pools."""
    for process in list(_LIVE_PROCESSES):
        process.kill()
