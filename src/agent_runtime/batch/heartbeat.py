"""Renew an execution's lease, handle requests of other processes, and watch its running tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_runtime.batch.journal.records import RunnerRequest
from agent_runtime.batch.lease_times import HEARTBEAT_S, LEASE_S
from agent_runtime.errors import StoreError

if TYPE_CHECKING:
    from agent_runtime.batch.active_execution import ActiveExecution, ExecutionControl
    from agent_runtime.batch.attempt import Attempt

CHECK_INTERVAL_S = 0.25


class Heartbeat:
    """Runs beside the workers.

    `run` raises ExecutionLost when another process has taken the execution over.
    """

    def __init__(
        self,
        active: ActiveExecution,
        control: ExecutionControl,
        abandon: Callable[[Attempt], None],
    ) -> None:
        self._active = active
        self._control = control
        self._abandon = abandon

    async def run(self) -> None:
        """Keep until cancelled."""
        next_renewal = 0.0
        lease_expiry = time.monotonic() + LEASE_S
        while True:
            now = time.monotonic()
            if now >= next_renewal:
                next_renewal = now + HEARTBEAT_S
                try:
                    await self._renew_lease()
                    lease_expiry = now + LEASE_S
                except StoreError:
                    if now >= lease_expiry:  # another process may own it by now
                        raise
            self._check_slow_tasks()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def _renew_lease(self) -> None:
        active = self._active
        execution = active.execution
        request = await active.environment.journal.heartbeat(
            execution.id, execution.token, LEASE_S, active.progress_json()
        )
        if request:
            await active.environment.journal.ack_request(execution.id, request)
            await self._handle_request(request)
        backends = [slot.backend for slot in active.environment.load_balancer.backend_slots]
        pool_memory_mb = sum(
            float(pool_usage.memory_mb)
            for backend in backends
            if (pool_usage := getattr(backend, "usage", None)) is not None
        )
        active.progress.pool_memory_mb = max(active.progress.pool_memory_mb, pool_memory_mb)

    async def _handle_request(self, request: RunnerRequest) -> None:
        """Handle a request of another process."""
        if request == "cancel":
            self._control.end("cancelled", "asked")
        elif request == "pause":
            await self._control.pause()
        elif request == "run":
            await self._control.resume()

    def _check_slow_tasks(self) -> None:
        active = self._active
        for attempt in list(active.running.values()):
            running_s = attempt.duration_s
            if running_s >= active.settings.slow_after and not attempt.is_slow:
                attempt.is_slow = True
                active.progress.slow += 1
                data = {
                    "execution_id": active.execution.id,
                    "task_id": attempt.row.id,
                    "running_s": round(running_s, 3),
                }
                active.publish("batch.slow", data)
            if (
                running_s >= attempt.cancel_after_s + active.settings.grace
            ):  # it does not end by a cancel
                self._abandon(attempt)
            elif running_s >= attempt.cancel_after_s:
                attempt.stop()
