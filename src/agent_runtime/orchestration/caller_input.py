"""Restrict a caller's input: the scope that it needs, and the roles of its messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel

from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.orchestration.approvals import Resume
from agent_runtime.orchestration.messages import is_message_pair

Action: TypeAlias = Literal["run", "resume", "command"]
ROLES = ("user", "assistant", "tool", "system", "remove")
"""Roles that a template may allow.

`system` with OpenAI's `developer`, `remove` for LangGraph's RemoveMessage.
"""
CALLER_ROLES = ("user", "assistant", "tool")
"""Roles that callers may send by default.

A `system` message instructs the agent as its author does.
"""
_ROLES_BY_CLASS: tuple[tuple[type[BaseMessage], str], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (ToolMessage, "tool"),
    (FunctionMessage, "tool"),
    (SystemMessage, "system"),
    (RemoveMessage, "remove"),
)
_ROLES_BY_NAME = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
    "system": "system",
    "developer": "system",
    "remove": "remove",
}


def required_actions(value: Any) -> tuple[Action, ...]:
    """Return the actions of a call with this input, each of which needs a scope.

    `run` for an input of the agent, `resume` for the answer to an interrupt, `command` for input
    that steers the graph past its model and its approvals: a Command with `goto`, `update` or
    `graph`, a Send.
    """
    if isinstance(value, Resume):
        return ("resume",)
    if isinstance(value, Send):
        return ("command",)
    if not isinstance(value, Command):
        return ("run",)
    steers = bool(value.goto) or value.update is not None or value.graph is not None
    if not steers:
        return ("resume",)
    return ("command",) if value.resume is None else ("resume", "command")


def validate_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return the roles; raises ConfigurationError for an unknown one."""
    allowed = frozenset(roles)
    if unknown := allowed - set(ROLES):
        raise ConfigurationError(f"unknown roles {sorted(unknown)}; known: {', '.join(ROLES)}")
    return allowed


def check_roles(value: Any, allowed: frozenset[str]) -> None:
    """Raise InputInvalid for a message whose role a caller may not send."""
    for path, role in _iter_roles(value.update if isinstance(value, Command) else value):
        if role not in allowed:
            raise InputInvalid(
                f"a caller may send messages of {', '.join(sorted(allowed))}, not of '{role}': "
                "the template's "
                "`runtime.auth.roles` says which",
                path,
            )


def _iter_roles(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel) and not isinstance(value, BaseMessage | PromptValue):
        value = {name: getattr(value, name, None) for name in type(value).model_fields} | (
            value.model_extra or {}
        )
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {
            field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)
        }
    is_state = isinstance(value, Mapping) and not {"content", "kwargs"} & value.keys()
    if is_state:
        for name, field_value in value.items():
            yield from _iter_message_roles(field_value, str(name))
    else:
        yield from _iter_message_roles(value, "messages")


def _iter_message_roles(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the roles of values that LangChain reads as messages, in any of its forms."""
    if isinstance(value, Overwrite):
        value = value.value
    elif isinstance(value, Mapping) and len(value) == 1 and "__overwrite__" in value:
        value = value["__overwrite__"]
    if isinstance(value, PromptValue):
        value = value.to_messages()
    is_single_message = (
        isinstance(value, str | Mapping | BaseMessage)
        or is_message_pair(value)
        or not isinstance(value, Iterable)
    )
    for index, message in enumerate([value] if is_single_message else value):
        if (role := _role_of(message)) is not None:
            yield f"{path}[{index}]", role


def _role_of(value: Any) -> str | None:
    """Return a message's role.

    Forms that LangChain reads as messages are converted by itself, not guessed.
    """
    if (
        type(value) is dict
        and len(value) == 2
        and type(value.get("content")) is str
        and value.get("role") in _ROLES_BY_NAME
    ):
        return _ROLES_BY_NAME[value["role"]]
    if not isinstance(value, BaseMessage):
        if not isinstance(value, str | Mapping | Sequence) or isinstance(value, str | bytes):
            return None
        try:
            value = convert_to_messages([cast("Any", value)])[0]
        except Exception:  # noqa: BLE001 - whatever LangChain raises: it is no message for it
            return None
    for message_class, role in _ROLES_BY_CLASS:
        if isinstance(value, message_class):
            return role
    name = value.role if isinstance(value, ChatMessage) else value.type
    return _ROLES_BY_NAME.get(name, name)
