"""The bounds of one model answer, held when it is read, before any of its tool calls runs."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langgraph.types import Command

from agent_runtime.errors import LimitExceeded
from agent_runtime.models.run import Run, current_run

DEFAULT_CALLS = 128
"""Tool calls that one answer may have: OpenAI's own bound for parallel calls."""
MAX_ANSWERED_CALLS = 1024
"""An answer with more is refused whole: its error messages alone would fill a context window."""
MAX_DEPTH = 64
"""Levels of maps and lists in a call's arguments; what is nested deeper cannot be stored."""


def is_model_node(function: Any) -> bool:
    """Tell whether a graph's function is the model node of an agent that LangChain's `create_agent` has made."""
    name = getattr(function, "__qualname__", "").rpartition(".")[2]
    return getattr(function, "__module__", "") == "langchain.agents.factory" and name in ("model_node", "amodel_node")


def bound_answer(update: Any) -> Any:
    """Return what a model node has returned, with the calls of its answer counted and bounded.

    LangGraph makes a task of every call of an answer before a limit can stop the second one: 10,000 calls kept the
    event loop for 14 s. Here the run's `tool_calls` is compared with the whole answer first; calls beyond
    `calls_per_answer`, and those whose arguments are nested too deep to be stored, get an error message that the model
    sees, and do not run. Raises Refused (LimitExceeded).

    No middleware does it: one that wraps the model call costs 7 % of a turn.
    """
    run = current_run.get()
    first = update[0] if isinstance(update, list) and update else None
    if run is None or not isinstance(first, Command) or not isinstance(first.update, dict):
        return update
    messages: list[BaseMessage] = first.update.get("messages") or []
    answer = messages[-1] if messages else None
    if not isinstance(answer, AIMessage):  # a structured answer ends in the message of its tool
        answer = next((each for each in reversed(messages) if isinstance(each, AIMessage)), None)
    if answer is None or not answer.tool_calls:
        return update
    bounded = _bounded(messages, answer, run)
    if bounded is not messages:
        first.update["messages"] = bounded
    return update


def _bounded(messages: list[BaseMessage], answer: AIMessage, run: Run) -> list[BaseMessage]:
    answered = {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    pending = [call for call in answer.tool_calls if call["id"] not in answered]
    if len(pending) > MAX_ANSWERED_CALLS:
        raise run.refuse(LimitExceeded("calls_per_answer", MAX_ANSWERED_CALLS, f"{len(pending)} in one answer"))
    most = run.gate.limits.calls_per_answer or DEFAULT_CALLS
    too_deep = [call for call in pending if _is_deep(call["args"])]
    deep_ones = {id(call) for call in too_deep}
    if pending and len(too_deep) == len(pending):  # nothing is left that could run, and take the agent on
        raise run.refuse(LimitExceeded("answer_depth", MAX_DEPTH, "the arguments of every call are nested deeper"))
    too_many = [call for call in pending if id(call) not in deep_ones][most:]
    run.check_calls(len(pending) - len(too_deep) - len(too_many))
    if not too_deep and not too_many:
        return messages
    many = f"not run: an answer may have at most {most} tool calls, this one has {len(pending)}"
    deep = f"not run: the arguments are nested deeper than {MAX_DEPTH} levels"
    errors: list[BaseMessage] = [_error(call, many) for call in too_many]
    errors += [_error(call, deep) for call in too_deep]
    kept = _without_arguments(answer, too_deep) if too_deep else answer
    return [*(kept if each is answer else each for each in messages), *errors]


def _error(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(text, tool_call_id=call["id"] or "", name=call["name"], status="error")


def _without_arguments(message: AIMessage, calls: list[ToolCall]) -> AIMessage:
    """Return the message with empty arguments in these calls, in each form that it has them in."""
    names = {call["id"] for call in calls}
    content: Any = message.content
    if isinstance(content, list):
        content = [
            {**block, "input": {}, "args": {}} if isinstance(block, dict) and block.get("id") in names else block
            for block in content
        ]
    kept: list[Any] = [{**call, "args": {}} if call["id"] in names else call for call in message.tool_calls]
    return message.model_copy(update={"content": content, "tool_calls": kept})


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [nested for nested in each.values() if isinstance(nested, dict | list)]
            elif isinstance(each, list):
                inner += [nested for nested in each if isinstance(nested, dict | list)]
        if not inner:
            return False
        level = inner
    return True
