"""What a turn of a session finds.

Decisions that are awaited, and tool calls that a turn before it left open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, Interrupt, StateSnapshot

from agent_runtime.errors import InputInvalid
from agent_runtime.orchestration.boundaries import recorded_tools
from agent_runtime.orchestration.messages import agent_input, messages_in
from agent_runtime.run.idempotency import place_of_effect
from agent_runtime.sessions.turn import Turn
from agent_runtime.types import AgentContext

AGENT_KEY = "agent_runtime_agent"
"""In the metadata of a session's checkpoints: the name of the agent that wrote them."""
STOPPED = "This tool call was stopped before it answered; it did not run."
_ID = re.compile("[0-9a-f]{32}")
"""The form of LangGraph's ids of interrupts."""
UNKNOWN = (
    "This tool call was stopped: whether it ran and took effect is not known. Check "
    "before trying again."
)


@dataclass(frozen=True, slots=True)
class Resume:
    """The input that answers what an interrupted session waits for.

    `decision` is `"approve"`, `"reject"`, or LangChain's form (`{"type": "approve"}`, `{"type":
    "reject", "message": ...}`, `{"type": "edit", "edited_action": {"name": ..., "args": {...}}}`),
    or a list with one for each pending action. One decision goes to all of them; an edit fits one
    action only. For an interrupt of another kind it is the value that `interrupt()` returns.

    When several interrupts are pending, it is a map from the `id` of each to its decision; those
    that are left out stay pending. One value for several questions raises InputInvalid, and so does
    an id that is not pending.
    """

    decision: Any


def resume_command(decision: Any, interrupts: Sequence[Interrupt]) -> Command[Any]:
    """Return LangGraph's command for a decision.

    Raises InputInvalid when nothing is pending or it does not fit.
    """
    if not interrupts:
        raise InputInvalid("nothing waits for a decision in this session", "decision")
    if (by_id := _by_id(decision, interrupts)) is not None:
        return Command(
            resume={
                each.id: _answer(by_id[each.id], each) for each in interrupts if each.id in by_id
            }
        )
    questions = [each for each in interrupts if _action_requests(each) is None]
    if len(interrupts) > 1 and questions:
        ids = ", ".join(f"'{each.id}'" for each in interrupts)
        raise InputInvalid(
            f"{len(interrupts)} questions are pending: give a map from their ids to the answers "
            f"({ids})",
            "decision",
        )
    if questions:
        return Command(resume={questions[0].id: decision})
    return Command(resume=_for_all(decision, interrupts))


def _by_id(decision: Any, interrupts: Sequence[Interrupt]) -> dict[str, Any] | None:
    """Return a decision that is a map by the ids of interrupts, or None for one of another form."""
    if not isinstance(decision, Mapping) or not decision:
        return None
    pending = {each.id for each in interrupts}
    if not pending & decision.keys() and not all(
        isinstance(key, str) and _ID.fullmatch(key) for key in decision
    ):
        return None
    if unknown := [key for key in decision if key not in pending]:
        raise InputInvalid(f"no pending question has the id '{unknown[0]}'", "decision")
    return dict(decision)


def _answer(decision: Any, interrupt: Interrupt) -> Any:
    return (
        decision
        if _action_requests(interrupt) is None
        else _for_all(decision, [interrupt])[interrupt.id]
    )


def _for_all(decision: Any, interrupts: Sequence[Interrupt]) -> dict[str, Any]:
    """Return the answers of interrupts that ask about actions.

    One decision for all, or a list with one for each.
    """
    given = list(decision) if isinstance(decision, list) else None
    answers: dict[str, Any] = {}
    for interrupt in interrupts:
        requests = _action_requests(interrupt) or []
        if given is None:
            if len(requests) > 1 and _typed(decision)["type"] == "edit":
                raise InputInvalid(
                    f"{len(requests)} actions wait: give a list with a decision for each",
                    "decision",
                )
            mine = [decision] * len(requests)
        else:
            mine = given[: len(requests)]
            given = given[len(requests) :]
            if len(mine) < len(requests):
                raise InputInvalid("there are fewer decisions than pending actions", "decision")
        answers[interrupt.id] = {
            "decisions": [_fitting(each, asked) for each, asked in zip(mine, requests, strict=True)]
        }
    if given:
        raise InputInvalid("there are more decisions than pending actions", "decision")
    return answers


