"""Control one instance's process: its start, its calls, its end."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import (
    InstanceFailed,
    OutputOverflow,
    WorkerDied,
    WorkerOutOfMemory,
    WorkerStalled,
)
from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus
from agent_runtime.pool.process.worker_process import WorkerProcess
from agent_runtime.remote.exceptions import deserialize_exception, serialize_exception
from agent_runtime.remote.frames import MAX_FRAME_BYTES, dumps, loads
from agent_runtime.remote.job_client import JobClient, make_job_request, reject_call
from agent_runtime.run.state import Run, current_run

if TYPE_CHECKING:
    from agent_runtime.pool.config import PoolConfig
    from agent_runtime.pool.process.agent_versions import AgentVersion
    from agent_runtime.types import AgentContext, AgentResult

HEARTBEAT_S = 1.0
"""How often a worker gives a sign of life, at most; with a short `stall_timeout` more often."""
_JOB_NUMBERS = itertools.count(1)


class InstanceWorker:
    """Run one instance.

    `on_start` is called when its process has started, `on_end` when it has ended.
    """

    def __init__(
        self,
        instance: AgentInstance,
        config: PoolConfig,
        on_start: Callable[[InstanceWorker], None],
        on_end: Callable[[InstanceWorker], None],
    ) -> None:
        self.instance = instance
        self._config = config
        self._on_start = on_start
        self._on_end = on_end
        self.version: AgentVersion | None = None
        self.process: WorkerProcess | None = None
        self._job: JobClient | None = None
        self._built: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.end_reason: BaseException | None = None
        self._build_requests: set[asyncio.Task[None]] = set()
        self.start_task: asyncio.Task[None] | None = None
        self._output_bytes = 0
        self._stop_deadline = float("inf")
        self.leaked_threads = False
        """The last task left something running: a tool in a thread."""
        self.tainted = False
        """It is not used for another task."""

    # -- start and end

    async def start(self, context: Any, version: AgentVersion) -> None:
        """Fork the process and build the agent in it.

        Raises the errors of building, InstanceFailed, or TimeoutError.
        """
        self.version = version
        try:
            async with asyncio.timeout(self._config.start_timeout):
                self.process = await WorkerProcess.start(
                    context,
                    self.instance.id,
                    on_message=self._on_message,
                    on_broken=self._on_broken,
                    on_output=self._on_output,
                    heartbeat_s=min(HEARTBEAT_S, self._config.stall_timeout / 4),
                    address_space_mb=self._config.address_space_mb,
                )
                self.instance.pid = self.process.pid
                self._on_start(self)
                self.process.set_exit_callback(self._on_process_exit)
                self.process.link.send("make", version.pickled_spec)
                await self._built
        except BaseException as error:
            self.kill(error)
            raise
        self.reset_heartbeat(asyncio.get_running_loop().time())
        self.instance.transition_to(InstanceStatus.IDLE)

    def stop(self) -> None:
        """Ask the process to end by itself; it is idle."""
        self._stop_deadline = asyncio.get_running_loop().time() + self._config.grace
        if self.instance.alive:
            self.instance.transition_to(InstanceStatus.SHUTTING)
        if self.process is not None:
            self.process.link.send("stop")

    def kill(self, reason: BaseException) -> None:
        """Kill the process and its children; a running task fails with `reason`."""
        if self.end_reason is None:
            self.end_reason = reason
        if self.instance.alive:
            self.instance.last_error = f"{type(reason).__name__}: {reason}"[:500]
            self.instance.transition_to(InstanceStatus.SHUTTING)
        if self.process is not None:
            self.process.kill()
        elif self.instance.status is not InstanceStatus.TERMINATED:
            self.instance.transition_to(InstanceStatus.TERMINATED)

    async def wait_ended(self) -> None:
        """Wait until the process has ended."""
        if self.process is not None:
            await asyncio.shield(self.process.exit_future)

    def _on_process_exit(self, code: int | None) -> None:
        reason = self.end_reason = self.end_reason or WorkerDied(
            code, instance_id=self.instance.id, tail=self._output_tail()
        )
        for task in self._build_requests:
            task.cancel()
        if not self._built.done():
            self._built.set_exception(reason if isinstance(reason, Exception) else WorkerDied(code))
            self._built.exception()  # retrieved in case of no waiter
        if self._job is not None:
            self._job.fail(reason)
        if self.instance.status is not InstanceStatus.TERMINATED:
            if not self.instance.last_error and self.instance.status is not InstanceStatus.SHUTTING:
                self.instance.last_error = str(reason)[:500]
            self.instance.transition_to(InstanceStatus.TERMINATED)
        self._on_end(self)

    def _output_tail(self) -> str:
        return "" if self.process is None else self.process.output_tail

    # -- a task

    async def run(self, call: AgentContext) -> AgentResult:
        """Run one call; raises the agent's error, or InstanceFailed.

        Cancelling stops it, by a kill if necessary.
        """
        run = current_run.get()
        assert run is not None  # noqa: S101 - the core has made one
        assert self.process is not None and self.version is not None  # noqa: S101, PT018 - it is idle
        self._output_bytes = 0
        job = self._job = JobClient(
            next(_JOB_NUMBERS), self.process.link, self.version.resources, run
        )
        error: BaseException = asyncio.CancelledError()
        try:
            return await self._run_job(job, call, run)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._job = None
            self.leaked_threads = job.tainted
            self.tainted = self.tainted or job.tainted
            await job.close(error)

    async def _run_job(self, job: JobClient, call: AgentContext, run: Run) -> AgentResult:
        try:
            return await job.run(make_job_request(call, run))
        except BaseException as error:
            if self.end_reason is None and self.instance.alive and not job.answered:
                await self._stop_job(
                    job
                )  # cancelled, or something failed here: over there it still runs
            if isinstance(error, InstanceFailed) and error is self.end_reason and error.tail:
                error.add_note(f"the last that it wrote:\n{error.tail[-2000:]}")
            raise

    async def _stop_job(self, job: JobClient) -> None:
        try:
            async with asyncio.timeout(self._config.grace):
                await job.stop()
        except TimeoutError:
            self.kill(
                WorkerStalled(
                    self._config.grace, instance_id=self.instance.id, tail=self._output_tail()
                )
            )
            await self.wait_ended()
        except asyncio.CancelledError:
            self.kill(asyncio.CancelledError("cancelled"))
            raise

    def request_drain(self, reason: str) -> None:
        """Stop the task at its next checkpoint."""
        if self.process is not None:
            self.process.link.send("drain")

    def _on_message(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if self._job is not None:
            self._job.on_message(message)
        elif kind == "call" and not self._built.done():
            task = asyncio.get_running_loop().create_task(
                self._answer_build_request(message[2], message[3], message[4])
            )
            self._build_requests.add(task)
            task.add_done_callback(self._build_requests.discard)
        elif kind == "call" and self.process is not None:
            reject_call(self.process.link, message[2])
        elif kind == "made" and not self._built.done():
            self._built.set_result(None)
        elif kind == "unmade" and not self._built.done():
            error = deserialize_exception(loads(message[1]), {})
            self._built.set_exception(
                error if isinstance(error, Exception) else RuntimeError(str(error))
            )

    async def _answer_build_request(self, number: int, method: str, data: bytes) -> None:
        assert self.process is not None and self.version is not None  # noqa: S101, PT018 - it has just asked
        link = self.process.link
        try:
            description = await asyncio.to_thread(
                self.version.resources.describe, method, loads(data)
            )
            link.send("reply", number, True, dumps(description))
        except Exception as error:  # noqa: BLE001 - it is the worker's start that fails with it
            link.send("reply", number, False, dumps(serialize_exception(error)))

    def _on_broken(self, error: Exception) -> None:
        self.kill(
            OutputOverflow(
                MAX_FRAME_BYTES >> 20, instance_id=self.instance.id, tail=self._output_tail()
            )
        )

    def _on_output(self, count: int) -> None:
        self._output_bytes += count
        if self._output_bytes > self._config.output_mb << 20:
            self.kill(
                OutputOverflow(
                    self._config.output_mb, instance_id=self.instance.id, tail=self._output_tail()
                )
            )

    # -- the watch

    def check_heartbeat(self, now_s: float) -> None:
        """Kill a process that gives no sign of life; `now_s` is the loop's time."""
        if self.process is not None and now_s > self._stop_deadline:
            self.process.kill()  # it was asked to end, and did not
        if self.process is None or not self.instance.alive or self.process.link.paused:
            return
        if self.instance.status is InstanceStatus.CREATING:
            return  # no heartbeat while it builds its agent, which has a separate limit
        limit_s = self._config.stall_timeout
        if now_s - self.process.link.last_received_time > limit_s:
            self.kill(
                WorkerStalled(limit_s, instance_id=self.instance.id, tail=self._output_tail())
            )

    def reset_heartbeat(self, now_s: float) -> None:
        """Reset the heartbeat deadline after the host itself was suspended."""
        if self.process is not None:
            self.process.link.last_received_time = now_s

    def check_memory(self, used_mb: float) -> None:
        """Kill a process that uses more than it may."""
        self.instance.memory_mb = used_mb
        limit_mb = self.instance.memory_limit_mb
        if used_mb > limit_mb and self.instance.alive:
            self.kill(
                WorkerOutOfMemory(
                    int(used_mb), limit_mb, instance_id=self.instance.id, tail=self._output_tail()
                )
            )

    def touch(self) -> None:
        """Record the start or end of a task."""
        self.instance.last_used_at = time.time()
