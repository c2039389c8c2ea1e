"""Run calls at the edge of the layers: deadline, typed errors, duration, the run's own events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.errors import GraphBubbleUp, GraphDrained

from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors import (
    AgentRuntimeError,
    CallDrained,
    CallError,
    CallTimeout,
    InputInvalid,
)
from agent_runtime.errors.user_code import as_user_exception, error_text
from agent_runtime.monitoring.callback_event import CallbackEvent
from agent_runtime.monitoring.callback_handler import AgentCallbackHandler
from agent_runtime.orchestration.call_input import check_ids, check_input
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.orchestration.failures import as_call_error
from agent_runtime.orchestration.subgraph_calls import refuse_reserved_keys
from agent_runtime.run.state import current_run
from agent_runtime.types import AgentContext, AgentResult, Handler, Principal

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable


@dataclass(frozen=True, slots=True, eq=False, repr=False)  # its credentials are printed nowhere
class CallRunner:
    """Run every call of an agent, unary or streamed, whoever makes it.

    Args:
        agent: the Runnable, whose input is checked.
        handler: the layers around it.
        call_tracker: counts running calls, and refuses new ones during a shutdown.
        callback_handler: receives the events of each run.
        name: the agent's, in events.
        run_timeout_s: seconds after which a call ends with CallTimeout.
        ref: how to build this agent again.
        digest: the template's.
        principal, credentials: the caller of each call that has none of its own.
    """

    agent: Runnable[Any, Any]
    handler: Handler
    call_tracker: CallTracker
    callback_handler: AgentCallbackHandler
    name: str
    run_timeout_s: float | None = None
    ref: Mapping[str, Any] | None = None
    digest: str | None = None
    principal: Principal | None = None
    credentials: Any = None

    def build_context(self, call: Any) -> AgentContext:
        """Return the context of a call: a copy of the caller's own, or a new one for an input."""
        caller_context = call if isinstance(call, AgentContext) else None
        principal = self.principal
        if (
            principal is None
            and self.credentials is None
            and (caller_context is None or caller_context.credentials is None)
        ):
            parent_run = current_run.get()  # an agent inside another acts for its caller
            principal = None if parent_run is None else parent_run.context.principal
        if caller_context is None:
            context = AgentContext(call, principal=principal, credentials=self.credentials)
        else:
            context = caller_context.with_caller(
                principal, self.credentials
            )  # do not change the caller's object
        context.agent_ref = self.ref
        context.agent_name = self.name
        context.template_digest = self.digest
        return context

    async def run(self, context: AgentContext) -> AgentResult:
        """Run one call to its end and return its result.

        Raises CallError, InputInvalid for an unusable context or input, and CancelledError.
        """
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
            is_counted = self.call_tracker.enter(task)
            if self.run_timeout_s is None and context.deadline is None:
                result = await self.handler(context)
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
        except BaseException as thrown:  # noqa: BLE001 - all that an agent raises gets a type
            error = self._report_failure(
                as_user_exception(thrown), context, started, is_cancelled=cancels.is_cancelled
            )
            raise error from error.__cause__
        finally:
            if is_counted:
                self.call_tracker.leave(task)
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
            "digest": self.digest,
        }

    @staticmethod
    def _with_usage(error: AgentRuntimeError, context: AgentContext) -> AgentRuntimeError:
        if isinstance(error, CallError):
            error.run_id = context.run_id
            error.usage = context.usage
        return error

    async def _within_deadline(self, context: AgentContext) -> AgentResult:
        now = asyncio.get_running_loop().time()
        limit = float("inf") if self.run_timeout_s is None else now + self.run_timeout_s
        context.deadline = min(limit, context.deadline or limit)
        try:
            async with asyncio.timeout_at(context.deadline) as scope:
                return await self.handler(context)
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
                self.name,
                None,
                None if parent_run is None else parent_run.context.run_id,
                context.session_id,
                None if principal is None else principal.id,
                elapsed,
                data,
                tenant=None if principal is None else principal.tenant,
                template=self.name,
            )
        )
