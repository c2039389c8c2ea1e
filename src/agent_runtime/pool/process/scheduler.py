"""The instances of a pool: which there are, who gets one, when another is made, when one goes."""

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
from agent_runtime.pool.process.capacity import Room
from agent_runtime.pool.process.instance import AgentInstance, InstanceStatus
from agent_runtime.pool.process.instance_worker import InstanceWorker
from agent_runtime.pool.process.start_backoff import Starts
from agent_runtime.pool.process.wait_queue import Waiter, Waiting

if TYPE_CHECKING:
    from agent_runtime.pool.config import PoolConfig
    from agent_runtime.pool.process.agent_versions import Catalog
    from agent_runtime.pool.task import TaskPriority


class Roster:
    """Hands out instances. One of the pool's own parts: all of it runs on the pool's loop.

    Args:
        config: how many there may be.
        context: `multiprocessing`'s, of the fork server.
        catalog: the agent types; of an older version no instance is handed out.
        on_change: told each change of an instance's state.
        on_process: told when a process has begun (True) and when it has ended.
    """

    def __init__(
        self,
        config: PoolConfig,
        context: Any,
        catalog: Catalog,
        on_change: Callable[[AgentInstance, InstanceStatus], None],
        on_process: Callable[[AgentInstance, bool], None],
    ) -> None:
        self._config = config
        self._context = context
        self._catalog = catalog
        self._on_change = on_change
        self._on_process = on_process
        self.workers: dict[str, InstanceWorker] = {}
        self._room = Room(config, self.workers)
        self.waiting = Waiting()
        self.starts = Starts(config.starting)
        self._idle: dict[str, list[InstanceWorker]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.closing = False

    # -- getting one
    # ---------------------------------------------------------------------------------------

    async def acquire(
        self, agent: str, priority: TaskPriority, instance_id: str | None
    ) -> InstanceWorker:
        """An idle instance, running from now on.

        Raises PoolOverloaded, InstanceStartFailed, InstanceNotFound.
        """
        if self.closing:
            raise PoolOverloaded("the pool is closing and takes no new tasks")
        self._refresh(agent)
        if instance_id is None:
            if (idle := self._idle.get(agent)) and not self.waiting.count(agent):
                return self._taken(idle[-1])  # the one used last: its memory is warm
            self.starts.check(agent)
        else:
            worker = self.worker(instance_id)
            if worker.instance.agent != agent:
                raise InstanceNotFound(
                    f"the instance '{instance_id}' is one of '{worker.instance.agent}'"
                )
            if worker in self._idle.get(agent, ()):
                return self._taken(worker)
        # A call for which an instance can be made does not wait in the queue, it waits for its
        # start.
        if len(self.waiting) >= self._config.queue and not (
            instance_id is None and self._has_room(agent)
        ):
            raise PoolOverloaded(f"all instances are busy and {len(self.waiting)} calls wait")
        waiter = self.waiting.add(agent, instance_id, priority)
        try:
            self.make_room()
            return await waiter.given
        except asyncio.CancelledError:
            if (
                waiter.given.done()
                and not waiter.given.cancelled()
                and waiter.given.exception() is None
            ):
                self.release(
                    waiter.given.result()
                )  # it was given in the moment of the cancellation
            raise
        finally:
            self.waiting.left(waiter)

    def release(self, worker: InstanceWorker) -> None:
        """The instance's task has ended."""
        worker.used()
        instance = worker.instance
        instance.current_task = None
        if not instance.alive:
            return
        worn = worker.worn or instance.tasks_done >= self._config.max_tasks
        if worn or self.closing or instance.memory_mb > 0.8 * instance.memory_limit_mb:
            worker.stop() if not worker.worn else worker.kill(
                AgentRuntimeError("a task left threads behind")
            )
            return
        instance.move(InstanceStatus.IDLE)
        self._offer(worker)

    def worker(self, instance_id: str) -> InstanceWorker:
        """The worker of a living instance; raises InstanceNotFound."""
        worker = self.workers.get(instance_id)
        if worker is None or not worker.instance.alive:
            raise InstanceNotFound(f"there is no instance '{instance_id}'")
        return worker

    def _refresh(self, agent: str) -> None:
        """End idle instances of an older version.

        The caller has seen to it that the latest one holds.
        """
        latest = self._catalog.latest(agent)
        for worker in [each for each in self._idle.get(agent, ()) if each.version is not latest]:
            self.retire(worker)

    def _is_outdated(self, worker: InstanceWorker) -> bool:
        return worker.version is None or self._catalog.is_outdated(worker.version)

    def _taken(self, worker: InstanceWorker) -> InstanceWorker:
        self._idle[worker.instance.agent].remove(worker)
        worker.instance.move(InstanceStatus.RUNNING)
        worker.used()
        return worker

    def _offer(self, worker: InstanceWorker) -> None:
        """An instance is idle: it serves who waits, makes room for another agent's, or stays."""
        self._idle.setdefault(worker.instance.agent, []).append(worker)
        self._serve(worker)
        self.make_room()

    def _serve(self, worker: InstanceWorker) -> None:
        agent = worker.instance.agent
        mine = self.waiting.next_for(agent, worker.instance.id)
        if mine is None:
            return
        if self._is_outdated(worker) or (
            mine.instance_id is None and self._is_needed_elsewhere(agent, mine)
        ):
            self.retire(worker)  # who waits gets a new one, or the next one
            return
        self.waiting.left(mine)
        mine.given.set_result(self._taken(worker))

    def _is_needed_elsewhere(self, agent: str, mine: Waiter) -> bool:
        """Tell whether a more urgent call of another agent needs an instance of this one."""
        other = self.waiting.first(but=agent)
        if (
            other is None
            or other.rank[0] >= mine.rank[0]
            or self._room.count(other.agent, InstanceStatus.CREATING)
        ):
            return False
        return self._room.within_limit(other.agent) and not self._room.within_pool(other.agent)

    # -- making them
    # ---------------------------------------------------------------------------------------

    def create(self, agent: str, context: Mapping[str, Any] | None = None) -> InstanceWorker:
        """Begin to make an instance.

        Raises PoolOverloaded when there may be no more, InstanceStartFailed.
        """
        self.starts.check(agent)
        if not self._has_room(agent):
            raise PoolOverloaded(f"there may be no further instance of '{agent}' now")
        instance = AgentInstance(agent, dict(context or {}), on_change=self._on_change)
        instance.memory_limit_mb = self._config.memory_of(agent)
        worker = InstanceWorker(instance, self._config, self._process_begun, self._process_ended)
        self.workers[instance.id] = worker
        self._on_change(instance, InstanceStatus.CREATING)
        task = asyncio.get_running_loop().create_task(self._start(worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        worker.started = task
        return worker

    async def _start(self, worker: InstanceWorker) -> None:
        agent = worker.instance.agent
        try:
            async with self.starts.one(agent):
                await self._catalog.refresh(agent)
                await worker.start(self._context, self._catalog.current(agent))
        except Exception as error:  # noqa: BLE001 - a start that fails is the waiting calls' error
            worker.kill(error)
            self._start_failed(agent, error)
            if worker.process is None:
                self._process_ended(worker)
            return
        if worker.worn:
            worker.stop()  # it was shut down meanwhile
        elif worker.instance.alive:
            self._offer(worker)

    def _start_failed(self, agent: str, error: Exception) -> None:
        again_s = self.starts.failed(agent, error)
        if again_s is None or isinstance(error, ConfigurationError):
            self.starts.last_error[agent] = error
            for waiter in self.waiting.of_place(agent, None):
                failed = InstanceStartFailed(
                    agent, f"{type(error).__name__}: {error}", again_s or 0.0
                )
                failed.__cause__ = error
                if not waiter.given.done():
                    waiter.given.set_exception(failed)
            return
        asyncio.get_running_loop().call_later(again_s, self.make_room)

    async def create_ready(self, agent: str, context: Mapping[str, Any] | None) -> InstanceWorker:
        """Make an instance and wait until it is ready.

        Raises as `create`, and what its start raises.
        """
        if not self._has_room(agent) and not self.closing:
            self._evict_for(agent)
            going = [
                w for w in self.workers.values() if w.instance.status is InstanceStatus.SHUTTING
            ]
            await asyncio.gather(*(w.ended() for w in going))
        worker = self.create(agent, context)
        assert worker.started is not None  # noqa: S101 - `create` has begun it
        await asyncio.shield(worker.started)
        if not worker.instance.alive:
            error = self.starts.last_error.get(agent) or worker.reason
            raise InstanceStartFailed(agent, f"{type(error).__name__}: {error}") from error
        return worker

    async def has_one(self, agent: str) -> bool:
        """Wait for starting instances and tell whether the agent has a live one."""
        mine = [worker for worker in self.workers.values() if worker.instance.agent == agent]
        await asyncio.gather(
            *(asyncio.shield(worker.started) for worker in mine if worker.started is not None)
        )
        return any(worker.instance.alive for worker in mine)

    async def shut(self, worker: InstanceWorker, grace_s: float) -> None:
        """End an instance, a busy one after its task or after `grace_s` seconds."""
        if worker.instance.status is InstanceStatus.IDLE:
            self.retire(worker)
        else:
            worker.worn = True  # it is not used again
        try:
            async with asyncio.timeout(grace_s):
                await worker.ended()
        except TimeoutError:
            worker.kill(
                PoolOverloaded(
                    f"the instance was shut down {grace_s:g} s ago and its task has not ended"
                )
            )
            await worker.ended()

    def make_room(self) -> None:
        """Assign idle instances to waiting calls, start others, keep the warm ones."""
        if self.closing:
            return
        for agent in self.waiting.agents():
            for worker in list(self._idle.get(agent, ())):
                self._serve(worker)
            wanted = self.waiting.count(agent) - self._room.count(agent, InstanceStatus.CREATING)
            while wanted > 0 and self.starts.ready(agent) and self._has_room(agent):
                self._create_for(agent)
                wanted -= 1
            if wanted > 0:
                self._evict_for(agent)
        for agent, limits in self._config.agents.items():
            ready = self._room.count(agent, InstanceStatus.CREATING, InstanceStatus.IDLE)
            while ready < limits.warm and self.starts.ready(agent) and self._has_room(agent):
                self._create_for(agent)
                ready += 1

    def _create_for(self, agent: str) -> None:
        try:
            self.create(agent)
        except AgentRuntimeError as error:
            self._start_failed(agent, error)

    def _has_room(self, agent: str) -> bool:
        return not self.closing and self._room.within_limit(agent) and self._room.within_pool(agent)

    def _evict_for(self, agent: str) -> None:
        """Stop another agent's least recently used idle instance where that frees capacity."""
        if not self._room.within_limit(agent) or self._room.within_pool(agent):
            return
        if any(each.status is InstanceStatus.SHUTTING for each in self._room.living()):
            return  # room is being made already
        idle = [
            worker for kind, workers in self._idle.items() if kind != agent for worker in workers
        ]
        if idle:
            self.retire(min(idle, key=lambda worker: worker.instance.last_used_s))

    def retire(self, worker: InstanceWorker) -> None:
        """End an idle instance."""
        if worker in (idle := self._idle.get(worker.instance.agent, [])):
            idle.remove(worker)
        worker.stop()

    def _process_begun(self, worker: InstanceWorker) -> None:
        self._on_process(worker.instance, True)

    def _process_ended(self, worker: InstanceWorker) -> None:
        instance = worker.instance
        self.workers.pop(instance.id, None)
        if worker in (idle := self._idle.get(instance.agent, [])):
            idle.remove(worker)
        self._on_process(instance, False)
        for waiter in self.waiting.of_place(instance.agent, instance.id):
            if not waiter.given.done():
                waiter.given.set_exception(
                    InstanceNotFound(f"the instance '{instance.id}' has ended")
                )
        self.make_room()

    async def close(self) -> None:
        """Kill every instance, and wait until all have ended."""
        self.closing = True
        for waiter in self.waiting.everybody():
            waiter.given.set_exception(PoolOverloaded("the pool was closed"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        workers = list(self.workers.values())
        for worker in workers:
            worker.kill(PoolOverloaded("the pool was closed"))
        await asyncio.gather(*(worker.ended() for worker in workers))