def _fitting(decision: Any, request: Any) -> dict[str, Any]:
    """Return a decision in LangChain's form.

    An edit changes the arguments of the tool that was asked about.
    """
    typed = _typed(decision)
    edited = typed.get("edited_action")
    name = request.get("name") if isinstance(request, Mapping) else None
    if typed["type"] == "edit" and isinstance(edited, Mapping) and edited.get("name", name) != name:
        raise InputInvalid(
            f"an edit is one of the call of '{name}', and cannot call another tool", "decision"
        )
    return typed


def _types_of(resume: Any) -> set[Any]:
    """Return the kinds of decisions in a command's answer, by interrupt where it has ids."""
    answers = [resume, *(resume.values() if isinstance(resume, Mapping) else ())]
    decisions = [
        each
        for answer in answers
        if isinstance(answer, Mapping)
        for each in answer.get("decisions") or ()
    ]
    return {each.get("type") for each in decisions if isinstance(each, Mapping)}


def _check_edits(resume: Mapping[str, Any], interrupts: Sequence[Interrupt]) -> None:
    for interrupt in interrupts:
        answer = resume.get(interrupt.id, resume)
        decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
        for decision, request in zip(
            decisions or (), _action_requests(interrupt) or (), strict=False
        ):
            _fitting(decision, request)


def _action_requests(interrupt: Interrupt) -> list[Any] | None:
    requests = (
        interrupt.value.get("action_requests") if isinstance(interrupt.value, Mapping) else None
    )
    return requests if isinstance(requests, list) else None


def _typed(decision: Any) -> dict[str, Any]:
    if isinstance(decision, str):
        decision = {"type": decision}
    if not isinstance(decision, Mapping) or decision.get("type") not in (
        "approve",
        "edit",
        "reject",
        "respond",
    ):
        raise InputInvalid("a decision is approve, reject, or a map with a type", "decision")
    return dict(decision)


async def session_input(
    agent: Any, config: RunnableConfig, context: AgentContext, *, kept: bool, needs_session: bool
) -> Any:
    """The agent's input; first, what the session's last turn left open is put in order.

    `kept` says whether the call has a session. Raises InputInvalid before anything is changed.
    """
    value = context.input
    turn = context.turn
    if needs_session and not kept:
        raise InputInvalid(
            "this agent may stop to ask a person, so its calls need a session_id", "session_id"
        )
    if isinstance(value, Resume):
        if not kept:
            raise InputInvalid("only a session can be resumed", "session_id")
        ready: Any = await _resumed(agent, config, value.decision, turn, context.agent_name)
    else:
        if kept and isinstance(value, Command) and "edit" in _types_of(value.resume):
            _check_edits(cast("Any", value.resume), (await agent.aget_state(config)).interrupts)
        ready = agent_input(value, agent)
    if turn is not None:
        if turn.unfinished and not (ready is None or isinstance(ready, Command)):
            await repair(agent, config, turn)
        turn.begins()
    return ready


async def _resumed(
    agent: Any, config: RunnableConfig, decision: Any, turn: Turn | None, name: str
) -> Any:
    snapshot: StateSnapshot = await agent.aget_state(config)
    asked_by = (snapshot.metadata or {}).get(AGENT_KEY, name)
    if (
        asked_by != name
    ):  # the session's record says so first; it is sealed apart from the checkpoint
        raise InputInvalid(
            f"the session waits for its agent '{asked_by}', and this is '{name}'", "session_id"
        )
    waits = turn is not None and turn.session.status == "interrupted" and turn.unfinished
    if not snapshot.interrupts and snapshot.next and waits:
        # A budget was exhausted: nothing but the run itself waits, and it goes on where it stopped.
        if _typed(decision)["type"] != "approve":
            raise InputInvalid(
                "a call that waits for a budget is resumed with approve, or given up by a new "
                "message"
            )
        return None
    return resume_command(decision, snapshot.interrupts)


