"""Recover a session at the start of a turn: resume it, complete dangling tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, StateSnapshot

from agent_runtime.errors import InputInvalid
from agent_runtime.orchestration.approvals import (
    Resume,
    check_edits,
    decision_types,
    normalize_decision,
    resume_command,
)
from agent_runtime.orchestration.boundaries import recorded_tool_names
from agent_runtime.orchestration.messages import messages_in, to_agent_input
from agent_runtime.run.idempotency import parse_effect_key
from agent_runtime.sessions.turn import Turn
from agent_runtime.types import AgentContext

AGENT_KEY = "agent_runtime_agent"
"""In the metadata of a session's checkpoints: the name of the agent that wrote them."""
NOT_RUN_TEXT = "This tool call was stopped before it answered; it did not run."
OUTCOME_UNKNOWN_TEXT = (
    "This tool call was stopped: whether it ran and took effect is not known. Check "
    "before trying again."
)


async def prepare_session_input(
    agent: Any,
    config: RunnableConfig,
    context: AgentContext,
    *,
    has_session: bool,
    needs_session: bool,
) -> Any:
    """Return the agent's input, after recovering the session's unfinished turn.

    `has_session` says whether the call has a session. Raises InputInvalid before anything is
    changed.
    """
    value = context.input
    turn = context.turn
    if needs_session and not has_session:
        raise InputInvalid(
            "this agent may stop to ask a person, so its calls need a session_id", "session_id"
        )
    if isinstance(value, Resume):
        if not has_session:
            raise InputInvalid("only a session can be resumed", "session_id")
        prepared_input: Any = await _resume_input(
            agent, config, value.decision, turn, context.agent_name
        )
    else:
        if has_session and isinstance(value, Command) and "edit" in decision_types(value.resume):
            check_edits(cast("Any", value.resume), (await agent.aget_state(config)).interrupts)
        prepared_input = to_agent_input(value, agent)
    if turn is not None:
        if turn.unfinished and not (prepared_input is None or isinstance(prepared_input, Command)):
            await complete_dangling_tool_calls(agent, config, turn)
        turn.mark_running()
    return prepared_input


async def _resume_input(
    agent: Any, config: RunnableConfig, decision: Any, turn: Turn | None, name: str
) -> Any:
    snapshot: StateSnapshot = await agent.aget_state(config)
    expected_agent = (snapshot.metadata or {}).get(AGENT_KEY, name)
    if (
        expected_agent != name
    ):  # the session's record has it first, sealed apart from the checkpoint
        raise InputInvalid(
            f"the session waits for its agent '{expected_agent}', and this is '{name}'",
            "session_id",
        )
    awaits_budget = turn is not None and turn.session.status == "interrupted" and turn.unfinished
    if not snapshot.interrupts and snapshot.next and awaits_budget:
        # After an exhausted budget only the run itself waits, and it continues where it stopped.
        if normalize_decision(decision)["type"] != "approve":
            raise InputInvalid(
                "a call that waits for a budget is resumed with approve, or given up by a new "
                "message"
            )
        return None
    return resume_command(decision, snapshot.interrupts)


async def complete_dangling_tool_calls(agent: Any, config: RunnableConfig, turn: Turn) -> None:
    """Complete the tool calls that an unfinished turn left without a result.

    Stored results are used; for the others a message states the known facts. Providers refuse a
    conversation with an unanswered tool call.
    """
    # Without the call's own run id: LangGraph takes an input for a run that has a checkpoint for a
    # retry, and drops it.
    config = {"configurable": config["configurable"]}
    unfinished_turn = await _load_unfinished(agent, config)
    if unfinished_turn is not None and any(
        isinstance(m, AIMessage) for m in unfinished_turn.messages
    ):
        # Only the task's own record has the model's answer: a new input would discard it.
        await _write_updates(
            agent, config, unfinished_turn, unfinished_turn.messages, unfinished_turn.other_updates
        )
        unfinished_turn = await _load_unfinished(agent, config)
    calls, existing_answers = _last_tool_calls(
        messages_in(unfinished_turn.snapshot.values) if unfinished_turn is not None else []
    )
    if unfinished_turn is None or calls.keys() <= existing_answers.keys():
        await turn.settled()
        return
    written_messages = unfinished_turn.messages.copy()
    other_updates = unfinished_turn.other_updates.copy()
    effects = await _effects_by_call(turn, unfinished_turn.snapshot)
    recorded_names = recorded_tool_names(agent)
    answers = {
        m.tool_call_id: m for m in written_messages if isinstance(m, ToolMessage)
    } | existing_answers
    for call_id, call in calls.items():
        messages, effect_updates = _split_tool_result(effects.get(call_id))
        recorded_answers = [
            m for m in messages if isinstance(m, ToolMessage) and m.tool_call_id == call_id
        ]
        if call_id not in answers and recorded_answers:
            answers[call_id] = recorded_answers[-1]
            written_messages += messages
            other_updates += effect_updates
        elif call_id not in answers:
            may_have_run = call_id in effects or call["name"] not in recorded_names
            text = OUTCOME_UNKNOWN_TEXT if may_have_run else NOT_RUN_TEXT
            answers[call_id] = ToolMessage(
                text, tool_call_id=call_id, name=call["name"], status="error"
            )
    # Results directly follow their calls, before other messages of the tools.
    other_messages = [
        m for m in written_messages if not (isinstance(m, ToolMessage) and m.tool_call_id in calls)
    ]
    await _write_updates(
        agent,
        config,
        unfinished_turn,
        [*(answers[call_id] for call_id in calls), *other_messages],
        other_updates,
    )
    await turn.settled()


