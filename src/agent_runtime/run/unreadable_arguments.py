"""Answer tool calls whose arguments are not a JSON object with an error instead of running them."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import ToolCall, ToolMessage

UNREADABLE_KEY = "__unreadable_arguments__"
"""The one argument of such a call.

A call without an answer would end a run, or break its conversation.
"""
MAX_ARGUMENT_CHARACTERS = 2000
"""Characters of the arguments that stay in the conversation, for the model to see."""
NOT_RUN_REASON = (
    "not run: the arguments are not a JSON object (or hold a number of more than 4,300 "
    "digits): call it again"
)


def unreadable_call(name: str, call_id: str, arguments: str) -> ToolCall:
    """Return the call's form in the conversation."""
    return ToolCall(
        name=name,
        args={UNREADABLE_KEY: arguments[:MAX_ARGUMENT_CHARACTERS]},
        id=call_id,
        type="tool_call",
    )


def unreadable_answer(name: str, tool_input: Any, call_id: str | None) -> ToolMessage | None:
    """Return the answer of such a call, None for a call with arguments."""
    if call_id is None or not isinstance(tool_input, dict) or UNREADABLE_KEY not in tool_input:
        return None
    return ToolMessage(NOT_RUN_REASON, tool_call_id=call_id, name=name, status="error")
