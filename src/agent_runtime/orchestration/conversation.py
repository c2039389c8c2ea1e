"""What a turn of a session finds: decisions that are awaited, and tool calls that a turn before it left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Interrupt, StateSnapshot

from agent_runtime.errors import InputInvalid
from agent_runtime.orchestration.messages import agent_input, messages_in
from agent_runtime.sessions.turn import Turn
from agent_runtime.types import AgentContext

STOPPED = "This tool call was stopped before it answered; it did not run."
UNKNOWN = "This tool call was stopped while it ran: whether it took effect is not known. Check before trying again."


@dataclass(frozen=True, slots=True)
class Resume:
    """The input that answers what an interrupted session waits for.

    `decision` is `"approve"`, `"reject"`, or LangChain's form (`{"type": "approve"}`, `{"type": "reject", "message":
    ...}`, `{"type": "edit", "edited_action": {"name": ..., "args": {...}}}`), or a list with one for each pending
    action. One decision goes to all of them; an edit fits one action only. For an interrupt of another kind it is
    the value that `interrupt()` returns.
    """

    decision: Any


def resume_command(decision: Any, interrupts: Sequence[Interrupt]) -> Command[Any]:
    """LangGraph's command for a decision; raises InputInvalid when nothing is awaited or it does not fit."""
    if not interrupts:
        raise InputInvalid("nothing waits for a decision in this session", "decision")
    given = list(decision) if isinstance(decision, list) else None
    answers: dict[str, Any] = {}
    for interrupt in interrupts:
        requests = _action_requests(interrupt)
        if requests is None:
            answers[interrupt.id] = decision
            continue
        if given is None:
            if len(requests) > 1 and _typed(decision)["type"] == "edit":
                raise InputInvalid(f"{len(requests)} actions wait: give a list with a decision for each", "decision")
            mine = [decision] * len(requests)
        else:
            mine, given = given[: len(requests)], given[len(requests) :]
            if len(mine) < len(requests):
                raise InputInvalid("there are fewer decisions than pending actions", "decision")
        answers[interrupt.id] = {"decisions": [_typed(each) for each in mine]}
    return Command(resume=answers)


def _action_requests(interrupt: Interrupt) -> list[Any] | None:
    requests = interrupt.value.get("action_requests") if isinstance(interrupt.value, Mapping) else None
    return requests if isinstance(requests, list) else None


def _typed(decision: Any) -> dict[str, Any]:
    if isinstance(decision, str):
        decision = {"type": decision}
    if not isinstance(decision, Mapping) or decision.get("type") not in ("approve", "edit", "reject", "respond"):
        raise InputInvalid("a decision is approve, reject, or a map with a type", "decision")
    return dict(decision)


async def session_input(
    agent: Any, config: RunnableConfig, context: AgentContext, *, kept: bool, needs_session: bool
) -> Any:
    """The agent's input; first, what the session's last turn left open is put in order.

    `kept` says whether the call has a session. Raises InputInvalid before anything is changed.
    """
    value, turn = context.input, context.turn
    if needs_session and not kept:
        raise InputInvalid("this agent may stop to ask a person, so its calls need a session_id", "session_id")
    if isinstance(value, Resume):
        if not kept:
            raise InputInvalid("only a session can be resumed", "session_id")
        ready: Any = resume_command(value.decision, (await agent.aget_state(config)).interrupts)
    else:
        ready = agent_input(value, agent)
    if turn is not None:
        if turn.unfinished and not (ready is None or isinstance(ready, Command)):
            await repair(agent, config, turn)
        turn.begins()
    return ready


async def repair(agent: Any, config: RunnableConfig, turn: Turn) -> None:
    """Answer the tool calls that an unfinished turn left open, so that the conversation is one again.

    Results that were saved, or that the ledger has, are used; for the others a message says what is known. Providers
    refuse a conversation in which a tool call has no answer.
    """
    # Without the call's own run id: LangGraph takes an input for a run that has a checkpoint for a retry, and drops it.
    config = {"configurable": config["configurable"]}
    snapshot = await _saved_state(agent, config)
    written = [m for task in snapshot.tasks for m in messages_in(task.result)] if snapshot is not None else []
    if snapshot is not None and (spoken := [m for m in written if not isinstance(m, ToolMessage)]):
        # The model had answered, and only its task's own record says so: a new input would discard that.
        await agent.aupdate_state(config, {"messages": spoken}, as_node=snapshot.next[0])
        snapshot = await _saved_state(agent, config)
    calls, told = _last_calls(messages_in(snapshot.values) if snapshot is not None else [])
    if snapshot is None or calls.keys() <= told.keys():
        await turn.settled()
        return
    effects = await _effects(turn, snapshot)
    answers = {m.tool_call_id: m for m in written if isinstance(m, ToolMessage)} | told
    for call_id, call in calls.items():
        known = [m for m in _tool_messages(effects.get(call_id)) if m.tool_call_id == call_id]
        if call_id not in answers and known:
            answers[call_id] = known[-1]
        elif call_id not in answers:
            text = UNKNOWN if call_id in effects else STOPPED
            answers[call_id] = ToolMessage(text, tool_call_id=call_id, name=call["name"], status="error")
    as_node = snapshot.next[0] if snapshot.next else None
    await agent.aupdate_state(config, {"messages": [answers[call_id] for call_id in calls]}, as_node=as_node)
    await turn.settled()


async def _effects(turn: Turn, snapshot: StateSnapshot) -> dict[str, Any]:
    """The ledger's entries of the step that was left, by call: another step may have had calls of the same ids."""
    tasks = {task.id for task in snapshot.tasks}
    found: dict[str, Any] = {}
    for key, result in (await turn.tool_results()).items():
        step, _, rest = key.partition("/")
        if step.rpartition(":")[2] in tasks:
            found[rest.partition("/")[0]] = result
    return found


def _tool_messages(result: Any) -> list[ToolMessage]:
    if isinstance(result, Command):
        update = result.update if isinstance(result.update, Mapping) else {}
        result = update.get("messages", [])
    found = result if isinstance(result, list) else [result]
    return [m for m in found if isinstance(m, ToolMessage)]


async def _saved_state(agent: Any, config: RunnableConfig) -> StateSnapshot | None:
    """The latest checkpoint itself. Asked for the thread, LangGraph shows finished tasks' writes as if applied."""
    saved = await agent.checkpointer.aget_tuple(config)
    if saved is None:
        return None
    configurable = {**config["configurable"], "checkpoint_id": saved.checkpoint["id"]}
    snapshot: StateSnapshot = await agent.aget_state({"configurable": configurable})
    return snapshot


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
