"""Convert LangChain's messages, most of a state's volume, to rows of plain data and back."""

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

# Stored by their index in this list: append new ones, remove none.
_MESSAGE_CLASSES: list[type[BaseMessage]] = [
    HumanMessage, AIMessage, ToolMessage, SystemMessage, RemoveMessage, AIMessageChunk,
    FunctionMessage, ChatMessage,
    HumanMessageChunk, ToolMessageChunk, SystemMessageChunk, ChatMessageChunk, FunctionMessageChunk,
]  # fmt: skip
CLASS_NUMBERS = {cls: number for number, cls in enumerate(_MESSAGE_CLASSES)}
_DEFAULTS: list[dict[str, Any]] = [
    {
        n: f.get_default(call_default_factory=True)
        for n, f in cls.model_fields.items()
        if not f.is_required()
    }
    for cls in _MESSAGE_CLASSES
]
_FIELDS = [frozenset(cls.model_fields) for cls in _MESSAGE_CLASSES]
_MUTABLE_DEFAULTS = [
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


def message_to_row(number: int, message: BaseMessage) -> list[Any]:
    """Return the row of a message: the number of its class, its content, its non-default fields."""
    fields = message.__dict__
    default_of = _DEFAULTS[number].get
    changed_fields = {
        n: v for n, v in fields.items() if n != "content" and v != default_of(n, _REQUIRED)
    }
    if message.__pydantic_extra__:
        changed_fields.update(message.__pydantic_extra__)
    return [number, fields["content"], changed_fields]


def message_from_row(number: int, content: Any, changed_fields: dict[str, Any]) -> BaseMessage:
    """Return the message of a row; raises ValueError for an invalid one."""
    # Assembled, not validated: LangChain would parse tool calls into a message that was stored
    # without them. (pydantic's own model_construct takes sixty times as long for an AIMessage.)
    if number < 0 or not isinstance(content, (str, list)) or not isinstance(changed_fields, dict):
        raise ValueError("not a message")
    cls = _MESSAGE_CLASSES[number]
    defaults = _DEFAULTS[number]
    field_names = _FIELDS[number]
    fields: dict[str, Any] = {"content": content, **defaults}
    for name, value in _MUTABLE_DEFAULTS[number]:
        fields[name] = value.copy()
    extra: dict[str, Any] = {}
    if field_names.issuperset(changed_fields):
        fields.update(changed_fields)
    else:
        for name, value in changed_fields.items():
            (fields if name in field_names else extra)[name] = value
    message: BaseMessage = _new(cls)
    _set_fields(message, fields)
    _set_fields_set(message, {"content", *changed_fields})
    _set_extra(message, extra)
    _set_private(message, None)
    return message
