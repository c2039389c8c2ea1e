"""The innermost handler: one run of an agent, with its ledger, its limits and its end."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any, Protocol

from langgraph.errors import GraphRecursionError

from agent_runtime.chunks import InterruptChunk, discard
from agent_runtime.errors import AgentFailed, BudgetExceeded, LimitExceeded
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.orchestration.results import budget_interrupt_result
from agent_runtime.run.gate import ModelGate
from agent_runtime.run.state import Refused, Run, current_run
from agent_runtime.types import AgentContext, AgentResult


class Agent(Protocol):
    """Define an agent for the core: in this process (`LocalAgent`) or in another one."""

    call_tracker: CallTracker

    async def run(self, context: AgentContext) -> AgentResult:
        """Run one call to its end; emits chunks. Cancelling stops it."""

    def has_session(self, context: AgentContext) -> bool:
        """Return whether the call's state is stored."""

    async def state(self, context: AgentContext) -> Mapping[str, Any]:
        """Return the last stored state of the call's session."""


class Core:
    """Await `agent` once for each call, inside a Run.

    Args:
        agent: the agent.
        gate: admits and settles the model calls of a run.
        recorder: receives the run's events.
        digest: the template's.
    """

    def __init__(
        self,
        agent: Agent,
        gate: ModelGate,
        recorder: AgentCallbackHandler,
        *,
        digest: str | None = None,
    ) -> None:
        self.agent = agent
        self._gate = gate
        self._recorder = recorder
        self._digest = digest
        self.call_tracker = agent.call_tracker
        self._prompt: str | None = None

    def with_agent(self, agent: Agent) -> Core:
        """Return a core with the same limits and listeners around another agent."""
        core = copy.copy(self)
        core.agent = agent
        core.call_tracker = agent.call_tracker
        return core

    def with_prompt(self, prompt: str) -> Core:
        """Return a core for the same agent with another system prompt."""
        core = copy.copy(self)
        core._prompt = prompt
        return core

    async def __call__(self, context: AgentContext) -> AgentResult:
        """Run the agent; raises its error, LimitExceeded or CallTimeout. Cancellation stops it."""
        run = Run(context, self._gate, self._recorder, self._prompt)
        token = current_run.set(run)
        result: AgentResult | None
        try:
            result = await self.agent.run(context)
        except Refused as refused:
            if refused.run is not run:  # a run around this one must stop
                raise
            result = None
        except GraphRecursionError as error:
            if self._gate.limits.max_steps is None:
                raise
            raise LimitExceeded("max_steps", self._gate.limits.max_steps) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if run.is_cancelled or (task is not None and task.cancelling()):
                raise
            raise AgentFailed(
                "the agent raised CancelledError without a cancellation of the call"
            ) from error
        finally:
            current_run.reset(token)
            self.call_tracker.unregister_run(context)
            await self._close_run(run)
        if run.refusal is None:
            assert result is not None  # noqa: S101 - only a refusal leaves none
            return result
        if (
            isinstance(run.refusal, BudgetExceeded)
            and run.refusal.pauses
            and self.agent.has_session(context)
        ):
            return await self._pause_for_budget(run.refusal, context)
        raise run.refusal  # also one that something inside the agent swallowed

    async def _pause_for_budget(
        self, refusal: BudgetExceeded, context: AgentContext
    ) -> AgentResult:
        result = budget_interrupt_result(
            refusal, await self.agent.state(context), context, self._digest
        )
        if context.emit is not discard:
            await context.emit(InterruptChunk(result.interrupts))
        return result

    async def _close_run(self, run: Run) -> None:
        if run.open_calls or run.open_streams:
            await run.close(asyncio.CancelledError())
        if orphan_count := len(run.running_threads):
            run.context.usage.sync_threads_left += orphan_count
            run.record("tool_thread_left", "", None, {"count": orphan_count})
