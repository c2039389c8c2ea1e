"""Check a call's input in every form, and its ids, before anything is written or paid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langgraph.graph.message import add_messages
from langgraph.types import Command, Overwrite
from pydantic import BaseModel

from agent_runtime.errors import InputInvalid
from agent_runtime.orchestration.approvals import Resume
from agent_runtime.orchestration.messages import is_graph, is_message_pair
from agent_runtime.types import AgentContext

MAX_DEPTH = 64
"""Levels of maps and lists in one input.

Providers and JSON parsers refuse more, and recursion ends near 1,000.
"""
MAX_INT_BITS = 14_000
"""The largest whole number that Python writes in decimal (4,300 digits)."""
MAX_ID_CHARACTERS = 1024
_SHORT_ROLES = frozenset({"user", "human", "assistant", "ai", "system"})
_INTERNAL_PREFIXES = ("__", "branch:")
"""Prefixes of LangGraph's own channels."""
_MEDIA_TYPES = frozenset({"image", "audio", "video", "file"})
_SOURCE_FIELDS = ("url", "base64", "data", "file_id", "source", "file")
_SOURCE_TYPES = {"url": ("url",), "base64": ("data",), "id": ("id",), "text": ("text",)}
"""Source types of LangChain's first block form, with the field that each one has."""


def check_ids(context: AgentContext) -> None:
    """Raise InputInvalid for an invalid id of a session or run, or idempotency key."""
    if context.session_id is not None:
        _check_id(context.session_id, "session_id")
    run_id = context.run_id
    if type(run_id) is not str or len(run_id) != 36 or not run_id.isascii():  # most are our own
        _check_id(run_id, "run_id")
    if context.idempotency_key is not None:
        _check_id(context.idempotency_key, "idempotency_key")


def check_session(context: AgentContext, agent: Any, *, has_session: bool) -> None:
    """Raise InputInvalid for a session id without a store for the session.

    `has_session` says whether it is stored. A thread id that LangChain's own methods pass to an
    agent that is not a LangGraph graph is up to that agent.
    """
    if context.session_id is None or has_session:
        return
    if context.config is None or is_graph(agent):
        raise InputInvalid(
            "this agent keeps no sessions: give its factory a session_manager "
            "(`AgentFactory(session_manager="
            "SessionManager.from_url(...))`), or its graph a checkpointer; without either leave "
            "session_id out",
            "session_id",
        )


def check_input(value: Any, agent: Any) -> None:
    """Raise InputInvalid, with the location of the fault, for an input that no agent accepts.

    It would fail late, after some cost, or leave an unusable session. An agent that is not a
    LangGraph graph accepts any input; text is checked for all.
    """
    if type(value) is str and not value.isascii():
        _check_text(value, "")
    if value is None or not is_graph(agent):
        return
    if type(value) is dict:
        _check_state(value, agent, "", _input_keys(agent))
    elif isinstance(value, Command):
        _check_command(value, agent)
    elif isinstance(value, Resume):
        _check_value(value.decision, "decision", MAX_DEPTH)
    elif isinstance(value, Mapping):
        _check_state(value, agent, "", _input_keys(agent))
    elif isinstance(value, str | BaseMessage | PromptValue | list | tuple):
        channels = getattr(agent, "channels", None)
        if channels is not None and "messages" not in channels:
            expected_input = (
                f"it takes a dict with {_channel_names(channels)}"
                if _accepts_state(agent)
                else "it takes a dict"
            )
            raise InputInvalid(f"this agent has no 'messages'; {expected_input}")
        if not isinstance(value, str):
            _check_messages(value, "messages")
        elif not value or value.isspace():
            raise InputInvalid("the input is empty")
    elif (
        not isinstance(value, BaseModel)
        and not dataclasses.is_dataclass(value)
        and _accepts_state(agent)
    ):
        raise InputInvalid(
            "an input is text, messages, a map of the agent's state, a Command or None, not "
            f"{type(value).__name__}"
        )


