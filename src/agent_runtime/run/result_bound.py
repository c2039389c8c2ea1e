"""The size of a tool's result: what is longer is cut, and the model reads that it was."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from agent_runtime.run.state import current_run

LOG = logging.getLogger("agent_runtime.tools")
DEFAULT_TEXT_BYTES = 1024 * 1024
"""Of a result's texts: some 250,000 tokens, more than a context window takes."""
DEFAULT_MEDIA_BYTES = 16 * 1024 * 1024
"""Of what else a result has.

Images and files, and its artifact, which no model reads but a session stores.
"""
PART_BYTES = 64
"""What a part counts for beside its text: a hundred thousand empty ones are 8 MB of JSON."""
MAX_MEASURED = 100_000
"""Parts of an artifact that are looked at; one of more is as large as one beyond the bound."""
TEXTS = frozenset({"text", "text-plain", "plaintext"})


def bound_result(tool: BaseTool, result: Any) -> Any:
    """Return what a tool has returned, cut to the run's `tool_result_bytes` and `tool_media_bytes`.

    The rest of a text is left out, with a mark in its place; an image or file whole. Messages,
    lists of blocks, commands with messages and artifacts are bounded likewise; other updates of a
    command are the graph's own. Outside a run nothing is cut.
    """
    run = current_run.get()
    if run is None:
        return result
    limits = run.gate.limits
    text_bytes = limits.tool_result_bytes or DEFAULT_TEXT_BYTES
    content = result
    if isinstance(result, ToolMessage) and not (result.artifact or result.additional_kwargs):
        content = result.content
    if isinstance(content, str) and len(content) * 4 <= text_bytes:
        return result
    budget = _Budget(text_bytes, limits.tool_media_bytes or DEFAULT_MEDIA_BYTES)
    bounded = budget.of(result)
    if budget.left_out:
        LOG.warning(
            "the result of the tool %s was cut: %s bytes were left out",
            tool.name,
            f"{budget.left_out:,}",
        )
        return bounded
    return result


class _Budget:
    """What is left of the bounds of one result."""

    def __init__(self, text_bytes: int, media_bytes: int) -> None:
        self.text = text_bytes
        self.media = media_bytes
        self.left_out = 0
        self._is_marked = False

    def of(self, content: Any) -> Any:
        if isinstance(content, str):
            return self._text(content)
        if isinstance(content, ToolMessage):
            inner, artifact = self.with_artifact(content.content, content.artifact)
            own = {
                name: self._small(getattr(content, name))
                for name in ("additional_kwargs", "response_metadata")
            }
            return content.model_copy(update={"content": inner, "artifact": artifact, **own})
        if isinstance(content, BaseMessage):
            return content.model_copy(update={"content": self.of(content.content)})
        if isinstance(content, Command):
            return self._command(content)
        if (
            isinstance(content, list | tuple)
            and content
            and all(_is_part(each) for each in content)
        ):
            return self._parts(content)
        if content is None or isinstance(content, bool | int | float):
            return content
        text = _written(content)
        bounded = self._text(text)
        return content if bounded is text else bounded

    def with_artifact(self, content: Any, artifact: Any) -> tuple[Any, Any]:
        bounded = self.of(content)
        if artifact is None:
            return bounded, None
        size = size_of(artifact, self.media)
        if size <= self.media:
            self.media -= size
            return bounded, artifact
        self.left_out += size
        mark = "[its artifact was left out: it is too large to be stored]"
        if isinstance(bounded, list):
            return [*bounded, {"type": "text", "text": mark}], None
        return f"{bounded if isinstance(bounded, str) else _written(bounded)}\n{mark}", None

    def _small(self, value: dict[str, Any]) -> dict[str, Any]:
        size = size_of(value, self.media) if value else 0
        if size <= self.media:
            self.media -= size
            return value
        self.left_out += size
        return {}

    def _command(self, command: Command[Any]) -> Command[Any]:
        messages = command.update.get("messages") if isinstance(command.update, dict) else None
        if not isinstance(messages, list):
            return command
        bounded = [self._message(each) for each in messages]
        return replace(command, update={**command.update, "messages": bounded})  # type: ignore[dict-item]

    def _message(self, message: Any) -> Any:
        """Return a message in any form that LangGraph takes: an object, a map, a pair."""
        if isinstance(message, BaseMessage):
            return self.of(message)
        if isinstance(message, Mapping) and "content" in message:
            return {**message, "content": self.of(message["content"])}
        if isinstance(message, list | tuple) and len(message) == 2:
            return (message[0], self.of(message[1]))
        return message

    def _parts(self, parts: Any) -> list[Any]:
        """Return the parts that have room.

        What comes behind the last text that has is left out without more marks.
        """
        bounded = []
        for part in parts:
            is_text = isinstance(part, str) or (
                isinstance(part, Mapping) and part.get("type") in TEXTS
            )
            if is_text and self.text <= PART_BYTES:
                self.left_out += PART_BYTES
                if not self._is_marked:
                    self._is_marked = True
                    bounded.append(
                        {
                            "type": "text",
                            "text": "[cut here: the result has more parts; ask for less]",
                        }
                    )
                continue
            self.text -= PART_BYTES if is_text else 0
            bounded.append(self._part(part))
        return bounded

    def _part(self, part: Any) -> Any:
        if not isinstance(part, Mapping):
            return self.of(part)
        if part.get("type") in TEXTS and isinstance(part.get("text"), str):
            return self._with_extras({**part, "text": self._text(part["text"])})
        size = size_of(part, self.media) + PART_BYTES
        if size <= self.media:
            self.media -= size
            return part
        self.left_out += size
        return {"type": "text", "text": f"[left out: the {part.get('type')} is too large]"}

    def _with_extras(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return a text block; what it has beside its text counts as media does."""
        extras = {name: each for name, each in part.items() if name not in ("type", "text")}
        if not extras:
            return part
        size = size_of(extras, self.media)
        if size <= self.media:
            self.media -= size
            return part
        self.left_out += size
        return {"type": part["type"], "text": part["text"]}

    def _text(self, text: str) -> str:
        if len(text) * 4 <= self.text:
            self.text -= len(text)
            return text
        data = text.encode(errors="replace")
        if len(data) <= self.text:
            self.text -= len(data)
            return text
        mark = f"\n[cut here: the result has {len(data):,} bytes; ask for less]"
        end = max(0, self.text - len(mark))
        self.left_out += len(data) - end
        self.text = 0
        self._is_marked = True
        return data[:end].decode(errors="ignore") + mark


def _is_part(value: Any) -> bool:
    return isinstance(value, str | BaseMessage | Command) or (
        isinstance(value, Mapping) and "type" in value
    )


def _written(content: Any) -> str:
    """Return the text that LangChain would make of a value."""
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(content)


def size_of(value: Any, stop: int) -> int:
    """Return about how many bytes the texts and binary parts of a value have.

    It ends beyond `stop`.
    """
    size = 0
    parts = [value]
    for _ in range(MAX_MEASURED):
        if not parts:
            return size
        part = parts.pop()
        if isinstance(part, str):
            size += len(part) if part.isascii() else len(part.encode(errors="replace"))
        elif isinstance(part, bytes | bytearray | memoryview):
            size += memoryview(part).nbytes
        elif isinstance(part, Mapping):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            parts += part
        elif hasattr(part, "__dict__"):
            parts += vars(part).values()
        else:
            size += sys.getsizeof(part, stop + 1)
        if size > stop:
            return size
    return stop + 1
