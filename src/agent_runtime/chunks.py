"""Define the chunks that a call emits while it runs, and the callable that receives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast


@dataclass(slots=True)
class TextChunk:
    """A piece of the text of message `message_id`; joined they are its whole text."""

    message_id: str
    text: str
    part: Any = field(default=None, repr=False, compare=False)
    """The part for a Runnable caller.

    LangGraph's namespace, message and metadata, or a chain's piece.
    """


@dataclass(slots=True)
class ReasoningChunk:
    """A piece of the reasoning of message `message_id`; never part of its text."""

    message_id: str
    text: str


@dataclass(slots=True)
class ToolCallChunk:
    """Describe a complete tool call of the model: `args` are parsed, not a JSON fragment."""

    id: str
    name: str
    args: dict[str, Any]


@dataclass(slots=True)
class ToolResultChunk:
    """Describe a tool's result for call `id`: the text or the content blocks of its message."""

    id: str
    name: str
    content: Any


@dataclass(slots=True)
class CustomChunk:
    """Carry a value that a node or tool wrote to LangGraph's stream writer."""

    data: Any


@dataclass(slots=True)
class InterruptChunk:
    """The run waits for a person; `interrupts` are LangGraph `Interrupt` objects."""

    interrupts: tuple[Any, ...]


@dataclass(slots=True)
class PartChunk:
    """Carry a part of a LangGraph stream mode for a Runnable caller: mode, namespace, data."""

    mode: str
    ns: tuple[str, ...]
    data: Any


Chunk: TypeAlias = (
    TextChunk
    | ReasoningChunk
    | ToolCallChunk
    | ToolResultChunk
    | CustomChunk
    | InterruptChunk
    | PartChunk
)
Emit: TypeAlias = Callable[[Chunk], Awaitable[None]]
"""Emit one chunk outwards; returns when there is room for the next one."""


class _HasCapacity:
    """An awaitable that is done already."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return cast("Generator[None, None, None]", iter(()))


HAS_CAPACITY = _HasCapacity()
"""Returned by an `Emit` with room for the next chunk, so that the caller need not await it."""


async def discard(chunk: Chunk) -> None:
    """Discard a chunk: the `emit` of a unary call."""
