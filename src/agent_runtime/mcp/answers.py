"""Convert an MCP server's answers to content for a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.tools import ToolException

if TYPE_CHECKING:
    from mcp import McpError
    from mcp.types import CallToolResult

EMPTY_ANSWER = "The tool has run and answered nothing."


def content_of(result: CallToolResult) -> Any:
    """Return the content and the artifact of a server's answer; raises ToolException for an error.

    The adapter leaves structured content in the artifact, which models do not read: it becomes text
    when the answer has no other content, and when an error's text lacks it (a code, a retry time).
    """
    from langchain_mcp_adapters.tools import _convert_call_tool_result

    content = [_model_readable(block) for block in result.content]
    structured = result.structuredContent
    if structured is not None and (
        not content or (result.isError and not _contains_structured(content, structured))
    ):
        content.append(_text_block(json.dumps(structured, ensure_ascii=False)))
    if not content:
        content.append(
            _text_block("The tool failed and said nothing." if result.isError else EMPTY_ANSWER)
        )
    return _convert_call_tool_result(result.model_copy(update={"content": content}))


def protocol_error(error: McpError) -> ToolException:
    """Return the error of a call that the server refused, with its code.

    A model may mend its arguments.
    """
    from langchain_mcp_adapters.tools import _MCPToolExecutionError

    refusal = error.error
    text = f"Error {refusal.code}: {refusal.message}"
    if refusal.data is not None:
        text += f" {json.dumps(refusal.data, ensure_ascii=False, default=str)}"
    return _MCPToolExecutionError([{"type": "text", "text": text}])


def _model_readable(block: Any) -> Any:
    from mcp.types import AudioContent

    if not isinstance(block, AudioContent):
        return block
    return _text_block(
        f"[audio of type {block.mimeType}, which cannot be passed on]"
    )  # the adapter would raise


def _text_block(text: str) -> Any:
    from mcp.types import TextContent

    return TextContent(type="text", text=text)


def _contains_structured(content: list[Any], structured: dict[str, Any]) -> bool:
    """Tell whether a text has the structured content, as the protocol asks servers to write it."""
    for block in content:
        try:
            if json.loads(getattr(block, "text", "")) == structured:
                return True
        except ValueError:
            continue
    return False
