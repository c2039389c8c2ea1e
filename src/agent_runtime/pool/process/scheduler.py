"""Schedule the instances of a pool: assign them to calls, start new ones, retire idle ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import (
    AgentRuntimeError,
    ConfigurationError,
    InstanceNotFound,
    InstanceStartFailed,
    PoolOverloaded,
)
from agent_runtime.pool.process.capacity import Capacity
from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus
from agent_runtime.pool.process.instance_worker import InstanceWorker
from agent_runtime.pool.process.start_backoff import StartLimiter
from agent_runtime.pool.process.wait_queue import Waiter, WaitQueue
from agent_runtime.storage.fair_waiters import receive

if TYPE_CHECKING:
    from agent_runtime.pool.config import PoolConfig
    from agent_runtime.pool.process.agent_versions import AgentVersions
    from agent_runtime.pool.task import TaskPriority


class InstanceScheduler:
    """Assign instances to calls. An internal part of the pool, on its loop.

    Args:
        config: how many there may be.
        context: `multiprocessing`'s, of the fork server.
        versions: the agent types; no instance of an older version is assigned.
        on_change: called with each change of an instance's status.
        on_process: called when a process has started (True) and when it has ended.
    """

    def __init__(
        self,
        config: PoolConfig,
        context: Any,
        versions: AgentVersions,
        on_change: Callable[[AgentInstance, InstanceStatus], None],
        on_process: Callable[[AgentInstance, bool], None],
    ) -> None:
        self._config = config
        self._context = context
        self._versions = versions
        self._on_change = on_change
        self._on_process = on_process
        self.workers: dict[str, InstanceWorker] = {}
        self._capacity = Capacity(config, self.workers)
        self.wait_queue = WaitQueue()
        self.start_limiter = StartLimiter(config.starting)
        self._idle: dict[str, list[InstanceWorker]] = {}
        self._start_tasks: set[asyncio.Task[None]] = set()
        self.closing = False

    # -- getting one

    async def acquire(
        self, agent: str, priority: TaskPriority, instance_id: str | None
    ) -> InstanceWorker:
        """Return an idle instance, now running.

        Raises PoolOverloaded, InstanceStartFailed, InstanceNotFound.
        """
        if self.closing:
            raise PoolOverloaded("the pool is closing and takes no new tasks")
        self._retire_outdated(agent)
        if instance_id is None:
            if (idle := self._idle.get(agent)) and not self.wait_queue.count(agent):
                return self._take_idle(idle[-1])  # the one used last: its memory is warm
            self.start_limiter.raise_if_failing(agent)
        else:
            worker = self.worker(instance_id)
            if worker.instance.agent != agent:
                raise InstanceNotFound(
                    f"the instance '{instance_id}' is one of '{worker.instance.agent}'"
                )
            if worker in self._idle.get(agent, ()):
                return self._take_idle(worker)
        # A call for which an instance can be made does not wait in the queue, it waits for its
        # start.
        if len(self.wait_queue) >= self._config.queue and not (
            instance_id is None and self._has_capacity(agent)
        ):
            raise PoolOverloaded(f"all instances are busy and {len(self.wait_queue)} calls wait")
        waiter = self.wait_queue.add(agent, instance_id, priority)
        try:
            self.reconcile()
            return await receive(waiter.future, self.release)
        finally:
            self.wait_queue.remove(waiter)

    def release(self, worker: InstanceWorker) -> None:
        """Release an instance after its task."""
        worker.touch()
        instance = worker.instance
        instance.current_task = None
        if not instance.alive:
            return
        is_exhausted = worker.tainted or instance.tasks_done >= self._config.max_tasks
        if is_exhausted or self.closing or instance.memory_mb > 0.8 * instance.memory_limit_mb:
            worker.stop() if not worker.tainted else worker.kill(
                AgentRuntimeError("a task left threads behind")
            )
            return
        instance.transition_to(InstanceStatus.IDLE)
        self._make_available(worker)

    def worker(self, instance_id: str) -> InstanceWorker:
        """Return the worker of a live instance; raises InstanceNotFound."""
        worker = self.workers.get(instance_id)
        if worker is None or not worker.instance.alive:
            raise InstanceNotFound(f"there is no instance '{instance_id}'")
        return worker

    def _retire_outdated(self, agent: str) -> None:
        """End idle instances of an older version.

        The caller has seen to it that the latest one holds.
        """
        latest = self._versions.latest(agent)
        for worker in [
            idle_worker
            for idle_worker in self._idle.get(agent, ())
            if idle_worker.version is not latest
        ]:
            self.retire(worker)

    def _is_outdated(self, worker: InstanceWorker) -> bool:
        return worker.version is None or self._versions.is_outdated(worker.version)

    def _take_idle(self, worker: InstanceWorker) -> InstanceWorker:
        self._idle[worker.instance.agent].remove(worker)
        worker.instance.transition_to(InstanceStatus.RUNNING)
        worker.touch()
        return worker

    def _make_available(self, worker: InstanceWorker) -> None:
        """Assign an idle instance to a waiter, retire it for another agent's, or keep it."""
        self._idle.setdefault(worker.instance.agent, []).append(worker)
        self._assign(worker)
        self.reconcile()

    def _assign(self, worker: InstanceWorker) -> None:
        agent = worker.instance.agent
        waiter = self.wait_queue.next_for(agent, worker.instance.id)
        if waiter is None:
            return
        if self._is_outdated(worker) or (
            waiter.instance_id is None and self._is_needed_elsewhere(agent, waiter)
        ):
            self.retire(worker)  # the waiter gets a new one, or the next one
            return
        self.wait_queue.remove(waiter)
        waiter.future.set_result(self._take_idle(worker))

    def _is_needed_elsewhere(self, agent: str, waiter: Waiter) -> bool:
        """Tell whether a more urgent call of another agent needs an instance of this one."""
        other_waiter = self.wait_queue.peek(exclude=agent)
        if (
            other_waiter is None
            or other_waiter.rank[0] >= waiter.rank[0]
            or self._capacity.count(other_waiter.agent, InstanceStatus.CREATING)
        ):
            return False
        return self._capacity.fits_agent_limit(other_waiter.agent) and not self._capacity.fits_pool(
            other_waiter.agent
        )

    # -- making them

    def create(self, agent: str, context: Mapping[str, Any] | None = None) -> InstanceWorker:
        """Begin to make an instance.

        Raises PoolOverloaded when there may be no more, InstanceStartFailed.
        """
        self.start_limiter.raise_if_failing(agent)
        if not self._has_capacity(agent):
            raise PoolOverloaded(f"there may be no further instance of '{agent}' now")
        instance = AgentInstance(agent, dict(context or {}), on_change=self._on_change)
        instance.memory_limit_mb = self._config.memory_of(agent)
        worker = InstanceWorker(
            instance, self._config, self._on_process_start, self._on_process_end
        )
        self.workers[instance.id] = worker
        self._on_change(instance, InstanceStatus.CREATING)
        task = asyncio.get_running_loop().create_task(self._start(worker))
        self._start_tasks.add(task)
        task.add_done_callback(self._start_tasks.discard)
        worker.start_task = task
        return worker

    async def _start(self, worker: InstanceWorker) -> None:
        agent = worker.instance.agent
        try:
            async with self.start_limiter.slot(agent):
                await self._versions.refresh(agent)
                await worker.start(self._context, self._versions.current(agent))
        except Exception as error:  # noqa: BLE001 - a start that fails is the waiting calls' error
            worker.kill(error)
            self._handle_start_failure(agent, error)
            if worker.process is None:
                self._on_process_end(worker)
            return
        if worker.tainted:
            worker.stop()  # it was shut down meanwhile
        elif worker.instance.alive:
            self._make_available(worker)

    def _handle_start_failure(self, agent: str, error: Exception) -> None:
        retry_after_s = self.start_limiter.record_failure(agent, error)
        if retry_after_s is None or isinstance(error, ConfigurationError):
            self.start_limiter.last_error[agent] = error
            for waiter in self.wait_queue.waiters_for(agent, None):
                start_error = InstanceStartFailed(
                    agent, f"{type(error).__name__}: {error}", retry_after_s or 0.0
                )
                start_error.__cause__ = error
                if not waiter.future.done():
                    waiter.future.set_exception(start_error)
            return
        asyncio.get_running_loop().call_later(retry_after_s, self.reconcile)

    async def create_ready(self, agent: str, context: Mapping[str, Any] | None) -> InstanceWorker:
        """Create an instance and wait until it is ready.

        Raises as `create`, and the errors of its start.
        """
        if not self._has_capacity(agent) and not self.closing:
            self._evict_idle_for(agent)
            ending_workers = [
                w for w in self.workers.values() if w.instance.status is InstanceStatus.SHUTTING
            ]
            await asyncio.gather(*(w.wait_ended() for w in ending_workers))
        worker = self.create(agent, context)
        assert worker.start_task is not None  # noqa: S101 - `create` has begun it
        await asyncio.shield(worker.start_task)
        if not worker.instance.alive:
            error = self.start_limiter.last_error.get(agent) or worker.end_reason
            raise InstanceStartFailed(agent, f"{type(error).__name__}: {error}") from error
        return worker

    async def has_live_instance(self, agent: str) -> bool:
        """Wait for starting instances; return whether the agent has a live one."""
        agent_workers = [
            worker for worker in self.workers.values() if worker.instance.agent == agent
        ]
        await asyncio.gather(
            *(
                asyncio.shield(worker.start_task)
                for worker in agent_workers
                if worker.start_task is not None
            )
        )
        return any(worker.instance.alive for worker in agent_workers)

    async def shutdown(self, worker: InstanceWorker, grace_s: float) -> None:
        """End an instance, a busy one after its task or after `grace_s` seconds."""
        if worker.instance.status is InstanceStatus.IDLE:
            self.retire(worker)
        else:
            worker.tainted = True  # it is not reused
        try:
            async with asyncio.timeout(grace_s):
                await worker.wait_ended()
        except TimeoutError:
            worker.kill(
                PoolOverloaded(
                    f"the instance was shut down {grace_s:g} s ago and its task has not ended"
                )
            )
            await worker.wait_ended()

    def reconcile(self) -> None:
        """Assign idle instances to waiting calls, start others, keep the warm ones."""
        if self.closing:
            return
        for agent in self.wait_queue.agents_by_urgency():
            for worker in list(self._idle.get(agent, ())):
                self._assign(worker)
            starts_needed = self.wait_queue.count(agent) - self._capacity.count(
                agent, InstanceStatus.CREATING
            )
            while (
                starts_needed > 0
                and self.start_limiter.can_start(agent)
                and self._has_capacity(agent)
            ):
                self._try_create(agent)
                starts_needed -= 1
            if starts_needed > 0:
                self._evict_idle_for(agent)
        for agent, limits in self._config.agents.items():
            ready_count = self._capacity.count(agent, InstanceStatus.CREATING, InstanceStatus.IDLE)
            while (
                ready_count < limits.warm
                and self.start_limiter.can_start(agent)
                and self._has_capacity(agent)
            ):
                self._try_create(agent)
                ready_count += 1

    def _try_create(self, agent: str) -> None:
        try:
            self.create(agent)
        except AgentRuntimeError as error:
            self._handle_start_failure(agent, error)

    def _has_capacity(self, agent: str) -> bool:
        return (
            not self.closing
            and self._capacity.fits_agent_limit(agent)
            and self._capacity.fits_pool(agent)
        )

    def _evict_idle_for(self, agent: str) -> None:
        """Stop another agent's least recently used idle instance where that frees capacity."""
        if not self._capacity.fits_agent_limit(agent) or self._capacity.fits_pool(agent):
            return
        if any(
            instance.status is InstanceStatus.SHUTTING
            for instance in self._capacity.live_instances()
        ):
            return  # room is being made already
        idle_workers = [
            worker
            for other_agent, workers in self._idle.items()
            if other_agent != agent
            for worker in workers
        ]
        if idle_workers:
            self.retire(min(idle_workers, key=lambda worker: worker.instance.last_used_at))

    def retire(self, worker: InstanceWorker) -> None:
        """End an idle instance."""
        if worker in (idle := self._idle.get(worker.instance.agent, [])):
            idle.remove(worker)
        worker.stop()

    def _on_process_start(self, worker: InstanceWorker) -> None:
        self._on_process(worker.instance, True)

    def _on_process_end(self, worker: InstanceWorker) -> None:
        instance = worker.instance
        self.workers.pop(instance.id, None)
        if worker in (idle := self._idle.get(instance.agent, [])):
            idle.remove(worker)
        self._on_process(instance, False)
        for waiter in self.wait_queue.waiters_for(instance.agent, instance.id):
            if not waiter.future.done():
                waiter.future.set_exception(
                    InstanceNotFound(f"the instance '{instance.id}' has ended")
                )
        self.reconcile()

    async def close(self) -> None:
        """Kill every instance, and wait until all have ended."""
        self.closing = True
        for waiter in self.wait_queue.all():
            waiter.future.set_exception(PoolOverloaded("the pool was closed"))
        for task in list(self._start_tasks):
            task.cancel()
        await asyncio.gather(*self._start_tasks, return_exceptions=True)
        workers = list(self.workers.values())
        for worker in workers:
            worker.kill(PoolOverloaded("the pool was closed"))
        await asyncio.gather(*(worker.wait_ended() for worker in workers))
