"""The arguments of tool calls, as they are streamed."""

from __future__ import annotations

import json
from typing import Any


class StreamedArguments:
    """Join the arguments of streamed tool calls.

    LangChain takes the available part of a truncated object, say by the limit of the answer's
    tokens, for the whole.
    """

    __slots__ = ("_pieces_by_call",)

    def __init__(self) -> None:
        self._pieces_by_call: dict[Any, list[Any]] = {}

    def add(self, pieces: list[Any]) -> None:
        """Take the `tool_call_chunks` of one chunk."""
        for piece in pieces:
            self._pieces_by_call.setdefault(
                piece["id"] if piece["index"] is None else piece["index"], []
            ).append(piece)

    def by_id(self) -> dict[str, str]:
        """Return the arguments of each call as text, by the call's id."""
        joined: dict[str, str] = {}
        for pieces in self._pieces_by_call.values():
            call_id = next((piece["id"] for piece in pieces if piece["id"]), None)
            if call_id is not None:
                joined[call_id] = "".join(piece["args"] or "" for piece in pieces)
        return joined


def is_readable(arguments: str) -> bool:
    """Tell whether arguments are a JSON object; no text at all is an empty one."""
    if not arguments.strip():
        return True
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
