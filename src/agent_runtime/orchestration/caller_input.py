"""What a caller may send: the scope that an input needs, and the roles of its messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langgraph.types import Command, Send

from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.orchestration.conversation import Resume
from agent_runtime.orchestration.messages import is_pair

Action: TypeAlias = Literal["run", "resume", "command"]
ROLES = ("user", "assistant", "tool", "system", "remove")
"""Roles that a template may allow: `system` with OpenAI's `developer`, `remove` for LangGraph's RemoveMessage."""
CALLER_ROLES = ("user", "assistant", "tool")
"""What callers may send by default. Who sends a `system` message instructs the agent as its author does."""
_ROLE_OF = {
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


def actions_of(value: Any) -> tuple[Action, ...]:
    """Return the actions that a call with this input is, each of which its caller needs the scope of.

    `run` for an input of the agent, `resume` for the answer to an interrupt, `command` for what steers the graph past
    its model and its approvals: a Command with `goto`, `update` or `graph`, a Send.
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


def checked_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return the roles; raises ConfigurationError for one that is none."""
    allowed = frozenset(roles)
    if unknown := allowed - set(ROLES):
        raise ConfigurationError(f"unknown roles {sorted(unknown)}; known: {', '.join(ROLES)}")
    return allowed


def check_roles(value: Any, allowed: frozenset[str]) -> None:
    """Raise InputInvalid for a message in an input, or in a command's update, whose role a caller may not send."""
    for place, role in _roles_in(value.update if isinstance(value, Command) else value):
        if role not in allowed:
            raise InputInvalid(
                f"a caller may send messages of {', '.join(sorted(allowed))}, not of '{role}': the template's "
                "`runtime.auth.roles` says which",
                place,
            )


def _roles_in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _roles_of_messages(each, str(name))
    else:
        yield from _roles_of_messages(value, "messages")


def _roles_of_messages(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Give the roles of what LangChain reads as messages, in any of its forms; other values have none."""
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if not isinstance(value, list | tuple | set | frozenset) or is_pair(value):
        value = [value]
    for index, each in enumerate(value):
        if (role := _role_of(each)) is not None:
            yield f"{place}[{index}]", role


def _role_of(value: Any) -> str | None:
    if isinstance(value, BaseMessage):
        name = getattr(value, "role", None) or value.type
    elif is_pair(value):
        name = value[0]
    elif isinstance(value, Mapping) and "content" in value:
        name = value.get("role") or value.get("type")
    else:
        return None
    return _ROLE_OF.get(name, name) if isinstance(name, str) else None
