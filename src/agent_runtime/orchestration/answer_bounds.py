"""The bounds of one model answer, held when it is read, before any of its tool calls runs."""

from __future__ import annotations

import uuid
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langgraph.types import Command

from agent_runtime.errors import LimitExceeded
from agent_runtime.run.state import Run, current_run
from agent_runtime.run.unreadable_arguments import unreadable_call
from agent_runtime.size_limits import size_limit

DEFAULT_CALLS_PER_ANSWER = 128
"""Tool calls that one answer may have: OpenAI's own bound for parallel calls."""
MAX_ANSWERED_CALLS = size_limit("answered_calls")
"""An answer with more is refused whole: its error messages alone would fill a context window."""
MAX_DEPTH = 64
"""Most levels of maps and lists in a call's arguments; deeper ones cannot be stored."""


def is_model_node(function: Any) -> bool:
    """Tell whether a function is the model node of LangChain's `create_agent`."""
    name = getattr(function, "__qualname__", "").rpartition(".")[2]
    return getattr(function, "__module__", "") == "langchain.agents.factory" and name in (
        "model_node",
        "amodel_node",
    )


def enforce_answer_limits(update: Any) -> Any:
    """Return a model node's update, with the calls of its answer counted and bounded.

    LangGraph makes a task of every call of an answer before a limit can stop the second one: 10,000
    calls kept the event loop for 14 s. Here the run's `tool_calls` is compared with the whole
    answer first; calls beyond `calls_per_answer`, and those with arguments nested too deep to be
    stored, receive an error message for the model instead of running. So do calls whose arguments
    are not JSON: LangChain sets them aside, and a run with only such calls would end with an empty
    answer. Raises Refused (LimitExceeded). This is no middleware, because one that wraps the model
    call costs 7 % of a turn.
    """
    run = current_run.get()
    first = update[0] if isinstance(update, list) and update else None
    if run is None or not isinstance(first, Command) or not isinstance(first.update, dict):
        return update
    messages: list[BaseMessage] = first.update.get("messages") or []
    answer = messages[-1] if messages else None
    if not isinstance(answer, AIMessage):  # a structured answer ends in the message of its tool
        answer = next(
            (message for message in reversed(messages) if isinstance(message, AIMessage)), None
        )
    if answer is None or not (answer.tool_calls or answer.invalid_tool_calls):
        return update
    bounded = _limit_calls(messages, answer, run)
    if bounded is not messages:
        first.update["messages"] = bounded
    return update


def _limit_calls(messages: list[BaseMessage], answer: AIMessage, run: Run) -> list[BaseMessage]:
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    readable = [
        call
        for call in answer.tool_calls
        if call["id"] not in answered and call["id"] not in run.unreadable_arguments
    ]
    unreadable = _unreadable_calls(answer, run)
    pending = [*readable, *unreadable]
    if len(pending) > MAX_ANSWERED_CALLS:
        raise run.refuse(
            LimitExceeded("calls_per_answer", MAX_ANSWERED_CALLS, f"{len(pending)} in one answer")
        )
    max_calls = run.gate.limits.calls_per_answer or DEFAULT_CALLS_PER_ANSWER
    too_deep = [call for call in readable if _exceeds_max_depth(call["args"])]
    too_deep_ids = {id(call) for call in too_deep}
    if pending and len(too_deep) == len(
        pending
    ):  # nothing is left that could run, and take the agent on
        raise run.refuse(
            LimitExceeded(
                "answer_depth", MAX_DEPTH, "the arguments of every call are nested deeper"
            )
        )
    shallow = [call for call in readable if id(call) not in too_deep_ids]
    too_many = [*shallow, *unreadable][max_calls:]
    run.check_tool_calls(min(len(shallow), max_calls))
    if not too_deep and not too_many and not unreadable:
        return messages
    too_many_text = (
        f"not run: an answer may have at most {max_calls} tool calls, this one has {len(pending)}"
    )
    too_deep_text = f"not run: the arguments are nested deeper than {MAX_DEPTH} levels"
    errors: list[BaseMessage] = [_error_message(call, too_many_text) for call in too_many]
    errors += [_error_message(call, too_deep_text) for call in too_deep]
    changed_calls: dict[Any, Any] = {call["id"]: {**call, "args": {}} for call in too_deep}
    changed_calls |= {call["id"]: call for call in unreadable}
    bounded = _replace_calls(answer, changed_calls) if changed_calls else answer
    return [*(bounded if message is answer else message for message in messages), *errors]


def _unreadable_calls(answer: AIMessage, run: Run) -> list[ToolCall]:
    """Return the calls whose arguments are not JSON, in their form for the conversation.

    LangChain sets those of a complete answer aside. Of a streamed one it reads the available part
    of a truncated object.
    """
    calls = [
        unreadable_call(
            call["name"] or "unknown", call["id"] or f"call_{uuid.uuid4().hex}", call["args"] or ""
        )
        for call in answer.invalid_tool_calls
    ]
    cut = [call for call in answer.tool_calls if call["id"] in run.unreadable_arguments]
    return calls + [
        unreadable_call(call["name"], call["id"] or "", run.unreadable_arguments[call["id"] or ""])
        for call in cut
    ]


def _error_message(call: ToolCall, text: str) -> ToolMessage:
    return ToolMessage(text, tool_call_id=call["id"] or "", name=call["name"], status="error")


def _replace_calls(message: AIMessage, changed_calls: dict[Any, Any]) -> AIMessage:
    """Return the message with these calls, by their ids, in each form that it has them in."""
    content: Any = message.content
    if isinstance(content, list):
        content = [
            _replace_block(block, changed_calls[block.get("id")])
            if isinstance(block, dict) and block.get("id") in changed_calls
            else block
            for block in content
        ]
    calls: list[Any] = [changed_calls.get(call["id"], call) for call in message.tool_calls]
    existing_ids = {call["id"] for call in message.tool_calls}
    calls += [call for call_id, call in changed_calls.items() if call_id not in existing_ids]
    return message.model_copy(
        update={"content": content, "tool_calls": calls, "invalid_tool_calls": []}
    )


def _replace_block(block: dict[str, Any], call: Any) -> dict[str, Any]:
    if block.get("type") == "invalid_tool_call":
        return {"type": "tool_call", "id": call["id"], "name": call["name"], "args": call["args"]}
    complete_fields = {name: value for name, value in block.items() if name != "partial_json"}
    return {**complete_fields, "input": call["args"], "args": call["args"]}


def _exceeds_max_depth(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                inner += [
                    nested for nested in container.values() if isinstance(nested, dict | list)
                ]
            elif isinstance(container, list):
                inner += [nested for nested in container if isinstance(nested, dict | list)]
        if not inner:
            return False
        level = inner
    return True
