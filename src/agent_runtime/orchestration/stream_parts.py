"""LangGraph's stream parts, turned into chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage

from agent_runtime.chunks import (
    CustomChunk,
    Emit,
    InterruptChunk,
    PartChunk,
    ReasoningChunk,
    TextChunk,
)
from agent_runtime.errors import CallTimeout
from agent_runtime.orchestration.messages import (
    is_plain_text,
    message_to_chunks,
    messages_in,
    new_messages,
    reasoning_of,
)
from agent_runtime.types import Progress

_NO_OPEN_CALL: tuple[Any, str | None] = (object(), None)


class PartReader:
    """Convert the parts of one streamed call to chunks, each text exactly once.

    Text that arrives token by token is emitted at once; the text of other messages (the model does
    not stream, or tokens are held back) is emitted whole when the message is in the state. `state`
    is the last root state, `interrupts` has the run's pending questions.

    Args:
        emit: receives the chunks; each is awaited before the next part is read.
        progress: updated when part of a message has been emitted.
        requested_modes: stream modes that a Runnable caller requested; their parts are emitted
            unchanged, too.
        subgraphs: whether that caller requested the parts of nested graphs.
        is_buffered: emit no message before `finish`, because a middleware may still change it.
        thread: the session's name in the saver, and its own id.
    """

    __slots__ = (
        "_calls_by_metadata",
        "_emit",
        "_ids_by_namespace",
        "_is_buffered",
        "_open_call",
        "_progress",
        "_requested_modes",
        "_streamed_ids",
        "_subgraphs",
        "_thread",
        "_wants_messages",
        "interrupts",
        "state",
    )

    def __init__(
        self,
        emit: Emit,
        progress: Progress,
        requested_modes: Collection[str] = (),
        *,
        subgraphs: bool = False,
        is_buffered: bool = False,
        thread: tuple[str, str] | None = None,
    ) -> None:
        self._emit = emit
        self._progress = progress
        self._requested_modes = frozenset(requested_modes)
        self._subgraphs = subgraphs
        self._thread = thread
        self._is_buffered = is_buffered
        self._wants_messages = "messages" in self._requested_modes
        self.state: Any = None
        self.interrupts: tuple[Any, ...] = ()
        self._ids_by_namespace: dict[tuple[str, ...], set[str | None]] = {}
        self._streamed_ids: set[str] = set()
        # LangGraph gives every part of one model call the same metadata object: whether it belongs
        # to the answer, and under which id, is decided once. The first id counts: Anthropic sends
        # the message's id once and LangChain fills the other chunks with an id of its own. None:
        # not the answer's.
        self._calls_by_metadata: dict[int, tuple[Any, str | None]] = {}
        self._open_call: tuple[Any, str | None] = _NO_OPEN_CALL  # the call of the last text

    def text_chunk(self, ns: tuple[str, ...], data: Any) -> TextChunk | None:
        """Return the chunk of a `messages` part with the answer's plain text; None for others.

        `read` handles the others. Nearly every token passes here, so it is a plain function with
        cached decisions.
        """
        message, metadata = data
        if not isinstance(message, AIMessageChunk):
            return None
        message_id = self._open_call[1]
        if metadata is not self._open_call[0]:
            message_id = (
                self._calls_by_metadata.get(id(metadata))
                or self._register_call(ns, message, metadata)
            )[1]
        content = message.content
        if message_id is None or type(content) is not str or not content:
            return None
        if message.additional_kwargs and not is_plain_text(message):
            return None
        if metadata is not self._open_call[0]:
            self._open_call = (metadata, message_id)
            self._progress.message_open = True
            self._streamed_ids.add(message_id)
        return TextChunk(
            message_id, content, (ns, message, metadata) if self._wants_messages else None
        )

    async def read(self, ns: tuple[str, ...], mode: str, data: Any) -> None:
        """Emit the chunks of any other part; waits for the reader."""
        if mode == "values":
            await self._read_values(ns, data)
        elif mode == "custom":  # includes a sub-agent's tools
            await self._emit(CustomChunk(data))
        elif mode == "messages" and await self._emit_message(ns, data):
            return
        if mode in self._requested_modes and (self._subgraphs or not ns):
            await self._emit(
                PartChunk(mode, ns, self._to_public(data) if mode in _MODES_WITH_CONFIGS else data)
            )

    def _to_public(self, data: Any) -> Any:
        """Return a part whose configs have the session's own id and no keys of the runtime."""
        if isinstance(data, list | tuple):
            return (
                type(data)(self._to_public(element) for element in data)
                if type(data) in (list, tuple)
                else data
            )
        if not isinstance(data, dict):
            return data
        public = {}
        for name, value in data.items():
            if name in _CONFIG_KEYS:
                public[name] = self._to_public(value)
            elif name == "thread_id" and self._thread is not None and value == self._thread[0]:
                public[name] = self._thread[1]
            elif not (isinstance(name, str) and name.startswith(RUNTIME_KEY_PREFIX)):
                public[name] = value
        return public

    async def _emit_message(self, ns: tuple[str, ...], data: Any) -> bool:
        """Emit the text of a whole message, or the reasoning and text of content blocks.

        False without text.
        """
        message, metadata = data
        if isinstance(message, AIMessageChunk):
            message_id = self._calls_by_metadata[id(metadata)][1]
        else:  # a node's return value: several under one metadata object
            message_id = (message.id or "") if _is_answer(ns, message, metadata) else None
        if message_id is None:
            return False
        if reasoning := reasoning_of(message):
            await self._emit(ReasoningChunk(message_id, reasoning))
        text = str(message.text)
        if text:
            self._progress.message_open = True
            self._streamed_ids.add(message_id)
            part = (ns, message, metadata) if self._wants_messages else None
            await self._emit(TextChunk(message_id, text, part))
        return bool(text)

    def _register_call(
        self, ns: tuple[str, ...], message: Any, metadata: Any
    ) -> tuple[Any, str | None]:
        is_answer = _is_answer(ns, message, metadata)
        call = self._calls_by_metadata[id(metadata)] = (
            metadata,
            (message.id or "") if is_answer else None,
        )
        return call

    async def _read_values(self, ns: tuple[str, ...], data: Any) -> None:
        if not ns:
            self.state = data
            self._progress.message_open = False
            self._open_call = _NO_OPEN_CALL
            if isinstance(data, dict) and (interrupts := data.get("__interrupt__")):
                await self._emit_interrupts(interrupts)
        if _is_in_tool(ns):
            return
        messages = messages_in(data)
        processed_ids = self._ids_by_namespace.get(ns)
        if processed_ids is None:  # the first state is the run's initial one
            self._ids_by_namespace[ns] = {m.id for m in messages}
            return
        if not self._is_buffered:
            await self._emit_new_messages(messages, processed_ids)

    async def _emit_interrupts(self, interrupts: Iterable[Any]) -> None:
        # Nodes of one step ask one after another, and each state holds the latest question alone.
        reported_ids = {interrupt.id for interrupt in self.interrupts}
        new_interrupts = tuple(
            interrupt for interrupt in interrupts if interrupt.id not in reported_ids
        )
        if new_interrupts:
            self.interrupts += new_interrupts
            await self._emit(InterruptChunk(new_interrupts))

    async def finish(self) -> None:
        """Emit the messages that were held back, as they are in the last state."""
        if self._is_buffered:
            await self._emit_new_messages(
                messages_in(self.state), self._ids_by_namespace.get((), set())
            )

    async def _emit_new_messages(
        self, messages: list[BaseMessage], processed_ids: set[str | None]
    ) -> None:
        for message in new_messages(messages, processed_ids):
            processed_ids.add(message.id)
            if all(
                message.id not in other
                for other in self._ids_by_namespace.values()
                if other is not processed_ids
            ):
                for chunk in message_to_chunks(
                    message, with_text=message.id not in self._streamed_ids
                ):
                    await self._emit(chunk)


