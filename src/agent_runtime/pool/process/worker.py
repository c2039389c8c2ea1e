"""The program of a worker process."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import TransferFailed
from agent_runtime.pool.process.process_tree import adopt_orphans, kill_descendants
from agent_runtime.remote.channel import Channel, current_job
from agent_runtime.remote.exceptions import serialize_exception
from agent_runtime.remote.frames import dumps, loads

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from agent_runtime.remote.worker_agent import WorkerAgent

STRAY_TASK_TIMEOUT_S = 0.2
INSTANCE_VARIABLE = "AGENT_RUNTIME_INSTANCE"
"""In the environment of a worker and of all that it starts: by it the stragglers are found."""


def worker_main(
    pipe: Connection,
    output: Connection,
    instance_id: str,
    environment: dict[str, str],
    heartbeat_s: float,
    address_space_mb: int,
) -> None:
    """Build the agent of the received specification and run its jobs until the pipe ends."""
    os.setsid()  # its own group, to be killed with its children
    adopt_orphans()
    os.environ.clear()  # the fork server's is as old as that
    os.environ.update(environment)
    os.environ[INSTANCE_VARIABLE] = instance_id
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space_mb:
        resource.setrlimit(resource.RLIMIT_AS, (address_space_mb << 20, address_space_mb << 20))
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the application's, which stops its workers
    for fd in (1, 2):
        os.dup2(output.fileno(), fd)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False, errors="replace")
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="replace")
    output.close()
    sock = socket.socket(fileno=os.dup(pipe.fileno()))
    pipe.close()
    channel = Channel(sock)
    channel.on_end = _kill_process_group
    asyncio.run(Worker(channel, heartbeat_s).main())


def _kill_process_group() -> None:
    """Kill this process's group and descendants: the application has ended."""
    kill_descendants()
    os.killpg(0, signal.SIGKILL)


class Worker:
    """One job at a time, and a sign of life between."""

    def __init__(self, channel: Channel, heartbeat_s: float) -> None:
        self._channel = channel
        self._heartbeat_s = heartbeat_s
        self._agent: WorkerAgent | None = None
        self._job_task: asyncio.Task[None] | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._cancel_requested = False

    async def main(self) -> None:
        """Serve until stopped."""
        loop = asyncio.get_running_loop()
        self._main_task = asyncio.current_task()
        self._channel.on_message = self._on_message
        self._channel.attach(loop)
        self._send_heartbeat()
        await self._stopped.wait()

    def _send_heartbeat(self) -> None:
        self._channel.send("beat")
        asyncio.get_running_loop().call_later(self._heartbeat_s, self._send_heartbeat)

    def _on_message(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "run":
            self._job_task = asyncio.get_running_loop().create_task(
                self._run_job(message[1], message[2])
            )
        elif kind == "cancel" and self._job_task is not None:
            self._cancel_requested = True
            self._job_task.cancel()
        elif kind == "drain" and self._agent is not None:
            self._agent.drain()
        elif kind == "make":
            self._build(message[1])
        elif kind == "stop":
            self._stopped.set()

    async def _cancel_stray_tasks(self) -> bool:
        """Cancel tasks that the job left on the loop; True when one does not end."""
        stray_tasks = asyncio.all_tasks() - {self._main_task, self._job_task}
        for task in stray_tasks:
            task.cancel()
        if not stray_tasks:
            return False
        _, still_running = await asyncio.wait(stray_tasks, timeout=STRAY_TASK_TIMEOUT_S)
        return bool(still_running)

    def _build(self, data: bytes) -> None:
        gc.disable()  # many objects at once, hardly any of them garbage
        try:
            from agent_runtime.remote.worker_agent import WorkerAgent

            self._agent = WorkerAgent(loads(data))
            gc.freeze()
        except BaseException as error:  # noqa: BLE001 - the application handles a failed start
            self._channel.send("unmade", dumps(serialize_exception(error)))
        else:
            self._channel.send("made")
        finally:
            gc.enable()

    async def _run_job(self, number: int, data: bytes) -> None:
        assert self._agent is not None  # noqa: S101 - a job comes after the agent is made
        progress: dict[str, Any] = {}
        message: list[Any]
        self._cancel_requested = False
        current_job.set(number)
        try:
            result, progress = await self._agent.run(loads(data))
            for name in ("usage", "run_id", "session_id", "template_digest"):
                setattr(result, name, None)  # the application knows these
            message = ["ok", number, dumps(result), progress]
        except BaseException as error:  # noqa: BLE001 - whatever an agent raises is the answer
            # SystemExit, or a cancellation without a request: this process is ending.
            process_ending = not isinstance(error, Exception) and not self._cancel_requested
            progress = {**self._agent.progress, "worn": process_ending}
            message = ["error", number, dumps(serialize_exception(error)), progress]
        if await self._cancel_stray_tasks():
            message[3]["worn"] = True
        self._job_task = None
        try:
            self._channel.send(*message)
        except TransferFailed as error:
            self._channel.send("error", number, dumps(serialize_exception(error)), progress)