async def repair(agent: Any, config: RunnableConfig, turn: Turn) -> None:
    """Complete the tool calls that an unfinished turn left without a result.

    Results that were saved, or that the ledger has, are used; for the others a message says what is
    known. Providers refuse a conversation in which a tool call has no answer.
    """
    # Without the call's own run id: LangGraph takes an input for a run that has a checkpoint for a
    # retry, and drops it.
    config = {"configurable": config["configurable"]}
    left = await _left(agent, config)
    if left is not None and any(isinstance(m, AIMessage) for m in left.messages):
        # The model had answered, and only its task's own record says so: a new input would discard
        # that.
        await _update(agent, config, left, left.messages, left.others)
        left = await _left(agent, config)
    calls, told = _last_calls(messages_in(left.snapshot.values) if left is not None else [])
    if left is None or calls.keys() <= told.keys():
        await turn.settled()
        return
    written = left.messages.copy()
    others = left.others.copy()
    effects = await _effects(turn, left.snapshot)
    recorded = recorded_tools(agent)
    answers = {m.tool_call_id: m for m in written if isinstance(m, ToolMessage)} | told
    for call_id, call in calls.items():
        messages, other = _parts(effects.get(call_id))
        known = [m for m in messages if isinstance(m, ToolMessage) and m.tool_call_id == call_id]
        if call_id not in answers and known:
            answers[call_id] = known[-1]
            written += messages
            others += other
        elif call_id not in answers:
            has_begun = call_id in effects or call["name"] not in recorded
            text = UNKNOWN if has_begun else STOPPED
            answers[call_id] = ToolMessage(
                text, tool_call_id=call_id, name=call["name"], status="error"
            )
    # The answers come right after the calls, whatever else a tool said.
    said = [m for m in written if not (isinstance(m, ToolMessage) and m.tool_call_id in calls)]
    await _update(agent, config, left, [*(answers[call_id] for call_id in calls), *said], others)
    await turn.settled()


@dataclass(frozen=True, slots=True)
class _Left:
    """Where an unfinished turn stands.

    Its last checkpoint, and what the tasks that had finished then wrote.
    """

    snapshot: StateSnapshot
    messages: list[BaseMessage]
    others: list[tuple[str, Any]]


async def _left(agent: Any, config: RunnableConfig) -> _Left | None:
    # The checkpoint itself: asked for the thread, LangGraph shows finished tasks' writes as if they
    # were applied.
    saved = await agent.checkpointer.aget_tuple(config)
    if saved is None:
        return None
    configurable = {**config["configurable"], "checkpoint_id": saved.checkpoint["id"]}
    written = [w[1:] for w in saved.pending_writes or () if w[1] in agent.stream_channels_list]
    return _Left(
        await agent.aget_state({"configurable": configurable}),
        [m for name, value in written if name == "messages" for m in _as_messages(value)],
        [(name, value) for name, value in written if name != "messages"],
    )


def _as_messages(value: Any) -> list[BaseMessage]:
    """What a node may return as messages.

    One, or several, as LangChain's classes or their plain forms.
    """
    return convert_to_messages(value if isinstance(value, list) else [value])


async def _update(
    agent: Any,
    config: RunnableConfig,
    left: _Left,
    messages: list[Any],
    others: list[tuple[str, Any]],
) -> None:
    as_node = left.snapshot.next[0] if left.snapshot.next else None
    update: Command[Any] = Command(update={"messages": messages})
    try:
        # A command each: several tasks may have written to one channel.
        written: list[Command[Any]] = [Command(update={name: value}) for name, value in others]
        await agent.aupdate_state(config, [update, *written], as_node=as_node)
    except (
        InvalidUpdateError
    ):  # what they wrote does not go together; that is why the turn had no end
        await agent.aupdate_state(config, update, as_node=as_node)


async def _effects(turn: Turn, snapshot: StateSnapshot) -> dict[str, Any]:
    """The ledger's entries of the step that was left, by call.

    Another step may have had calls of the same ids.
    """
    tasks = {task.id for task in snapshot.tasks}
    found: dict[str, Any] = {}
    for key, result in (await turn.tool_results()).items():
        task, call_id = place_of_effect(key)
        if task in tasks:
            found[call_id] = result
    return found


def _parts(result: Any) -> tuple[list[BaseMessage], list[tuple[str, Any]]]:
    """The messages in what a tool returned, and what else it wrote to the state."""
    if result is None:
        return [], []
    if not isinstance(result, Command):
        return [
            m
            for m in (result if isinstance(result, list) else [result])
            if isinstance(m, ToolMessage)
        ], []
    update = result.update if isinstance(result.update, Mapping) else {}
    others = [(name, value) for name, value in update.items() if name != "messages"]
    return _as_messages(update.get("messages", [])), others


def _last_calls(messages: list[BaseMessage]) -> tuple[dict[str, Any], dict[str, ToolMessage]]:
    """The tool calls that the conversation ends with, and the answers that they have."""
    answers: dict[str, ToolMessage] = {}
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answers[message.tool_call_id] = message
        elif isinstance(message, AIMessage):
            return {c["id"]: c for c in message.tool_calls if c["id"]}, answers
        else:
            break
    return {}, {}
