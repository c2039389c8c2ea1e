"""Truncate long results of tools, with a mark for the model."""

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
"""Bytes of a result's images and files, and its artifact, which a session stores."""
PART_OVERHEAD_BYTES = 64
"""Bytes per part beside its text: a hundred thousand empty ones are 8 MB of JSON."""
MAX_MEASURED_PARTS = 100_000
"""Parts of an artifact that are looked at; one of more is as large as one beyond the bound."""
TEXT_BLOCK_TYPES = frozenset({"text", "text-plain", "plaintext"})


def truncate_result(tool: BaseTool, result: Any) -> Any:
    """Return a tool's result, truncated to the run's `tool_result_bytes` and `tool_media_bytes`.

    The rest of a text is replaced by a mark; an image or file is omitted whole. Messages, lists of
    blocks, commands with messages and artifacts are bounded likewise; other updates of a command
    are the graph's own. Outside a run nothing is truncated.
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
    budget = _SizeBudget(text_bytes, limits.tool_media_bytes or DEFAULT_MEDIA_BYTES)
    truncated = budget.truncate(result)
    if budget.dropped_bytes:
        LOG.warning(
            "the result of the tool %s was cut: %s bytes were left out",
            tool.name,
            f"{budget.dropped_bytes:,}",
        )
        return truncated
    return result


class _SizeBudget:
    """Track the remaining bytes of one result."""

    def __init__(self, text_bytes: int, media_bytes: int) -> None:
        self.remaining_text_bytes = text_bytes
        self.remaining_media_bytes = media_bytes
        self.dropped_bytes = 0
        self._has_notice = False

    def truncate(self, content: Any) -> Any:
        if isinstance(content, str):
            return self._truncate_text(content)
        if isinstance(content, ToolMessage):
            inner, artifact = self.truncate_with_artifact(content.content, content.artifact)
            bounded_fields = {
                name: self._drop_if_too_large(getattr(content, name))
                for name in ("additional_kwargs", "response_metadata")
            }
            return content.model_copy(
                update={"content": inner, "artifact": artifact, **bounded_fields}
            )
        if isinstance(content, BaseMessage):
            return content.model_copy(update={"content": self.truncate(content.content)})
        if isinstance(content, Command):
            return self._truncate_command(content)
        if (
            isinstance(content, list | tuple)
            and content
            and all(_is_part(part) for part in content)
        ):
            return self._truncate_parts(content)
        if content is None or isinstance(content, bool | int | float):
            return content
        text = _to_text(content)
        bounded = self._truncate_text(text)
        return content if bounded is text else bounded

    def truncate_with_artifact(self, content: Any, artifact: Any) -> tuple[Any, Any]:
        bounded = self.truncate(content)
        if artifact is None:
            return bounded, None
        size = approximate_size(artifact, self.remaining_media_bytes)
        if size <= self.remaining_media_bytes:
            self.remaining_media_bytes -= size
            return bounded, artifact
        self.dropped_bytes += size
        notice = "[its artifact was left out: it is too large to be stored]"
        if isinstance(bounded, list):
            return [*bounded, {"type": "text", "text": notice}], None
        return f"{bounded if isinstance(bounded, str) else _to_text(bounded)}\n{notice}", None

    def _drop_if_too_large(self, value: dict[str, Any]) -> dict[str, Any]:
        size = approximate_size(value, self.remaining_media_bytes) if value else 0
        if size <= self.remaining_media_bytes:
            self.remaining_media_bytes -= size
            return value
        self.dropped_bytes += size
        return {}

    def _truncate_command(self, command: Command[Any]) -> Command[Any]:
        messages = command.update.get("messages") if isinstance(command.update, dict) else None
        if not isinstance(messages, list):
            return command
        bounded = [self._truncate_message(message) for message in messages]
        return replace(command, update={**command.update, "messages": bounded})  # type: ignore[dict-item]

    def _truncate_message(self, message: Any) -> Any:
        """Return a message in any form that LangGraph takes: an object, a map, a pair."""
        if isinstance(message, BaseMessage):
            return self.truncate(message)
        if isinstance(message, Mapping) and "content" in message:
            return {**message, "content": self.truncate(message["content"])}
        if isinstance(message, list | tuple) and len(message) == 2:
            return (message[0], self.truncate(message[1]))
        return message

    def _truncate_parts(self, parts: Any) -> list[Any]:
        """Return the parts within the bounds.

        After the last text that fits there are no more marks.
        """
        bounded = []
        for part in parts:
            is_text = isinstance(part, str) or (
                isinstance(part, Mapping) and part.get("type") in TEXT_BLOCK_TYPES
            )
            if is_text and self.remaining_text_bytes <= PART_OVERHEAD_BYTES:
                self.dropped_bytes += PART_OVERHEAD_BYTES
                if not self._has_notice:
                    self._has_notice = True
                    bounded.append(
                        {
                            "type": "text",
                            "text": "[cut here: the result has more parts; ask for less]",
                        }
                    )
                continue
            self.remaining_text_bytes -= PART_OVERHEAD_BYTES if is_text else 0
            bounded.append(self._truncate_part(part))
        return bounded

    def _truncate_part(self, part: Any) -> Any:
        if not isinstance(part, Mapping):
            return self.truncate(part)
        if part.get("type") in TEXT_BLOCK_TYPES and isinstance(part.get("text"), str):
            return self._drop_large_extras({**part, "text": self._truncate_text(part["text"])})
        size = approximate_size(part, self.remaining_media_bytes) + PART_OVERHEAD_BYTES
        if size <= self.remaining_media_bytes:
            self.remaining_media_bytes -= size
            return part
        self.dropped_bytes += size
        return {"type": "text", "text": f"[left out: the {part.get('type')} is too large]"}

    def _drop_large_extras(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return a text block; its other fields count as media."""
        extras = {
            name: field_value for name, field_value in part.items() if name not in ("type", "text")
        }
        if not extras:
            return part
        size = approximate_size(extras, self.remaining_media_bytes)
        if size <= self.remaining_media_bytes:
            self.remaining_media_bytes -= size
            return part
        self.dropped_bytes += size
        return {"type": part["type"], "text": part["text"]}

    def _truncate_text(self, text: str) -> str:
        if len(text) * 4 <= self.remaining_text_bytes:
            self.remaining_text_bytes -= len(text)
            return text
        data = text.encode(errors="replace")
        if len(data) <= self.remaining_text_bytes:
            self.remaining_text_bytes -= len(data)
            return text
        notice = f"\n[cut here: the result has {len(data):,} bytes; ask for less]"
        end = max(0, self.remaining_text_bytes - len(notice))
        self.dropped_bytes += len(data) - end
        self.remaining_text_bytes = 0
        self._has_notice = True
        return data[:end].decode(errors="ignore") + notice


def _is_part(value: Any) -> bool:
    return isinstance(value, str | BaseMessage | Command) or (
        isinstance(value, Mapping) and "type" in value
    )


def _to_text(content: Any) -> str:
    """Return the text that LangChain would make of a value."""
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(content)


def approximate_size(value: Any, max_bytes: int) -> int:
    """Return about how many bytes the texts and binary parts of a value have.

    It ends beyond `max_bytes`.
    """
    size = 0
    parts = [value]
    for _ in range(MAX_MEASURED_PARTS):
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
            size += sys.getsizeof(part, max_bytes + 1)
        if size > max_bytes:
            return size
    return max_bytes + 1
