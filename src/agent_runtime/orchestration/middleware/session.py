"""One turn of a session at a time, and the record of how it ended."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from langgraph.errors import GraphDrained
from langgraph.types import Command

from agent_runtime.errors import InputInvalid, SessionError, StaleWriter, StoreError
from agent_runtime.orchestration.approvals import Resume
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.sessions.agent_record import agent_record
from agent_runtime.types import AgentContext, AgentResult, Handler

if TYPE_CHECKING:
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.sessions.session import SessionStatus
    from agent_runtime.sessions.turn import Turn
    from agent_runtime.sessions.turns import MultitaskStrategy

TITLE_CHARACTERS = 60


class SessionMiddleware(Middleware):
    """Gives a call with a `session_id` its conversation; a call without one passes through.

    The session is made at its first use. Its turns run one after another, across processes: a call
    waits for its turn (`enqueue`, in order within a process, bounded) or raises SessionBusy
    (`reject`), with the meanings of the LangGraph Server's `multitask_strategy`. `ttl_s` is for
    sessions that are made here. Place it before layers that hold money or slots.
    """

    waits = True

    def __init__(
        self,
        manager: SessionManager,
        strategy: MultitaskStrategy = "enqueue",
        *,
        ttl_s: float | None = None,
    ) -> None:
        self.manager = manager
        self._strategy = strategy
        self._ttl_s = ttl_s

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call within its turn.

        Raises SessionError, SessionBusy, StaleWriter, StoreError.
        """
        if context.session_id is None:
            return await next_call(context)
        started = time.monotonic()
        has_new_input = not (context.input is None or isinstance(context.input, (Command, Resume)))
        async with self.manager.turn(
            context.session_id,
            agent=agent_record(context.agent_name, context.agent_ref),
            create=has_new_input,
            strategy=self._strategy,
            ttl_s=self._ttl_s,
            principal=context.principal,
        ) as turn:
            self.manager.records.publish(
                "turn_start", turn.session, {"waited_s": time.monotonic() - started}, context.run_id
            )
            try:
                result = await next_call(context.with_turn(turn))
            except (
                InputInvalid,
                StaleWriter,
            ):  # nothing has happened; or the session is another's now
                raise
            except GraphDrained:
                await self._end_turn(turn, "drained", context)
                raise
            except BaseException:
                await self._end_turn(turn, "failed", context)
                raise
            if result.status == "completed" and context.progress.finished:
                await turn.settled()
            await self._end_turn(
                turn, "interrupted" if result.status == "interrupted" else "idle", context
            )
        return result

    async def _end_turn(self, turn: Turn, status: SessionStatus, context: AgentContext) -> None:
        self.manager.records.publish("turn_end", turn.session, {"status": status}, context.run_id)
        text = context.input if isinstance(context.input, str) else ""
        end_task = asyncio.ensure_future(
            self.manager.end_turn(turn.session, status, text.strip()[:TITLE_CHARACTERS])
        )
        try:
            await asyncio.shield(end_task)  # also when the call is being cancelled
        except asyncio.CancelledError:
            await end_task
            raise
        except (SessionError, StoreError):
            if (
                status != "failed"
            ):  # a failed turn's own error is more useful; the lease records the failure
                raise
