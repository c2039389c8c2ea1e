"""Run agents in separate processes, behind the same pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from agent_runtime.errors import ConfigurationError, InstanceFailed, PoolOverloaded
from agent_runtime.event_bus import Event
from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.pool.config import PoolConfig
from agent_runtime.pool.process.agent_versions import AgentVersions
from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus
from agent_runtime.pool.process.poison_tasks import PoisonTaskTracker
from agent_runtime.pool.process.process_agent import ProcessAgent
from agent_runtime.pool.process.scheduler import InstanceScheduler
from agent_runtime.pool.process.watchdog import Watchdog
from agent_runtime.pool.process.worker_process import (
    OrphanReaper,
    fork_server_context,
    start_fork_server,
)

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor
    from agent_runtime.orchestration.stream import AgentStream
    from agent_runtime.pool.process.instance_worker import InstanceWorker
    from agent_runtime.pool.task import AgentTask
    from agent_runtime.template import AgentTemplate
    from agent_runtime.types import AgentContext, AgentResult, Principal

T = TypeVar("T")


class AgentInstancePool:
    """Run a pool of processes, each with one agent that runs one task at a time.

    A call passes through the layers, the gate and the sessions of its factory in this process; an
    agent's graph and tools run in the instance. An agent type is a template's name or path. `async
    with` starts the pool and ends every process; it belongs to the loop that it was started on, and
    may be used from others and from threads.

    Args:
        factory: builds the agents, and everything around them.
        config: sizes and limits.
        dead_letters: receives tasks that repeatedly end their processes; in memory by default.

    Starting raises ConfigurationError where processes are not available (anything but Linux).
    """

    def __init__(
        self,
        factory: AgentFactory,
        config: PoolConfig | None = None,
        *,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self.factory = factory
        self.config = config or PoolConfig()
        self.dead_letters = dead_letters or MemoryDeadLetters()
        self.poison_tracker = PoisonTaskTracker(
            self.config.max_kills, self.dead_letters, self._publish_dead_letter
        )
        self.versions = AgentVersions(
            factory, self.config.setup, lambda name, saver: ProcessAgent(self, name, saver)
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduler: InstanceScheduler | None = None
        self._reaper: OrphanReaper | None = None
        self._watchdog_task: asyncio.Task[None] | None = None
        self.draining = False

    async def __aenter__(self) -> Self:
        context = fork_server_context(self.config.preload)
        self._loop = asyncio.get_running_loop()
        await start_fork_server(context)
        self._reaper = await asyncio.to_thread(OrphanReaper, context)
        self._scheduler = InstanceScheduler(
            self.config, context, self.versions, self._publish_status, self._track_process
        )
        self._watchdog_task = self._loop.create_task(Watchdog(self._scheduler, self.config).run())
        self._scheduler.reconcile()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watchdog_task is not None:
            self._watchdog_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._watchdog_task
        if self._scheduler is not None:
            await self._scheduler.close()
        if self._reaper is not None:
            await asyncio.to_thread(self._reaper.close)
        if isinstance(self.dead_letters, MemoryDeadLetters):
            await self.dead_letters.aclose()

    @property
    def closing(self) -> bool:
        """Return whether the pool is closing."""
        return self.scheduler.closing

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the pool runs on; raises ConfigurationError before its start."""
        if self._loop is None:
            raise ConfigurationError(
                "the pool is not started: `async with AgentInstancePool(...) as pool:`"
            )
        return self._loop

    @property
    def scheduler(self) -> InstanceScheduler:
        """Return the scheduler; raises ConfigurationError before the pool's start."""
        if self._scheduler is None:
            raise ConfigurationError(
                "the pool is not started: `async with AgentInstancePool(...) as pool:`"
            )
        return self._scheduler

    # -- agents

    def add_agent(
        self,
        agent: str,
        template: str | Path | AgentTemplate | None = None,
        inputs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        """Define an agent type as a template with its own inputs and overrides.

        Without this, a name is a template's.
        """
        self.versions.add(agent, template, inputs, overrides)

    def agent(self, agent: str) -> AgentExecutor:
        """Return the executor of an agent type, whose calls run in instances.

        Raises the factory's errors for a template that cannot be built, and NotPortable for one
        whose components cannot be sent to a process.
        """
        return self.versions.current(agent).executor

    async def run(self, task: AgentTask) -> AgentResult:
        """Run a task on an idle instance of its agent, or a new one, or after a wait.

        Raises as `AgentExecutor.execute`, and InstanceFailed (its kind says how), PoolOverloaded
        when too many wait, TaskPoisoned, InstanceStartFailed. Cancelling stops the task.
        """
        return await self._execute(task, None)

    def stream(self, task: AgentTask) -> AgentStream:
        """Run a task and stream it: `async with pool.stream(task) as stream.

        Async for text in stream`.
        """
        return self.agent(task.agent).execute_stream(self._make_context(task))

    def submit_task(self, instance_id: str, task: AgentTask) -> asyncio.Task[AgentResult]:
        """Queue a task for one instance. Await the returned task, or cancel it.

        Raises InstanceNotFound at once; awaiting raises as `run`.
        """
        self.scheduler.worker(instance_id)
        return asyncio.get_running_loop().create_task(self._execute(task, instance_id))

    async def _execute(self, task: AgentTask, instance_id: str | None) -> AgentResult:
        return await self.agent(task.agent).execute(self._make_context(task, instance_id))

    def _make_context(self, task: AgentTask, instance_id: str | None = None) -> AgentContext:
        if self.draining:
            raise PoolOverloaded("the pool is draining and takes no new tasks")
        context = task.to_context(instance_id)
        limit_s = self.config.task_timeout if task.timeout_s is None else task.timeout_s
        if limit_s is not None:
            context.deadline = asyncio.get_running_loop().time() + limit_s
        return context

    # -- instances

    async def create_instance(self, agent: str, context: Mapping[str, Any] | None = None) -> str:
        """Create an instance and wait until it is ready; return its id.

        `context` is added to the runtime context of its tasks. Raises PoolOverloaded when the pool
        is full, InstanceStartFailed or the errors of building the agent.
        """
        return await self._run_on_pool_loop(self._create_ready(agent, context))

    async def _create_ready(self, agent: str, context: Mapping[str, Any] | None) -> str:
        await self.versions.refresh(agent)
        return (await self.scheduler.create_ready(agent, context)).instance.id

    async def _run_on_pool_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the pool's own loop, whichever loop asks."""
        if asyncio.get_running_loop() is self.loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    async def warm_up(self, agent: str) -> None:
        """Wait for an instance of an agent, created if necessary. Raises as `create_instance`."""
        if not await self._run_on_pool_loop(self.scheduler.has_live_instance(agent)):
            await self.create_instance(agent)

    def get_instance_status(self, instance_id: str) -> AgentInstance:
        """Return the instance; raises InstanceNotFound."""
        return self.scheduler.worker(instance_id).instance

    async def shutdown_instance(self, instance_id: str, *, grace_s: float = 30.0) -> None:
        """End an instance.

        At once when it is idle, else after its task, which is stopped after `grace_s` seconds.

        Raises InstanceNotFound.
        """
        await self._run_on_pool_loop(
            self.scheduler.shutdown(self.scheduler.worker(instance_id), grace_s)
        )

    def get_pool_status(self) -> dict[str, Any]:
        """Return the pool's figures and its instances, JSON-ready."""
        workers = self.scheduler.workers.values()
        by_status = dict.fromkeys((str(status) for status in InstanceStatus), 0)
        for worker in workers:
            by_status[str(worker.instance.status)] += 1
        start_limiter = self.scheduler.start_limiter
        return {
            "size": self.config.size,
            "draining": self.draining,
            "instances": [worker.instance.to_dict() for worker in workers],
            "by_status": by_status,
            "queue": {
                "depth": len(self.scheduler.wait_queue),
                "limit": self.config.queue,
                **self.scheduler.wait_queue.depths(),
            },
            "memory_mb": round(sum(w.instance.memory_mb for w in workers), 1),
            "memory_limit_mb": sum(w.instance.memory_limit_mb for w in workers),
            "total_memory_mb": self.config.total_memory_mb,
            "starts": start_limiter.count,
            "start_failures": start_limiter.failures,
            "start_seconds": round(start_limiter.seconds, 3),
            "kills": self.poison_tracker.kills,
        }

    async def drain(self, grace_s: float = 30.0) -> int:
        """Take no new tasks.

        Stop those with a session at their next checkpoint, wait for the others.

        Returns how many had to be cancelled after `grace_s` seconds. Every task ends with a result
        or an error.
        """
        self.draining = True
        cancelled_counts = await asyncio.gather(
            *(agent.drain(grace_s) for agent in self.versions.executors())
        )
        return sum(cancelled_counts)

    # -- the pool's parts

    @asynccontextmanager
    async def lease(
        self, agent: str, task: AgentTask, principal: Principal | None, *, instance_id: str | None
    ) -> AsyncIterator[InstanceWorker]:
        """Lease an instance for the call of a task; an instance that dies counts against the task.

        Raises TaskPoisoned for a task that has killed too many, PoolOverloaded, and the errors of
        starting an instance.
        """
        self.poison_tracker.check(task.id, principal)
        await self.versions.refresh(agent)
        worker = await self.scheduler.acquire(agent, task.priority, instance_id)
        error: BaseException | None = None
        try:
            yield worker
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.on_task_end(worker, error)
            if error is None:
                self.poison_tracker.forget(task.id, principal)
            elif not self.closing and (failure := _instance_failure(worker)) is not None:
                await self.poison_tracker.record_kill(
                    task, principal, failure, quietly=error is not failure
                )

    def on_task_end(self, worker: InstanceWorker, error: BaseException | None) -> None:
        """Handle the end of a task; a live instance becomes idle."""
        instance = worker.instance
        if instance.alive:
            instance.tasks_done += 1
            if error is not None:
                instance.last_error = f"{type(error).__name__}: {error}"[:500]
            instance.transition_to(
                InstanceStatus.COMPLETED if error is None else InstanceStatus.ERROR
            )
        self.scheduler.release(worker)

    def _publish_status(self, instance: AgentInstance, previous_status: InstanceStatus) -> None:
        data: dict[str, Any] = {
            "instance_id": instance.id,
            "agent": instance.agent,
            "status": instance.status.value,
        }
        data["before"] = previous_status.value
        if instance.pid is not None:
            data["pid"] = instance.pid
        if instance.last_error:
            data["error"] = instance.last_error
        self.factory.event_bus.publish(Event("pool.instance", data, agent=instance.agent))

    def _track_process(self, instance: AgentInstance, is_alive: bool) -> None:
        if self._reaper is None or instance.pid is None:
            return
        try:
            self._reaper.track(instance.pid, instance.id, alive=is_alive)
        except OSError:  # it was killed from outside: another one replaces it
            self._reaper = OrphanReaper(fork_server_context(self.config.preload))
            for worker in self.scheduler.workers.values():
                if worker.instance.pid is not None:
                    self._reaper.track(worker.instance.pid, worker.instance.id, alive=True)

    def _publish_dead_letter(self, dead_letter: DeadLetter) -> None:
        data = {
            "letter_id": dead_letter.id,
            "queue": dead_letter.queue,
            "attempts": dead_letter.attempts,
            "error": dead_letter.error,
        }
        self.factory.event_bus.publish(Event("dead_letter.added", data))


def _instance_failure(worker: InstanceWorker) -> InstanceFailed | None:
    """Return the failure behind the end of the process, or its retirement, for the task."""
    if isinstance(worker.end_reason, InstanceFailed):
        return worker.end_reason
    if worker.leaked_threads:
        return InstanceFailed(
            "the task left something running: its process was ended", instance_id=worker.instance.id
        )
    return None
