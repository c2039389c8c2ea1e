"""The shapes of LangGraph that a Runnable caller expects."""

from __future__ import annotations

from typing import Any, NoReturn

from langchain_core.messages import AIMessageChunk

from agent_runtime.chunks import Chunk, PartChunk, TextChunk
from agent_runtime.errors import AgentFailed, CallError


def stream_part(chunk: Chunk, mode: str | list[str] | None, *, subgraphs: bool) -> Any:
    """The LangGraph v2 part that a chunk stands for, or None for one that this caller did not ask for."""
    if isinstance(chunk, PartChunk):
        return {"type": chunk.mode, "ns": chunk.ns, "data": chunk.data}
    if not isinstance(chunk, TextChunk):
        return None
    if mode is None:
        return chunk.text if isinstance(chunk.part, str | None) else _with_text(chunk.part, chunk.text)
    if mode != "messages" and "messages" not in mode:
        return None
    if chunk.part is None:  # a layer's own answer, or text it rewrote from scratch
        return {"type": "messages", "ns": (), "data": (AIMessageChunk(content=chunk.text, id=chunk.message_id), {})}
    ns, message, metadata = chunk.part
    if ns and not subgraphs:
        return None
    return {"type": "messages", "ns": ns, "data": (_with_text(message, chunk.text), metadata)}


def _with_text(message: Any, text: str) -> Any:
    # The original object when no layer changed its text; else a copy that says what the layers say.
    return message if str(message.text) == text else message.model_copy(update={"content": text})


def shaped(part: Any, mode: str | list[str], version: str, *, subgraphs: bool) -> Any:
    """A v2 part as LangGraph gives it for this mode, version and `subgraphs`."""
    if version == "v2":
        if part["type"] == "values" and isinstance(part["data"], dict):
            data = dict(part["data"])
            return {**part, "data": data, "interrupts": data.pop("__interrupt__", ())}
        return part
    item: tuple[Any, ...] = (part["data"],) if isinstance(mode, str) else (part["type"], part["data"])
    if subgraphs:
        item = (part["ns"], *item)
    return item if len(item) > 1 else item[0]


def raise_original(error: CallError) -> NoReturn:
    """Raise what a LangChain caller expects, with its own cause."""
    original = _original_error(error)
    raise original from original.__cause__


def _original_error(error: CallError) -> BaseException:
    """What a LangChain caller expects: the provider's or tool's own exception, with ours as its note."""
    cause = error.__cause__
    if not isinstance(error, AgentFailed) or cause is None:
        return error
    spent = error.usage.total_tokens
    cause.add_note(
        f"agent_runtime: run {error.run_id} failed ({error.code}) after {spent} tokens, cost {error.cost_usd} USD"
    )
    return cause