RUNTIME_KEY_PREFIX = "__agent_runtime"
"""Prefix of the runtime's own keys of `configurable`."""
_MODES_WITH_CONFIGS = frozenset({"debug", "checkpoints", "tasks"})
"""Modes whose parts contain LangGraph's configs."""
_CONFIG_KEYS = frozenset(
    {"payload", "config", "parent_config", "configurable", "metadata", "tasks", "state"}
)
"""Fields with configs in such a part; a state's values are left alone."""
_NON_ANSWER_NODES = ("tools", ".before_agent", ".before_model", ".after_model", ".after_agent")
"""Nodes of a `create_agent` graph in which a hidden model may speak.

Its tools and LangChain's middleware.
"""


def _is_in_tool(ns: tuple[str, ...]) -> bool:
    return any(segment.startswith("tools:") for segment in ns)


def _is_answer(ns: tuple[str, ...], message: Any, metadata: Any) -> bool:
    # A model inside a tool or inside a LangChain middleware (summarisation) streams here too: not
    # the answer.
    return (
        isinstance(message, BaseMessage)
        and message.type in ("ai", "AIMessageChunk")
        and not str(metadata.get("langgraph_node")).endswith(_NON_ANSWER_NODES)
        and not metadata.get("lc_source")
        and not (ns and _is_in_tool(ns))
    )


async def with_idle_timeout(parts: AsyncIterator[Any], timeout_s: float) -> AsyncIterator[Any]:
    """Yield `parts`; raises CallTimeout when one takes longer than `timeout_s`."""
    while True:
        try:
            async with asyncio.timeout(timeout_s) as scope:
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise CallTimeout("idle", timeout_s) from error
        yield part
