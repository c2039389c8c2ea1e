"""AgentExecutor: the runtime's own face of one agent, and the edge around the onion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langgraph.errors import GraphBubbleUp, GraphDrained
from langgraph.types import Durability

from agent_runtime.budgets.prices import PRICES, PriceTable
from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors import (
    AgentRuntimeError,
    CallDrained,
    CallError,
    CallTimeout,
    ConfigurationError,
    InputInvalid,
)
from agent_runtime.errors.user_code import as_user_exception, error_text
from agent_runtime.monitoring.callback_event import CallbackEvent
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.orchestration.call_input import check_ids, check_input
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.orchestration.core import Agent, Core
from agent_runtime.orchestration.failures import as_call_error
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
from agent_runtime.orchestration.subgraph_calls import refuse_reserved_keys
from agent_runtime.orchestration.sync import LOOP_THREAD
from agent_runtime.orchestration.timeouts import NO_TIMEOUTS, Timeouts, check_gated
from agent_runtime.orchestration.turn_recovery import Resume
from agent_runtime.run.gate import ModelGate
from agent_runtime.run.limits import RunLimits
from agent_runtime.run.state import current_run
from agent_runtime.types import AgentContext, AgentResult, Handler, Principal

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
        self.name = name
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
        self.agent = agent
        self.template_digest = digest
        self.ref = ref
        self.tools = tuple(tools)
        self.needs_session = needs_session
        self._run_timeout_s = timeouts.run_s
        self._on_layer = on_layer
        self._handler: Handler = compose(self.pipeline, self._core, on_layer)
        self._principal: Principal | None = None
        self._credentials: Any = None

    def with_caller(
        self, *, principal: Principal | None = None, credentials: Any = None
    ) -> AgentExecutor:
        """Return the same agent with a caller for every call through the copy.

        This is the only way to set the caller: `configurable` is persisted.
        """
        executor = self._copy()
        executor._principal = principal
        executor._credentials = credentials
        return executor

    def with_prompt(
        self, prompt: str | None, ref: Mapping[str, Any] | None = None
    ) -> AgentExecutor:
        """Return the same graph with another system prompt, without compiling it again."""
        executor = self._copy()
        executor.ref = ref or self.ref
        if prompt is not None:
            executor._core = self._core.with_prompt(prompt)
            executor._handler = compose(self.pipeline, executor._core, self._on_layer)
        return executor

    def with_agent(self, agent: Agent) -> AgentExecutor:
        """Return the same pipeline around an agent that runs in another process."""
        executor = self._copy()
        executor._core = self._core.with_agent(agent)
        executor._handler = compose(self.pipeline, executor._core, self._on_layer)
        return executor

    def _copy(self) -> AgentExecutor:
        executor = AgentExecutor.__new__(AgentExecutor)  # copy.copy takes ten times as long
        executor.__dict__.update(self.__dict__)
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
        return await self._call(self._build_context(call))

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
        return AgentStream(self._call, self._build_context(call))

    async def execute_with_retry(self, call: Any, max_retries: int) -> AgentResult:
        """Run one call with at most `max_retries` further attempts, by the pipeline's retry layer.

        Raises ConfigurationError when the pipeline has no retry layer, or for a negative number.
        """
        if max_retries < 0:
            raise ConfigurationError(f"max_retries must not be negative, not {max_retries}")
        if not any(isinstance(layer, RetryMiddleware) for layer in self.pipeline):
            raise ConfigurationError("execute_with_retry needs a RetryMiddleware in the pipeline")
        context = self._build_context(call)
        context.attempts = max_retries + 1
        return await self._call(context)

    async def resume(self, session_id: str, decision: Any) -> AgentResult:
        """Answer the questions of an interrupted session; `decision` as in `Resume`.

        Raises as `execute`.
        """
        return await self.execute(AgentContext(Resume(decision), session_id=session_id))

    @property
    def busy(self) -> bool:
        """Return whether calls are running."""
        return self._core.call_tracker.busy

    async def drain(self, grace_s: float = 30.0) -> int:
        """Shut down without losing state: refuse new calls, stop sessions at their next checkpoint.

        Stopped calls raise CallDrained; a later call of the session with input None continues, in
        any process. Calls without a session may finish. Returns how many had to be cancelled after
        `grace_s` seconds.
        """
        return await self._core.call_tracker.drain(grace_s)

    def _build_context(self, call: Any) -> AgentContext:
        caller_context = call if isinstance(call, AgentContext) else None
        principal = self._principal
        if (
            principal is None
            and self._credentials is None
            and (caller_context is None or caller_context.credentials is None)
        ):
            parent_run = current_run.get()  # an agent inside another acts for its caller
            principal = None if parent_run is None else parent_run.context.principal
        if caller_context is None:
            context = AgentContext(call, principal=principal, credentials=self._credentials)
        else:
            context = caller_context.with_caller(
                principal, self._credentials
            )  # do not change the caller's object
        context.agent_ref = self.ref
        context.agent_name = self.name or ""
        context.template_digest = self.template_digest
        return context

    async def _call(self, context: AgentContext) -> AgentResult:
        """Apply deadline, typed errors, duration and the run's own events to every kind of call."""
        if context.progress.used:
            raise InputInvalid(
                "this AgentContext has been used: one context is one call, make a new one for "
                "the next"
            )
        check_ids(context)
        context.progress.used = True
        started = time.perf_counter()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this coroutine
        cancels = CancelWatch(task)
        context.progress.cancels = cancels
        is_counted = False
        self._record("run_start", context, None, self._run_start_data(context))
        try:
            refuse_reserved_keys(context)
            check_input(context.input, self.agent)
            is_counted = self._core.call_tracker.enter(task)
            if self._run_timeout_s is None and context.deadline is None:
                result = await self._handler(context)
            else:
                result = await self._within_deadline(context)
        except asyncio.CancelledError:
            self._record("run_error", context, started, {"error": "cancelled"})
            raise
        except GraphDrained as drained:
            self._record("run_end", context, started, {"status": "drained"})
            raise self._with_usage(
                CallDrained("a shutdown stopped the call at a checkpoint"), context
            ) from drained
        except GraphBubbleUp:  # an interrupt on its way to the outer graph
            self._record("run_end", context, started, {"status": "stopped"})
            raise
        except BaseException as thrown:  # noqa: BLE001 - the edge: everything an agent raises gets its type here
            error = self._report_failure(
                as_user_exception(thrown), context, started, is_cancelled=cancels.is_cancelled
            )
            raise error from error.__cause__
        finally:
            if is_counted:
                self._core.call_tracker.leave(task)
        result.duration_s = time.perf_counter() - started
        if result.interrupts:
            self._record("interrupt", context, started, {"count": len(result.interrupts)})
        content_fields = {"output": result.output} if self.callback_handler.content else {}
        self._record("run_end", context, started, {"status": result.status, **content_fields})
        return result

    def _report_failure(
        self, raised: Exception, context: AgentContext, started: float, *, is_cancelled: bool
    ) -> BaseException:
        """Return and report the error of a failed call, caused by the one inside."""
        # something raised while the call was being cancelled: the cancel wins, unary and streamed
        if is_cancelled:
            self._record("run_error", context, started, {"error": "cancelled"})
            cancelled = asyncio.CancelledError()
            cancelled.__cause__ = raised
            return cancelled
        model_error = context.progress.model_error
        error = (
            raised if isinstance(raised, AgentRuntimeError) else as_call_error(raised, model_error)
        )
        self._record("run_error", context, started, {"error": error.code})
        if isinstance(error, CallError) and error.layer:
            data = {"code": error.code, "message": error_text(error)}
            self.callback_handler.publish(f"{error.layer}.refused", context, data)
        return self._with_usage(error, context)

    def _run_start_data(self, context: AgentContext) -> dict[str, Any]:
        if not self.callback_handler.content:
            return {}
        return {
            "input": context.input,
            "agent": dict(self.ref or {}),
            "digest": self.template_digest,
        }

    @staticmethod
    def _with_usage(error: AgentRuntimeError, context: AgentContext) -> AgentRuntimeError:
        if isinstance(error, CallError):
            error.run_id = context.run_id
            error.usage = context.usage
        return error

    async def _within_deadline(self, context: AgentContext) -> AgentResult:
        now = asyncio.get_running_loop().time()
        limit = float("inf") if self._run_timeout_s is None else now + self._run_timeout_s
        context.deadline = min(limit, context.deadline or limit)
        try:
            async with asyncio.timeout_at(context.deadline) as scope:
                return await self._handler(context)
        except BaseException as error:
            # Also when something raised while the call was being stopped.
            if not scope.expired() or isinstance(error, asyncio.CancelledError):
                raise
            raise CallTimeout("run", context.deadline - now) from as_user_exception(error)

    def _record(
        self, kind: str, context: AgentContext, started: float | None, data: dict[str, Any]
    ) -> None:
        principal = context.principal
        parent_run = current_run.get()
        elapsed = None if started is None else time.perf_counter() - started
        if started is not None and kind != "interrupt":
            data = {**data, "usage": context.usage.to_dict()}
        self.callback_handler.record(
            CallbackEvent(
                kind,
                context.run_id,
                self.name or "",
                None,
                None if parent_run is None else parent_run.context.run_id,
                context.session_id,
                None if principal is None else principal.id,
                elapsed,
                data,
                tenant=None if principal is None else principal.tenant,
                template=self.name or "",
            )
        )
