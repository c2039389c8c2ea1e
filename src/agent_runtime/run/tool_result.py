"""Checks of a tool's return value, before LangChain makes a message of it."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from agent_runtime.errors.user_code import as_user_exception, error_text


class UnusableResult(Exception):
    """Say that a tool has run, and that its result cannot be written as text."""

    def to_message(self, tool: BaseTool, call_id: str) -> ToolMessage:
        """Return the message for the model; the tool is not run again."""
        text = f"Error: '{tool.name}' has run, but its result cannot be used: {self}"
        return ToolMessage(text, tool_call_id=call_id, name=tool.name, status="error")


def check_result(tool: BaseTool, result: Any) -> Any:
    """Return a tool's result; raises UnusableResult for one that cannot be written as text.

    LangChain writes results in its own `arun`, outside of the tool's error handling: a number of
    5,000 digits, an object whose `__str__` raises or half a surrogate pair would end the run, and
    the session with it.
    """
    content = result
    if (
        tool.response_format == "content_and_artifact"
        and isinstance(result, tuple)
        and len(result) == 2
    ):
        content = result[0]
    for text in _texts(content):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UnusableResult(f"character {error.start} is half of a surrogate pair") from error
    return result


def _texts(content: Any) -> list[str]:
    if type(content) is str:
        return [] if content.isascii() else [content]
    if content is None or isinstance(content, bool | float):
        return []
    if isinstance(content, BaseMessage):
        return _texts(content.content)
    if isinstance(content, Command):
        update = content.update
        messages = update.get("messages", ()) if isinstance(update, dict) else ()
        return [
            text
            for message in messages
            if isinstance(message, BaseMessage)
            for text in _texts(message)
        ]
    try:
        return [json.dumps(content, ensure_ascii=False)]
    except (TypeError, ValueError, RecursionError):
        pass  # LangChain writes `str()` of other values
    try:
        return [str(content)]
    except BaseException as error:  # noqa: BLE001 - the application's own code
        failure = as_user_exception(error)
        raise UnusableResult(error_text(failure)) from failure
