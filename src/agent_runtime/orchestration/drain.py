"""Stopping an executor without losing what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from langgraph.runtime import RunControl

from agent_runtime.errors import CallDrained
from agent_runtime.types import AgentContext


class Running:
    """The calls of an executor that are under way, and whether new ones are still taken."""

    def __init__(self) -> None:
        self.draining = False
        self._controls: dict[str, RunControl] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count the current task's call; raises CallDrained when no new ones are taken."""
        if self.draining:
            raise CallDrained("the agent is shutting down and takes no new calls")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        added = task not in self._tasks
        self._tasks.add(task)
        try:
            yield
        finally:
            if added:
                self._tasks.discard(task)

    def control(self, context: AgentContext) -> RunControl:
        """LangGraph's handle on a run that has a checkpoint: it can be stopped after a step and resumed."""
        control = self._controls[context.run_id] = RunControl()
        return control

    def ended(self, context: AgentContext) -> None:
        """Forget a run."""
        self._controls.pop(context.run_id, None)

    async def drain(self, grace_s: float) -> int:
        """Take no new calls; stop runs with a session at their next step, wait for the others, cancel what is left.

        Returns how many had to be cancelled after `grace_s` seconds.
        """
        self.draining = True
        for control in list(self._controls.values()):
            control.request_drain("shutdown")
        tasks = {t for t in self._tasks if t is not asyncio.current_task()}
        if not tasks:
            return 0
        _, left = await asyncio.wait(tasks, timeout=grace_s)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        return len(left)
