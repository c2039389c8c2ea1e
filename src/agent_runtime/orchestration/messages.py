"""Converts callers' input to agents' input, and agents' output to results."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langgraph.pregel.protocol import PregelProtocol

from agent_runtime.chunks import Chunk, ReasoningChunk, TextChunk, ToolCallChunk, ToolResultChunk


# `isinstance` of an abstract class costs 0.7 us, at each call for the agent and for every message
# of its state.
@lru_cache(maxsize=256)
def _is_graph_class(kind: type) -> bool:
    return issubclass(kind, PregelProtocol)


@lru_cache(maxsize=256)
def _is_message_class(kind: type) -> bool:
    return issubclass(kind, BaseMessage)


def is_graph(agent: object) -> bool:
    """Tell whether an agent is a LangGraph graph."""
    return _is_graph_class(type(agent))  # type: ignore[arg-type]  # mypy: the hash of `type[object]` is unbound


def to_agent_input(value: Any, agent: Any) -> Any:
    """Return an agent's input for a call's input that `check_input` has accepted.

    Text, messages and prompts become `{"messages": [...]}` for a graph with a `messages` channel; a
    dict, a `Command` and None stay unchanged, and so does everything for an agent that is not a
    graph.
    """
    if type(value) is dict or not is_graph(agent):
        return value
    if not isinstance(value, (str, BaseMessage, PromptValue, list, tuple)):
        return value
    if isinstance(value, str):
        return {"messages": [HumanMessage(value, id=str(uuid.uuid4()))]}
    if isinstance(value, BaseMessage):
        return {"messages": [value]}
    if isinstance(value, PromptValue):
        return {"messages": value.to_messages()}
    return {"messages": convert_to_messages([value] if is_message_pair(value) else value)}


def is_message_pair(value: Any) -> bool:
    """Tell whether a tuple is one message in short, `("user", "hi")`."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(element, str) for element in value)
    )


def messages_in(value: Any) -> list[BaseMessage]:
    """Return the messages in an agent's output: a state's, one message, or an empty list."""
    if type(value) is dict:
        messages: object = value.get("messages")
    elif isinstance(value, BaseMessage):
        return [value]
    else:
        messages = (
            value.get("messages")
            if isinstance(value, Mapping)
            else getattr(value, "messages", None)
        )
    if not isinstance(messages, list):
        return []
    return [
        message
        for message in cast("list[BaseMessage]", messages)
        if _is_message_class(type(message))
    ]


def new_messages(messages: list[BaseMessage], previous_ids: set[str | None]) -> list[BaseMessage]:
    """Return the messages after the last known one, or after the last human one."""
    for index in reversed(range(len(messages))):
        if messages[index].id in previous_ids:
            return messages[index + 1 :]
    for index in reversed(range(len(messages))):
        if messages[index].type == "human":
            return messages[index + 1 :]
    return messages


def message_to_chunks(message: BaseMessage, *, with_text: bool = True) -> list[Chunk]:
    """Return the chunks of a complete message, without text that was streamed."""
    chunks: list[Chunk] = []
    message_id = message.id or ""
    if message.type == "ai":
        if with_text:
            if reasoning := reasoning_of(message):
                chunks.append(ReasoningChunk(message_id, reasoning))
            if text := str(message.text):
                chunks.append(TextChunk(message_id, text))
        calls = getattr(message, "tool_calls", ())
        chunks += [ToolCallChunk(c["id"] or "", c["name"], c["args"]) for c in calls]
    elif message.type == "tool":
        chunks.append(
            ToolResultChunk(
                getattr(message, "tool_call_id", ""), message.name or "", message.content
            )
        )
    return chunks


def is_plain_text(message: BaseMessage) -> bool:
    """Return whether the content is text alone, which saves parsing its blocks for each token."""
    return type(message.content) is str and "reasoning_content" not in message.additional_kwargs


def reasoning_of(message: BaseMessage) -> str:
    """Return the reasoning text of a message or chunk; empty for plain text content."""
    if is_plain_text(message):
        return ""
    return "".join(
        str(b.get("reasoning", "")) for b in message.content_blocks if b["type"] == "reasoning"
    )


def answer_text(value: Any, messages: list[BaseMessage], structured: Any) -> str:
    """Return `AgentResult.output`: structured data as JSON, the last message's text, or text."""
    if structured is not None:
        return _to_text(structured)
    if messages:
        return str(messages[-1].text) if messages[-1].type in ("ai", "tool") else ""
    return _to_text(value)


def _to_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.dumps(value, ensure_ascii=False, default=str)
