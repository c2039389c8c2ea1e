"""The arguments of tool calls, as they are streamed."""

from __future__ import annotations

import json
from typing import Any


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