def _check_id(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise InputInvalid(f"an id is text, not {type(value).__name__}", path)
    if not value or len(value) > MAX_ID_CHARACTERS:
        raise InputInvalid(f"an id has 1 to {MAX_ID_CHARACTERS} characters, not {len(value)}", path)
    _check_text(value, path)


def _check_text(text: str, path: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputInvalid(
            f"character {error.start} is half of a surrogate pair, which cannot be stored or "
            "sent: decode the text "
            'with errors="replace"',
            path,
        ) from None


def _check_value(value: Any, path: str, depth: int) -> None:
    """Check plain data: text, whole numbers, and how deep maps and lists are nested."""
    kind = type(value)
    if kind is str:
        _check_text(value, path)
    elif kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise InputInvalid("a whole number of more than 4,300 digits", path)
    elif isinstance(value, Mapping):
        if not depth:
            raise InputInvalid(f"maps and lists nested deeper than {MAX_DEPTH} levels", path[:200])
        for key, nested_value in value.items():
            if isinstance(key, str):
                _check_text(key, path)
            name = key if isinstance(key, str) and len(key) <= 100 else str(key)[:100]
            _check_value(nested_value, f"{path}.{name}" if path else name, depth - 1)
    elif kind in (list, tuple, set, frozenset):
        if not depth:
            raise InputInvalid(f"maps and lists nested deeper than {MAX_DEPTH} levels", path[:200])
        for index, nested_value in enumerate(value):
            _check_value(nested_value, f"{path}[{index}]", depth - 1)
    elif isinstance(value, BaseMessage):
        _check_message(value, path)


def _check_command(command: Command[Any], agent: Any) -> None:
    _check_value(command.resume, "resume", MAX_DEPTH)
    if isinstance(command.update, Mapping):
        _check_state(command.update, agent, "update.", agent.channels.keys())
    elif command.update is not None:
        _check_value(command.update, "update", MAX_DEPTH)


def _check_state(
    state: Mapping[Any, Any], agent: Any, path_prefix: str, keys: Set[str] | None
) -> None:
    """Check the values of a state, and its names against `keys`."""
    channels = getattr(agent, "channels", None)
    if not channels or not _accepts_state(
        agent
    ):  # a function of LangGraph's functional API takes any value
        _check_value(state, path_prefix.rstrip("."), MAX_DEPTH)
        return
    if keys is not None and not keys >= state.keys():
        unknown = next(name for name in state if name not in keys)
        accepted_keys = ", ".join(sorted(keys))
        raise InputInvalid(
            f"the agent's input has no '{unknown}': it has {accepted_keys}",
            f"{path_prefix}{unknown}",
        )
    for name, value in state.items():
        path = f"{path_prefix}{name}"
        value = value.value if isinstance(value, Overwrite) else value  # noqa: PLW2901 - the channel's new value
        if name == "messages" and getattr(channels.get(name), "operator", None) is add_messages:
            _check_messages(value, path)
        else:
            _check_value(value, path, MAX_DEPTH)


def _input_keys(agent: Any) -> Set[str] | None:
    """Return the keys of an agent's input, or None where it is not a map, or unknown.

    LangGraph drops other keys silently, and callers must not set the counters of its middleware.
    """
    builder = getattr(agent, "builder", None)
    schema = getattr(builder, "input_schema", None)
    keys: Mapping[str, Any] | None = getattr(builder, "schemas", {}).get(schema)
    if keys is None or "__root__" in keys:
        return None
    return keys.keys()


def _accepts_state(agent: Any) -> bool:
    """Tell whether an agent's input is a map of channels.

    That of LangGraph's functional API is any value.
    """
    channels = getattr(agent, "channels", None)
    return not channels or any(not name.startswith(_INTERNAL_PREFIXES) for name in channels)


def _channel_names(channels: Mapping[str, Any]) -> str:
    return ", ".join(name for name in channels if not name.startswith(_INTERNAL_PREFIXES))


def _check_messages(value: Any, path: str) -> None:
    messages = value if type(value) is list else _to_message_list(value, path)
    if not messages:
        raise InputInvalid("the list of messages is empty", path)
    open_calls: dict[str, str] = {}
    for index, raw_message in enumerate(messages):
        if not open_calls and _is_plain_shorthand(raw_message):
            continue
        message = (
            raw_message
            if isinstance(raw_message, BaseMessage)
            else _to_message(raw_message, f"{path}[{index}]")
        )
        if not _is_plain(message):
            _check_message(message, f"{path}[{index}]")
        if isinstance(message, ToolMessage):
            open_calls.pop(message.tool_call_id, None)
            continue
        if open_calls:
            call_id, message_path = next(iter(open_calls.items()))
            raise InputInvalid(
                f"the tool call '{call_id}' has no ToolMessage right after its message",
                message_path,
            )
        if isinstance(message, AIMessage) and message.tool_calls:
            _register_calls(message, f"{path}[{index}]", open_calls)


def _to_message_list(value: Any, path: str) -> list[Any]:
    if isinstance(value, PromptValue):
        return value.to_messages()
    if value is None or not isinstance(value, str | Mapping | Sequence | BaseMessage):
        raise InputInvalid(f"a list of messages is needed, not {type(value).__name__}", path)
    return (
        list(value) if isinstance(value, list | tuple) and not is_message_pair(value) else [value]
    )


def _register_calls(message: AIMessage, path: str, open_calls: dict[str, str]) -> None:
    """Add a message's calls to the open ones; later ones may reuse the id of an answered call."""
    for number, call in enumerate(message.tool_calls):
        call_id = call["id"]
        if call_id is None:  # without an id no ToolMessage can answer it
            continue
        if call_id in open_calls:
            raise InputInvalid(
                f"two tool calls have the id '{call_id}'", f"{path}.tool_calls[{number}]"
            )
        open_calls[call_id] = path


def _is_plain_shorthand(value: Any) -> bool:
    """Tell whether a pair or a map is one message of plain text.

    Its conversion to a message costs 20 us.
    """
    if type(value) is tuple and len(value) == 2:
        role, content = value
    elif type(value) is dict and len(value) == 2:
        role = value.get("role")
        content = value.get("content")
    else:
        return False
    is_text = type(content) is str and content.isascii() and content != "" and not content.isspace()
    return is_text and type(role) is str and role in _SHORT_ROLES


def _is_plain(message: BaseMessage) -> bool:
    """Return whether a message is ASCII text only; checking others costs four times as much."""
    content = message.content
    message_id = message.id
    return (
        type(content) is str
        and content.isascii()
        and content != ""
        and not content.isspace()
        and not message.additional_kwargs
        and (
            message_id is None
            or (type(message_id) is str and 0 < len(message_id) <= 256 and message_id.isascii())
        )
        and not (isinstance(message, AIMessage) and message.tool_calls)
    )


def _to_message(value: Any, path: str) -> BaseMessage:
    if isinstance(value, BaseMessage):
        return value
    _check_value(value, path, MAX_DEPTH)  # before the conversion, which recurs
    try:
        return convert_to_messages([value])[0]
    except Exception as error:
        raise InputInvalid(f"not a message: {str(error).splitlines()[0][:200]}", path) from error


def _check_message(message: BaseMessage, path: str) -> None:
    content = message.content
    requires_content = message.type in ("human", "system")
    if type(content) is str:
        if requires_content and (not content or content.isspace()):
            raise InputInvalid("a blank message", path)
        _check_text(content, path)
    else:
        _check_blocks(content, f"{path}.content", requires_content=requires_content)
    if message.id is not None:
        _check_id(message.id, f"{path}.id")
    if isinstance(message, AIMessage):
        for number, call in enumerate(message.tool_calls):
            _check_value(call, f"{path}.tool_calls[{number}]", MAX_DEPTH)
    if message.additional_kwargs:
        _check_value(message.additional_kwargs, f"{path}.additional_kwargs", MAX_DEPTH)


def _check_blocks(content: Any, path: str, *, requires_content: bool) -> None:
    if not isinstance(content, list):
        raise InputInvalid(
            f"content is text or a list of blocks, not {type(content).__name__}", path
        )
    if requires_content and not content:
        raise InputInvalid("a blank message", path)
    for number, block in enumerate(content):
        block_path = f"{path}[{number}]"
        if isinstance(block, Mapping):
            if len(block) == 1 and isinstance(
                next(iter(block.values())), Mapping
            ):  # Amazon's {"cachePoint": {...}}
                _check_value(block, block_path, MAX_DEPTH)
                continue
            if not isinstance(block.get("type"), str) or not block["type"]:
                raise InputInvalid("a content block needs a type", block_path)
            if block["type"] == "text" and not isinstance(block.get("text"), str):
                raise InputInvalid("a text block needs a text", block_path)
            text = block["text"] if block["type"] == "text" else None
        elif isinstance(block, str):
            text = block
        else:
            raise InputInvalid(
                f"a content block is a map or text, not {type(block).__name__}", block_path
            )
        if requires_content and text is not None and (not text or text.isspace()):
            raise InputInvalid("a blank text block", block_path)
        if isinstance(block, Mapping) and block["type"] in _MEDIA_TYPES:
            _check_media(block, block_path)
        _check_value(block, block_path, MAX_DEPTH)


def _check_media(block: Mapping[str, Any], path: str) -> None:
    """Check that a media block has a source for its bytes.

    LangChain raises at every turn otherwise.
    """
    source_type = block.get("source_type")
    if source_type is not None and source_type not in _SOURCE_TYPES:
        raise InputInvalid(
            f"a source_type is one of {', '.join(_SOURCE_TYPES)}", f"{path}.source_type"
        )
    names = (*_SOURCE_FIELDS, block["type"]) if source_type is None else _SOURCE_TYPES[source_type]
    if not any(isinstance(block.get(name), str | Mapping) and block[name] for name in names):
        raise InputInvalid(f"{block['type']} content needs one of {', '.join(names)}", path)


def has_tool_answers(value: Any) -> bool:
    """Return whether an input has a ToolMessage, which may answer a stored call."""
    messages = value
    if type(value) is dict or isinstance(value, Mapping):
        messages = value.get("messages")
    if not isinstance(messages, list | tuple):
        messages = (messages,)
    for message in messages:
        if type(message) is dict or isinstance(message, Mapping):
            if message.get("role") == "tool" or message.get("type") == "tool":
                return True
        elif isinstance(message, ToolMessage):
            return True
    return False


def check_tool_answers(value: Any, saved_messages: Sequence[BaseMessage]) -> None:
    """Raise InputInvalid for a ToolMessage without its call in input or conversation."""
    messages = value.get("messages") if isinstance(value, Mapping) else value
    input_messages = (
        [messages] if isinstance(messages, BaseMessage | Mapping) else list(messages or ())
    )
    call_ids = {
        call["id"]
        for message in saved_messages
        if isinstance(message, AIMessage)
        for call in message.tool_calls
    }
    for index, raw_message in enumerate(input_messages):
        message = _to_message(raw_message, f"messages[{index}]")
        if isinstance(message, AIMessage):
            call_ids.update(call["id"] for call in message.tool_calls)
        elif isinstance(message, ToolMessage) and message.tool_call_id not in call_ids:
            raise InputInvalid(
                f"the answer to the tool call '{message.tool_call_id}', which no message makes",
                f"messages[{index}]",
            )
