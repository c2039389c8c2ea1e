"""Call one agent: the runtime's own interface, beside LangChain's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langgraph.types import Durability

from agent_runtime.budgets.prices import PRICES, PriceTable
from agent_runtime.errors import (
    ConfigurationError,
)
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.orchestration.approvals import Resume
from agent_runtime.orchestration.call_runner import CallRunner
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.orchestration.core import Agent, Core
from agent_runtime.orchestration.local_agent import LocalAgent
from agent_runtime.orchestration.middleware import (
    LoggingMiddleware,
    Middleware,
    RetryMiddleware,
    compose,
)
from agent_runtime.orchestration.middleware.base import LayerObserver
from agent_runtime.orchestration.runnable import AgentRunnable
from agent_runtime.orchestration.stream import AgentStream
from agent_runtime.orchestration.sync import LOOP_THREAD
from agent_runtime.orchestration.timeouts import NO_TIMEOUTS, Timeouts, check_gated
from agent_runtime.run.gate import ModelGate
from agent_runtime.run.limits import RunLimits
from agent_runtime.types import AgentContext, AgentResult, Principal

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool


class AgentExecutor(AgentRunnable):
    """Run one agent behind its pipeline. Built once, shared by any number of concurrent calls.

    It has two interfaces. Its own, without a LangChain root run: `execute`, `execute_stream`,
    `execute_sync`, `execute_with_retry`. And LangChain's: it is a `Runnable` with the input and
    output of its agent. Both pass through the same layers.

    Args:
        agent: any Runnable: a `create_agent` graph, a hand-written graph, a chain.
        pipeline: the layers, outermost first; by default logging and retry.
        limits: hard limits of one run.
        prices: the prices of models.
        timeouts: time limits of one call.
        callback_handler: receives the events of every run; a new one with a ring of 1,000 by
            default.
        name, description: for traces, events and agents that use this one as a tool.
        gated: set by the factory if every model of the agent reports to the gate by itself.
        hold_text: emit messages whole, after anything inside could change them.
        needs_session: the agent interrupts to ask a person, so a call without a session is refused.
        tools: the agent's, for display.
        durability: when a session's checkpoints are written: `sync` (before the next step), `async`
            or `exit`.
        ref: how to build this agent again, stored in the records of its sessions.
        digest: the template's.
        on_layer: called with each layer's name and the seconds that it took itself, for each call.

    Raises ConfigurationError for an invalid layer, limit or timeout.
    """

    def __init__(
        self,
        agent: Runnable[Any, Any],
        *,
        pipeline: Sequence[Middleware] | None = None,
        limits: RunLimits | None = None,
        prices: PriceTable = PRICES,
        timeouts: Timeouts | None = None,
        callback_handler: AgentCallbackHandler | None = None,
        name: str = "agent_runtime.executor",
        description: str = "",
        gated: bool = False,
        hold_text: bool = False,
        needs_session: bool = False,
        tools: Sequence[BaseTool] = (),
        durability: Durability = "sync",
        digest: str | None = None,
        ref: Mapping[str, Any] | None = None,
        on_layer: LayerObserver | None = None,
    ) -> None:
        timeouts = timeouts or NO_TIMEOUTS
        self.description = description
        self.callback_handler = callback_handler or AgentCallbackHandler()
        self.pipeline = (
            (LoggingMiddleware(), RetryMiddleware()) if pipeline is None else tuple(pipeline)
        )
        gate = ModelGate(limits, model_call_timeout_s=timeouts.model_call_s, prices=prices)
        check_gated(gate, gated=gated)
        local_agent = LocalAgent(
            agent,
            CallTracker(),
            max_steps=gate.limits.max_steps,
            idle_timeout_s=timeouts.idle_s,
            gated=gated,
            hold_text=hold_text,
            needs_session=needs_session,
            durability=durability,
            digest=digest,
        )
        self._core = Core(local_agent, gate, self.callback_handler, digest=digest)
        self.template_digest = digest
        self.tools = tuple(tools)
        self.needs_session = needs_session
        self._on_layer = on_layer
        runner = CallRunner(
            agent,
            compose(self.pipeline, self._core, on_layer),
            self._core.call_tracker,
            self.callback_handler,
            name,
            timeouts.run_s,
            ref,
            digest,
        )
        super().__init__(agent, runner, name)

    def with_caller(
        self, *, principal: Principal | None = None, credentials: Any = None
    ) -> AgentExecutor:
        """Return the same agent with a caller for every call through the copy.

        This is the only way to set the caller: `configurable` is persisted.
        """
        runner = replace(self._runner, principal=principal, credentials=credentials)
        return self._with(self._core, runner)

    @property
    def ref(self) -> Mapping[str, Any] | None:
        """Return how to build this agent again."""
        return self._runner.ref

    def with_prompt(
        self, prompt: str | None, ref: Mapping[str, Any] | None = None
    ) -> AgentExecutor:
        """Return the same graph with another system prompt, without compiling it again."""
        runner = replace(self._runner, ref=ref or self.ref)
        if prompt is None:
            return self._with(self._core, runner)
        return self._with_core(self._core.with_prompt(prompt), runner)

    def with_agent(self, agent: Agent) -> AgentExecutor:
        """Return the same pipeline around an agent that runs in another process."""
        return self._with_core(self._core.with_agent(agent), self._runner)

    def _with_core(self, core: Core, runner: CallRunner) -> AgentExecutor:
        handler = compose(self.pipeline, core, self._on_layer)
        tracker = core.call_tracker
        return self._with(core, replace(runner, handler=handler, call_tracker=tracker))

    def _with(self, core: Core, runner: CallRunner) -> AgentExecutor:
        executor = AgentExecutor.__new__(AgentExecutor)  # copy.copy takes ten times as long
        executor.__dict__.update(self.__dict__)
        executor._core = core
        executor._runner = runner
        return executor

    async def execute(self, call: Any) -> AgentResult:
        """Run one call to its end.

        Args:
            call: the input (str, message or list of messages, PromptValue, the agent's input dict),
                or an `AgentContext` with further settings. Here and below.

        Raises CallError (or a subclass) with `run_id`, `usage` and `cost_usd` when the call fails;
        InputInvalid when the input is unusable. Cancelling stops the agent after every layer's
        `finally`.
        """
        return await self._runner.run(self._runner.build_context(call))

    def execute_sync(self, call: Any) -> AgentResult:
        """Run one call in a thread without an event loop.

        Blocks until the end, raises as `execute`.

        It runs on one long-lived loop thread; a KeyboardInterrupt cancels the call and waits for
        clean-up.
        """
        return LOOP_THREAD.run(self.execute(call))

    def execute_stream(self, call: Any) -> AgentStream:
        """Open one streamed call.

        `async with agent.execute_stream(call) as stream: async for text in stream: ...`

        Nothing runs before the stream is entered; leaving it early cancels the call and waits for
        clean-up.
        """
        return AgentStream(self._runner.run, self._runner.build_context(call))

    async def execute_with_retry(self, call: Any, max_retries: int) -> AgentResult:
        """Run one call with at most `max_retries` further attempts, by the pipeline's retry layer.

        Raises ConfigurationError when the pipeline has no retry layer, or for a negative number.
        """
        if max_retries < 0:
            raise ConfigurationError(f"max_retries must not be negative, not {max_retries}")
        if not any(isinstance(layer, RetryMiddleware) for layer in self.pipeline):
            raise ConfigurationError("execute_with_retry needs a RetryMiddleware in the pipeline")
        context = self._runner.build_context(call)
        context.attempts = max_retries + 1
        return await self._runner.run(context)

    async def resume(self, session_id: str, decision: Any) -> AgentResult:
        """Answer the questions of an interrupted session; `decision` as in `Resume`.

        Raises as `execute`.
        """
        return await self.execute(AgentContext(Resume(decision), session_id=session_id))

    @property
    def busy(self) -> bool:
        """Return whether calls are running."""
        return self._runner.call_tracker.busy

    async def drain(self, grace_s: float = 30.0) -> int:
        """Shut down without losing state: refuse new calls, stop sessions at their next checkpoint.

        Stopped calls raise CallDrained; a later call of the session with input None continues, in
        any process. Calls without a session may finish. Returns how many had to be cancelled after
        `grace_s` seconds.
        """
        return await self._runner.call_tracker.drain(grace_s)
