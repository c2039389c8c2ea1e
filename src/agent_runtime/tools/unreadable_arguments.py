"""Tool calls whose arguments are no JSON object: they do not run, and the model reads why."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage

KEY = "__unreadable_arguments__"
"""The one argument of such a call. A call without an answer would end a run, or break its conversation."""
MAX_TEXT = 2000
"""Characters of the arguments that stay in the conversation, for the model to see."""
REASON = "not run: the arguments are not a JSON object (or hold a number of more than 4,300 digits): call it again"


def unreadable_call(name: str, call_id: str, arguments: str) -> ToolCall:
    """Return the call as it stands in the conversation."""
    return ToolCall(name=name, args={KEY: arguments[:MAX_TEXT]}, id=call_id, type="tool_call")


def unreadable_answer(name: str, tool_input: Any, call_id: str | None) -> ToolMessage | None:
    """Return the answer of such a call, None for a call with arguments."""
    if call_id is None or not isinstance(tool_input, dict) or KEY not in tool_input:
        return None
    return ToolMessage(REASON, tool_call_id=call_id, name=name, status="error")


class StreamedArguments:
    """Joins the arguments of streamed tool calls.

    LangChain takes what there is of an object that was cut, say by the limit of the answer's tokens, for the whole.
    """

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[Any, list[Any]] = {}

    def add(self, pieces: list[Any]) -> None:
        """Take the `tool_call_chunks` of one chunk."""
        for piece in pieces:
            self._calls.setdefault(piece["id"] if piece["index"] is None else piece["index"], []).append(piece)

    def unreadable(self) -> dict[str, str]:
        """Return the arguments that are no JSON object, by the ids of their calls."""
        joined = {
            next((piece["id"] for piece in pieces if piece["id"]), None): "".join(each["args"] or "" for each in pieces)
            for pieces in self._calls.values()
        }
        return {call_id: text for call_id, text in joined.items() if call_id is not None and not _is_readable(text)}


def _is_readable(arguments: str) -> bool:
    # None at all are an empty object.
    if not arguments.strip():
        return True
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
