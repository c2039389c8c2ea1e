"""The agent itself, without the onion: the only file that awaits one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import BaseMessageChunk, message_chunk_to_message
from langgraph.pregel import Pregel
from langgraph.types import Command

from agent_runtime.checkpoints.operations import FENCING_TOKEN_KEY
from agent_runtime.chunks import HAS_CAPACITY, InterruptChunk, TextChunk, discard
from agent_runtime.errors import AgentRuntimeError, CallDrained, InputInvalid
from agent_runtime.orchestration.answer_classes import allow_answer_types
from agent_runtime.orchestration.boundaries import copy_graph, with_boundaries
from agent_runtime.orchestration.call_input import (
    check_session,
    check_tool_answers,
    has_tool_answers,
)
from agent_runtime.orchestration.call_tracker import CallTracker
from agent_runtime.orchestration.messages import (
    is_graph,
    message_to_chunks,
    messages_in,
    new_messages,
)
from agent_runtime.orchestration.results import result_of, state_with_interrupts
from agent_runtime.orchestration.stream_parts import PartReader, with_idle_timeout
from agent_runtime.orchestration.turn_recovery import AGENT_KEY, prepare_session_input
from agent_runtime.run.callback_gate import with_callback_gate
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable, RunnableConfig

DEFAULT_STREAM_MODES = ("messages", "custom", "values")
_VALUES_ONLY_OPTIONS: dict[str, Any] = {"version": "v2"}
_BREAKPOINT_OPTIONS = ("interrupt_before", "interrupt_after")


class LocalAgent:
    """Await `agent` once for each call, and emit its chunks.

    Args:
        agent: any Runnable; a LangGraph graph provides messages, interrupts and checkpoints.
        call_tracker: tracks running calls, and stops those with a session at their next step.
        max_steps: LangGraph supersteps of one run, or None.
        idle_timeout_s: the longest silence of the agent, in seconds. A unary call streams inside to
            detect it.
        gated: whether every model of the agent is gated; if not, model and tool calls are taken
            from callbacks.
        hold_text: emit messages only at the end, because a middleware may still change their text.
        needs_session: the agent interrupts, which requires a session.
        durability: when a session's checkpoints are written: `sync` (before the next step), `async`
            or `exit`.
        digest: the template's.
    """

    def __init__(
        self,
        agent: Runnable[Any, Any],
        call_tracker: CallTracker,
        *,
        max_steps: int | None = None,
        idle_timeout_s: float | None = None,
        gated: bool = False,
        hold_text: bool = False,
        needs_session: bool = False,
        durability: str = "sync",
        digest: str | None = None,
    ) -> None:
        allow_answer_types(agent)
        agent = with_boundaries(agent)
        self.agent = agent
        self.call_tracker = call_tracker
        self._max_steps = max_steps
        self._idle_timeout_s = idle_timeout_s
        self._gated = gated
        self._digest = digest
        self._is_graph = is_graph(agent)
        self._can_read_values_only = can_read_values_only(agent)
        self._has_breakpoints = any(
            getattr(agent, f"{option}_nodes", None) for option in _BREAKPOINT_OPTIONS
        )
        self._hold_text = hold_text
        self._needs_session = needs_session
        self._durability = durability
        self._has_checkpointer = bool(getattr(agent, "checkpointer", None))
        # Without a session a call leaves nothing behind: it runs on a copy that cannot save.
        self._stateless_agent = (
            copy_graph(cast("Any", agent), checkpointer=None) if self._has_checkpointer else agent
        )

    def has_session(self, context: AgentContext) -> bool:
        """Return whether the call's state is stored."""
        return self._has_checkpointer and context.session_id is not None

    async def state(self, context: AgentContext) -> Mapping[str, Any]:
        """Return the last stored state of the call's session."""
        config = {"configurable": self._build_config(context)["configurable"]}
        values: Mapping[str, Any] = (await cast("Any", self.agent).aget_state(config)).values
        return values

    async def run(self, context: AgentContext) -> AgentResult:
        """Run one call; raises the agent's errors."""
        if (
            self.call_tracker.draining and context.turn is not None
        ):  # it waited for its turn while the shutdown began
            raise CallDrained("the agent is shutting down and takes no new calls")
        agent = self.agent if self.has_session(context) else self._stateless_agent
        check_session(context, self.agent, has_session=self.has_session(context))
        config = self._build_config(context)
        options = dict(context.options)
        if has_tool_answers(context.input):
            saved_messages = (
                messages_in(await self.state(context)) if self.has_session(context) else []
            )
            check_tool_answers(context.input, saved_messages)
        value = await prepare_session_input(
            agent,
            config,
            context,
            has_session=self.has_session(context),
            needs_session=self._needs_session,
        )
        if self.has_session(context):
            options.setdefault("durability", self._durability)
            options.setdefault("control", self.call_tracker.register_run(context))
        if context.context is not None:
            options["context"] = context.context
        try:
            is_shaped_by_caller = bool(
                {"stream_mode", "version"} & options.keys()
            )  # requested of a unary call: LangGraph shapes it
            if context.streaming or (self._idle_timeout_s is not None and not is_shaped_by_caller):
                return await self._stream(agent, value, config, options, context)
            values_only = (
                self._can_read_values_only
                and not is_shaped_by_caller
                and "output_keys" not in options
            )
            version = _VALUES_ONLY_OPTIONS if values_only else {}
            returned = await agent.ainvoke(value, config, **version, **options)
            if values_only:
                returned = state_with_interrupts(returned)
            context.progress.finished = not is_shaped_by_caller and self._runs_to_end(options)
        except Exception:
            await self._set_resumable(agent, config, context)
            raise
        result = result_of(returned, context, self._digest)
        if context.emit is not discard:
            for message in new_messages(result.messages, _message_ids(value)):
                for chunk in message_to_chunks(message):
                    await context.emit(chunk)
            if result.interrupts:
                await context.emit(InterruptChunk(result.interrupts))
            if not result.messages and result.output:
                await context.emit(TextChunk(context.run_id, result.output))
        return result

    async def _stream(
        self,
        agent: Any,
        value: Any,
        config: RunnableConfig,
        options: dict[str, Any],
        context: AgentContext,
    ) -> AgentResult:
        if not self._is_graph:
            async with aclosing(agent.astream(value, config, **options)) as pieces:
                returned = await self._stream_chain(self._with_idle_timeout(pieces), context)
            return result_of(returned, context, self._digest)
        requested_modes = options.pop("stream_mode", None) if context.streaming else None
        requested_modes = (
            [requested_modes] if isinstance(requested_modes, str) else list(requested_modes or ())
        )
        options.pop("version", None)
        # Ours includes nested agents' tokens; a gated agent has them in tools only. A caller gets
        # the requested ones.
        subgraphs = bool(options.pop("subgraphs", not (requested_modes or self._gated)))
        selected_modes = requested_modes or DEFAULT_STREAM_MODES
        # A unary call streams only to notice silence: it emits, like any unary call, when it has
        # succeeded.
        is_buffered = self._hold_text or not context.streaming
        # Held-back text must not leave as tokens, for any caller.
        modes = list(
            dict.fromkeys(
                [
                    *(m for m in selected_modes if not (self._hold_text and m == "messages")),
                    "values",
                ]
            )
        )
        thread = None if context.turn is None else (context.turn.thread, context.session_id or "")
        reader = PartReader(
            context.emit,
            context.progress,
            requested_modes,
            subgraphs=subgraphs,
            is_buffered=is_buffered,
            thread=thread,
        )
        parts = agent.astream(value, config, stream_mode=modes, subgraphs=subgraphs, **options)
        async with aclosing(parts):
            await self._read_parts(
                self._with_idle_timeout(parts), reader, context, subgraphs=subgraphs
            )
        await reader.finish()
        context.progress.finished = self._runs_to_end(options)
        state = reader.state
        if reader.interrupts and isinstance(state, Mapping):
            state = {**state, "__interrupt__": reader.interrupts}
        return result_of(state, context, self._digest)

    @staticmethod
    async def _read_parts(
        parts: AsyncIterator[Any], reader: PartReader, context: AgentContext, *, subgraphs: bool
    ) -> None:
        namespace = ()
        streaming = context.streaming
        async for part in parts:  # every token passes here
            if subgraphs:
                namespace, mode, data = part
            else:
                mode, data = part
            if mode != "messages":
                await reader.read(namespace, mode, data)
            elif streaming:
                if (chunk := reader.text_chunk(namespace, data)) is None:
                    await reader.read(namespace, mode, data)
                elif (
                    emitted := context.emit(chunk)
                ) is not HAS_CAPACITY:  # awaiting a completed call has a cost, too
                    await emitted

    def _runs_to_end(self, options: dict[str, Any]) -> bool:
        """Tell whether a run without interrupts is at its end.

        Its graph or its caller may stop it around a node.
        """
        return not self._has_breakpoints and not (
            options and any(options.get(option) for option in _BREAKPOINT_OPTIONS)
        )

    async def _stream_chain(self, pieces: AsyncIterator[Any], context: AgentContext) -> Any:
        returned: Any = None
        async for piece in pieces:
            text = piece if isinstance(piece, str) else str(getattr(piece, "text", ""))
            if text:
                context.progress.message_open = True
                await context.emit(
                    TextChunk(getattr(piece, "id", None) or context.run_id, text, piece)
                )
            try:
                returned = piece if returned is None else returned + piece
            except (
                TypeError
            ):  # pieces that do not add up: the last is the whole, as in LangChain's own transforms
                returned = piece
        # A stream's chunks add up to a chunk; the result is the message that a unary call returns.
        return (
            message_chunk_to_message(returned)
            if isinstance(returned, BaseMessageChunk)
            else returned
        )

    def _with_idle_timeout(self, parts: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return (
            parts
            if self._idle_timeout_s is None
            else with_idle_timeout(parts, self._idle_timeout_s)
        )

    def _build_config(self, context: AgentContext) -> RunnableConfig:
        caller_config: Any = context.config or {}
        config: dict[str, Any] = dict(caller_config)
        if context.config is None:
            try:
                config["run_id"] = uuid.UUID(context.run_id)
            except ValueError:
                raise InputInvalid(f"not a UUID: '{context.run_id}'", "run_id") from None
        if caller_config or context.metadata or context.session_id is not None:
            # For checkpoints and for the handlers of a caller; without either it would only cost 1
            # % of a turn.
            config["metadata"] = {
                **caller_config.get("metadata", {}),
                **context.metadata,
                "run_id": context.run_id,
            }
        if context.session_id is not None:
            # Set explicitly, or LangChain would copy the thread's own name for every handler.
            config["metadata"]["thread_id"] = context.session_id
            if context.agent_name:
                config["metadata"][AGENT_KEY] = context.agent_name
        if (max_steps := self._max_steps) is not None:
            config["recursion_limit"] = max_steps
        if context.turn is not None:
            turn_keys = {
                "thread_id": context.turn.thread,
                FENCING_TOKEN_KEY: context.turn.fencing_token,
            }
            config["configurable"] = {**caller_config.get("configurable", {}), **turn_keys}
        elif context.session_id is not None:
            config["configurable"] = {
                **caller_config.get("configurable", {}),
                "thread_id": context.session_id,
            }
        if not self._gated:
            config["callbacks"] = with_callback_gate(caller_config.get("callbacks"))
        return cast("RunnableConfig", config)

    async def _set_resumable(
        self, agent: Any, config: RunnableConfig, context: AgentContext
    ) -> None:
        if not self.has_session(context):
            return
        try:
            snapshot = await agent.aget_state({"configurable": config["configurable"]})
        except AgentRuntimeError:  # the store failed; the call's own error is more useful
            return
        saved_run = (snapshot.metadata or {}).get("run_id")
        context.progress.resumable = bool(snapshot.next) and saved_run == context.run_id


def can_read_values_only(agent: Any) -> bool:
    """Tell whether a unary call may read the graph's values alone, as LangGraph's version 2 does.

    Version 1 reads its updates too, only to notice interrupts; without them a turn costs 1.5 to 2.8
    % less. Version 2 gives another state where a schema is a Pydantic model or a dataclass.
    """
    return isinstance(agent, Pregel) and agent._output_mapper is None


def _message_ids(value: Any) -> set[str | None]:
    if isinstance(value, Command) or value is None:
        return set()
    input_messages: list[BaseMessage] = messages_in(value)
    return {m.id for m in input_messages if m.id is not None}
