"""Track and drain the running calls of an executor."""

from __future__ import annotations

import asyncio
from typing import Protocol

from langgraph.runtime import RunControl

from agent_runtime.errors import CallDrained
from agent_runtime.run.state import current_run
from agent_runtime.types import AgentContext, Progress


class Drainable(Protocol):
    """Stops a run after its step: LangGraph's RunControl, or a pool's instance."""

    def request_drain(self, reason: str) -> None:
        """Tell it."""


class CallTracker:
    """Track the running calls of an executor, and whether it accepts new ones."""

    def __init__(self) -> None:
        self.draining = False
        # By the call itself: its id may be chosen by its caller, and be another call's.
        self._controls: dict[Progress, Drainable] = {}
        self._tasks: dict[asyncio.Task[object], asyncio.AbstractEventLoop] = {}

    def enter(self, task: asyncio.Task[object]) -> bool:
        """Count a task's call and return True for its outermost, which has to `leave`.

        Raises CallDrained when no new calls are taken.
        """
        if (
            self.draining and current_run.get() is None
        ):  # an agent that another one calls belongs to that call
            raise CallDrained("the agent is shutting down and takes no new calls")
        if task in self._tasks:
            return False
        self._tasks[task] = task.get_loop()
        return True

    def leave(self, task: asyncio.Task[object]) -> None:
        """Count the call of a task no longer."""
        self._tasks.pop(task, None)

    @property
    def busy(self) -> bool:
        """Return whether calls are running."""
        return bool(self._tasks)

    def register_run(self, context: AgentContext) -> RunControl:
        """Return LangGraph's control of a run with a checkpoint, to stop it after a step."""
        control = self._controls[context.progress] = RunControl()
        if self.draining:  # the shutdown began while this run was getting ready
            control.request_drain("shutdown")
        return control

    def register_control(self, context: AgentContext, control: Drainable) -> None:
        """Register the control that stops a run elsewhere after its step."""
        self._controls[context.progress] = control
        if self.draining:
            control.request_drain("shutdown")

    def request_drain_all(self, reason: str) -> None:
        """Tell every run that has a checkpoint to stop after its step."""
        for control in list(self._controls.values()):
            control.request_drain(reason)

    def unregister_run(self, context: AgentContext) -> None:
        """Unregister a run."""
        self._controls.pop(context.progress, None)

    async def drain(self, grace_s: float) -> int:
        """Refuse new calls, stop runs with a session at their next step, and wait for the others.

        Returns how many had to be cancelled after `grace_s` seconds.
        """
        self.draining = True
        self.request_drain_all("shutdown")
        current_task = asyncio.current_task()
        if await self._wait_until_idle(current_task, grace_s):
            return 0
        unfinished_tasks = {
            task: loop for task, loop in list(self._tasks.items()) if task is not current_task
        }
        for task, loop in unfinished_tasks.items():
            loop.call_soon_threadsafe(task.cancel)
        await self._wait_until_idle(current_task, grace_s)
        return len(unfinished_tasks)

    async def _wait_until_idle(
        self, current_task: asyncio.Task[object] | None, timeout_s: float
    ) -> bool:
        # Sync calls run on a loop of their own, so their end is polled, not awaited.
        deadline = asyncio.get_running_loop().time() + timeout_s
        while any(task is not current_task for task in list(self._tasks)):
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True
