"""The shapes of LangGraph that a Runnable caller expects."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from langchain_core.messages import AIMessageChunk
from langgraph.pregel.main import _coerce_checkpoint_values

from agent_runtime.chunks import Chunk, PartChunk, TextChunk
from agent_runtime.errors import AgentFailed, CallError


def chunk_to_part(chunk: Chunk, mode: str | list[str] | None, *, subgraphs: bool) -> Any:
    """Return a chunk as a LangGraph v2 part, or None when its mode was not requested."""
    if isinstance(chunk, PartChunk):
        return {"type": chunk.mode, "ns": chunk.ns, "data": chunk.data}
    if not isinstance(chunk, TextChunk):
        return None
    if mode is None:
        return (
            chunk.text if isinstance(chunk.part, str | None) else _with_text(chunk.part, chunk.text)
        )
    if mode != "messages" and "messages" not in mode:
        return None
    if chunk.part is None:  # a layer's own answer, or text it rewrote from scratch
        return {
            "type": "messages",
            "ns": (),
            "data": (AIMessageChunk(content=chunk.text, id=chunk.message_id), {}),
        }
    ns, message, metadata = chunk.part
    if ns and not subgraphs:
        return None
    return {"type": "messages", "ns": ns, "data": (_with_text(message, chunk.text), metadata)}


def _with_text(message: Any, text: str) -> Any:
    # The original object unless a layer changed its text; then a copy with that text.
    return message if str(message.text) == text else message.model_copy(update={"content": text})


def shape_part(
    part: Any, mode: str | list[str], version: str, *, subgraphs: bool, agent: Any = None
) -> Any:
    """Return a v2 part as the graph `agent` gives it for this mode, version and `subgraphs`."""
    if version == "v2":
        return _coerce_part(part, agent)
    item: tuple[Any, ...] = (
        (part["data"],) if isinstance(mode, str) else (part["type"], part["data"])
    )
    if subgraphs:
        item = (part["ns"], *item)
    return item if len(item) > 1 else item[0]


def _coerce_part(part: Any, agent: Any) -> Any:
    """Return a part with its interrupts beside its state, in the schema's class."""
    kind = part["type"]
    data = part["data"]
    if kind == "values" and isinstance(data, dict):
        state = dict(data)
        interrupts = state.pop("__interrupt__", ())
        mapper = getattr(agent, "_output_mapper", None)
        return {
            **part,
            "data": state if mapper is None else mapper(state),
            "interrupts": interrupts,
        }
    if (
        kind in ("checkpoints", "debug")
        and (mapper := getattr(agent, "_state_mapper", None)) is not None
    ):
        data = copy.deepcopy(data)
        _coerce_checkpoint_values(data, mapper)
        return {**part, "data": data}
    return part


def raise_original(error: CallError) -> NoReturn:
    """Raise the error that a LangChain caller expects, with its own cause."""
    original = _original_error(error)
    raise original from original.__cause__


def _original_error(error: CallError) -> BaseException:
    """Return the provider's or tool's own exception, with ours as its note."""
    cause = error.__cause__
    if not isinstance(error, AgentFailed) or cause is None:
        return error
    total_tokens = error.usage.total_tokens
    cause.add_note(
        f"agent_runtime: run {error.run_id} failed ({error.code}) after {total_tokens} tokens, "
        "cost "
        f"{error.cost_usd} USD"
    )
    return cause