@dataclass(frozen=True, slots=True)
class UnfinishedTurn:
    """Describe an unfinished turn: its last checkpoint, and the writes of its finished tasks."""

    snapshot: StateSnapshot
    messages: list[BaseMessage]
    other_updates: list[tuple[str, Any]]


async def _load_unfinished(agent: Any, config: RunnableConfig) -> UnfinishedTurn | None:
    # The checkpoint itself: for the thread LangGraph shows finished tasks' writes as applied.
    checkpoint_tuple = await agent.checkpointer.aget_tuple(config)
    if checkpoint_tuple is None:
        return None
    configurable = {**config["configurable"], "checkpoint_id": checkpoint_tuple.checkpoint["id"]}
    channel_writes = [
        w[1:] for w in checkpoint_tuple.pending_writes or () if w[1] in agent.stream_channels_list
    ]
    return UnfinishedTurn(
        await agent.aget_state({"configurable": configurable}),
        [m for name, value in channel_writes if name == "messages" for m in _to_messages(value)],
        [(name, value) for name, value in channel_writes if name != "messages"],
    )


def _to_messages(value: Any) -> list[BaseMessage]:
    """Return a node's messages: one or several, as LangChain's classes or their plain forms."""
    return convert_to_messages(value if isinstance(value, list) else [value])


async def _write_updates(
    agent: Any,
    config: RunnableConfig,
    unfinished_turn: UnfinishedTurn,
    messages: list[Any],
    other_updates: list[tuple[str, Any]],
) -> None:
    as_node = unfinished_turn.snapshot.next[0] if unfinished_turn.snapshot.next else None
    update: Command[Any] = Command(update={"messages": messages})
    try:
        # A command each: several tasks may have written to one channel.
        commands: list[Command[Any]] = [
            Command(update={name: value}) for name, value in other_updates
        ]
        await agent.aupdate_state(config, [update, *commands], as_node=as_node)
    except InvalidUpdateError:  # their writes conflict, which is why the turn did not end
        await agent.aupdate_state(config, update, as_node=as_node)


async def _effects_by_call(turn: Turn, snapshot: StateSnapshot) -> dict[str, Any]:
    """Return the recorded results of the unfinished step, by call; other steps may reuse ids."""
    tasks = {task.id for task in snapshot.tasks}
    results_by_call: dict[str, Any] = {}
    for key, result in (await turn.tool_results()).items():
        task, call_id = parse_effect_key(key)
        if task in tasks:
            results_by_call[call_id] = result
    return results_by_call


def _split_tool_result(result: Any) -> tuple[list[BaseMessage], list[tuple[str, Any]]]:
    """Return the messages in a tool's return value, and its other writes to the state."""
    if result is None:
        return [], []
    if not isinstance(result, Command):
        return [
            m
            for m in (result if isinstance(result, list) else [result])
            if isinstance(m, ToolMessage)
        ], []
    update = result.update if isinstance(result.update, Mapping) else {}
    other_updates = [(name, value) for name, value in update.items() if name != "messages"]
    return _to_messages(update.get("messages", [])), other_updates


def _last_tool_calls(messages: list[BaseMessage]) -> tuple[dict[str, Any], dict[str, ToolMessage]]:
    """Return the tool calls at the end of the conversation, and their results."""
    answers: dict[str, ToolMessage] = {}
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answers[message.tool_call_id] = message
        elif isinstance(message, AIMessage):
            return {c["id"]: c for c in message.tool_calls if c["id"]}, answers
        else:
            break
    return {}, {}
