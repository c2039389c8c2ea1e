"""Run an agent in an instance of a pool, for the core of its executor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

from agent_runtime.errors import CallDrained, InputInvalid
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.pool.task import AgentTask, Assignment
from agent_runtime.types import AgentContext, AgentResult, Principal

if TYPE_CHECKING:
    from agent_runtime.chunks import Chunk
    from agent_runtime.pool.process.instance_worker import InstanceWorker


class InstanceLeases(Protocol):
    """A pool's instances, one call at a time."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop on which instances are leased."""

    def lease(
        self, agent: str, task: AgentTask, principal: Principal | None, *, instance_id: str | None
    ) -> AbstractAsyncContextManager[InstanceWorker]:
        """Return a context with an instance for a task; raises the errors of acquiring one."""


class ProcessAgent:
    """Lease an instance for each call.

    Args:
        instances: leases the instances.
        agent: the agent type.
        saver: stores the sessions of its calls, or None.
    """

    def __init__(self, instances: InstanceLeases, agent: str, saver: Any) -> None:
        self._instances = instances
        self._agent = agent
        self._saver = saver
        self.call_tracker = CallTracker()

    def has_session(self, context: AgentContext) -> bool:
        """Return whether the call's state is stored."""
        return self._saver is not None and context.session_id is not None

    async def state(self, context: AgentContext) -> Mapping[str, Any]:
        """Return the last stored state of the call's session."""
        thread_id = context.session_id if context.turn is None else context.turn.thread
        checkpoint_tuple = await self._saver.aget_tuple(
            {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        )
        return (
            {} if checkpoint_tuple is None else dict(checkpoint_tuple.checkpoint["channel_values"])
        )

    async def run(self, context: AgentContext) -> AgentResult:
        """Run one call on the pool's loop; callers of other loops (sync ones) wait for it there."""
        pool_loop = self._instances.loop
        caller_loop = asyncio.get_running_loop()
        if pool_loop is caller_loop:
            return await self._run(context)

        async def emit(chunk: Chunk) -> None:
            await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(_emit(context, chunk), caller_loop)
            )

        relayed_context = context.with_emit(emit) if context.streaming else context
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._run(relayed_context), pool_loop)
        )

    async def _run(self, context: AgentContext) -> AgentResult:
        assignment: Assignment | None = context.assignment
        if assignment is None:  # a call of the executor itself
            assignment = Assignment(AgentTask(self._agent, context.input, id=context.run_id))
        task = assignment.task
        leased = self._instances.lease(
            self._agent, task, context.principal, instance_id=assignment.instance_id
        )
        async with leased as worker:
            return await self._run_on(worker, task, context)

    async def _run_on(
        self, worker: InstanceWorker, task: AgentTask, context: AgentContext
    ) -> AgentResult:
        worker.instance.current_task = task
        if worker.instance.context:
            context = _with_instance_context(context, worker.instance.context)
        if self.has_session(context):
            if self.call_tracker.draining:
                raise CallDrained("the pool is shutting down, and nothing of the call has run")
            self.call_tracker.register_control(context, worker)
        return await worker.run(context)


def _with_instance_context(
    context: AgentContext, instance_context: Mapping[str, Any]
) -> AgentContext:
    if context.context is not None and not isinstance(context.context, Mapping):
        raise InputInvalid(
            "an instance with a context of its own takes calls whose context is a map", "context"
        )
    merged_context = context.with_input(context.input)
    merged_context.context = {**instance_context, **(context.context or {})}
    return merged_context


async def _emit(context: AgentContext, chunk: Chunk) -> None:
    await context.emit(chunk)
