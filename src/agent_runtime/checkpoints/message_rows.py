"""LangChain's messages as rows of plain data, and back: by far the most of what a state holds."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from pydantic import BaseModel

# Stored by their place in this list: new ones are added at the end, none is ever removed.
_MESSAGES: list[type[BaseMessage]] = [
    HumanMessage, AIMessage, ToolMessage, SystemMessage, RemoveMessage, AIMessageChunk,
    FunctionMessage, ChatMessage,
    HumanMessageChunk, ToolMessageChunk, SystemMessageChunk, ChatMessageChunk, FunctionMessageChunk,
]  # fmt: skip
NUMBERS = {cls: number for number, cls in enumerate(_MESSAGES)}
_DEFAULTS: list[dict[str, Any]] = [
    {
        n: f.get_default(call_default_factory=True)
        for n, f in cls.model_fields.items()
        if not f.is_required()
    }
    for cls in _MESSAGES
]
_FIELDS = [frozenset(cls.model_fields) for cls in _MESSAGES]
_FRESH = [
    [(n, v) for n, v in defaults.items() if type(v) in (dict, list)] for defaults in _DEFAULTS
]
_REQUIRED = object()
_new = object.__new__
# The descriptors of pydantic's slots: three quarters of the time that `object.__setattr__` takes by
# name.
_set_fields, _set_fields_set, _set_extra, _set_private = (
    BaseModel.__dict__[name].__set__
    for name in (
        "__dict__",
        "__pydantic_fields_set__",
        "__pydantic_extra__",
        "__pydantic_private__",
    )
)


def row_of(number: int, message: BaseMessage) -> list[Any]:
    """Return what is stored of a message of the class of this number.

    The number, its content, what is no default.
    """
    fields = message.__dict__
    default_of = _DEFAULTS[number].get
    changed = {n: v for n, v in fields.items() if n != "content" and v != default_of(n, _REQUIRED)}
    if message.__pydantic_extra__:
        changed.update(message.__pydantic_extra__)
    return [number, fields["content"], changed]


def message_of(number: int, content: Any, kept: dict[str, Any]) -> BaseMessage:
    """The message of a row again; raises ValueError for what is none."""
    # Put together, not validated again: LangChain would read tool calls into a message that was
    # stored without them. (pydantic's own model_construct takes sixty times as long for an
    # AIMessage.)
    if number < 0 or not isinstance(content, (str, list)) or not isinstance(kept, dict):
        raise ValueError("no message")
    cls = _MESSAGES[number]
    defaults = _DEFAULTS[number]
    known = _FIELDS[number]
    fields: dict[str, Any] = {"content": content, **defaults}
    for name, value in _FRESH[number]:
        fields[name] = value.copy()
    extra: dict[str, Any] = {}
    if known.issuperset(kept):
        fields.update(kept)
    else:
        for name, value in kept.items():
            (fields if name in known else extra)[name] = value
    message: BaseMessage = _new(cls)
    _set_fields(message, fields)
    _set_fields_set(message, {"content", *kept})
    _set_extra(message, extra)
    _set_private(message, None)
    return message
