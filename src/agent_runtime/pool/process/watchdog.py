"""The watch over a pool's processes.

Signs of life, memory of each and all that it starts, idleness.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from agent_runtime.pool.process.instance import InstanceStatus
from agent_runtime.pool.process.process_tree import process_trees, rss_mb

if TYPE_CHECKING:
    from agent_runtime.pool.config import PoolConfig
    from agent_runtime.pool.process.instance_worker import InstanceWorker
    from agent_runtime.pool.process.scheduler import InstanceScheduler

TICK_S = 0.1
PROCESS_TREE_TICKS = 5
"""The processes that an instance started are looked for at every fifth tick.

That reads all of /proc.
"""
MAX_TICK_DELAY_S = 1.0
"""A tick this late means that this process was suspended, not its workers."""


class Watchdog:
    """Looks at every worker ten times a second."""

    def __init__(self, scheduler: InstanceScheduler, config: PoolConfig) -> None:
        self._scheduler = scheduler
        self._config = config
        self._process_trees: dict[int, set[int]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        ticks = 0
        previous_tick = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            workers = list(self._scheduler.workers.values())
            if now - previous_tick > TICK_S + MAX_TICK_DELAY_S:
                for worker in workers:
                    worker.reset_heartbeat(now)
            previous_tick = now
            ticks = ticks + 1
            if ticks % PROCESS_TREE_TICKS == 1:
                pids = [w.process.pid for w in workers if w.process is not None]
                self._process_trees = process_trees(pids) if pids else {}
            for worker in workers:
                worker.check_heartbeat(now)
                self._check_memory(worker)
            self._check_idle(workers)

    def _check_memory(self, worker: InstanceWorker) -> None:
        if worker.process is None:
            return
        pid = worker.process.pid
        worker.check_memory(
            sum(rss_mb(member_pid) for member_pid in self._process_trees.get(pid, {pid}))
        )

    def _check_idle(self, workers: list[InstanceWorker]) -> None:
        if (limit_s := self._config.idle_timeout) is None:
            return
        now = time.time()
        for worker in workers:
            instance = worker.instance
            if instance.status is InstanceStatus.IDLE and now - instance.last_used_at > limit_s:
                idle_count = sum(
                    w.instance.agent == instance.agent and w.instance.status is InstanceStatus.IDLE
                    for w in workers
                )
                if idle_count > self._config.limits_for(instance.agent).warm:
                    self._scheduler.retire(worker)
                    return  # one at a time: the next tick counts again
