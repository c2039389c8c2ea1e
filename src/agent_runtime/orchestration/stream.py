"""The edge of a streamed call: one task, one bounded buffer, one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from agent_runtime.chunks import HAS_CAPACITY, Chunk, TextChunk
from agent_runtime.errors import CallCancelled, StreamMisuse
from agent_runtime.types import AgentContext, AgentResult

BUFFER_SIZE = 16
"""Chunks that may wait for the reader.

16 costs 0.7 us a chunk where 1 costs 12.5, and holds back soon enough.
"""


class AgentStream:
    """Read one streamed call.

    `async with executor.execute_stream(...) as stream: async for text in stream: ...` iterates
    text; `stream.chunks()` iterates typed chunks instead. After the last one `stream.result` has
    the result. The call starts on entering; leaving early cancels it and waits for every layer's
    `finally`. The call's error is raised to the reader, once, after the chunks before it; an error
    of the reader's own body takes precedence. A call that the runtime itself cancels raises
    CallCancelled.
    """

    def __init__(
        self,
        call: Callable[[AgentContext], Coroutine[Any, Any, AgentResult]],
        context: AgentContext,
        *,
        buffer: int = BUFFER_SIZE,
    ) -> None:
        self._call = call
        self._buffer = buffer
        self.context = context.with_emit(self._put)
        self.context.streaming = True
        self._pending_chunks: deque[Chunk] = deque()
        self._capacity_event: asyncio.Event | None = (
            None  # awaited by a producer with a full buffer
        )
        self._reader_future: asyncio.Future[None] | None = None
        self._task: asyncio.Task[AgentResult] | None = None
        self._failure_raised = False  # the failure has been raised to the reader
        self._message_id = ""
        self._pieces = [""]

    @property
    def run_id(self) -> str:
        """Return the call's run id, assigned before its start."""
        return self.context.run_id

    @property
    def text(self) -> str:
        """Return the answer's text; during the call, the received text of the current message."""
        if self._task is not None and self._task.done() and not self._failed():
            return self.result.output
        return "".join(self._pieces)

    @property
    def result(self) -> AgentResult:
        """Return the call's result. Raises StreamMisuse before the end, and the call's error."""
        if self._task is None or not self._task.done():
            raise StreamMisuse("the result is there when the stream has been read to its end")
        if self._task.cancelled():
            raise self._cancelled_error() from _cause_of(self._task)
        return self._task.result()

    def _failed(self) -> bool:
        assert self._task is not None  # noqa: S101
        return self._task.cancelled() or self._task.exception() is not None

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise StreamMisuse("a stream is one call and can be entered once")
        self._task = asyncio.create_task(self._call(self.context), name=f"agent call {self.run_id}")
        self._task.add_done_callback(lambda _: self._wake())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task = self._task
        assert task is not None  # noqa: S101
        if not task.done():
            task.cancel()
            await _wait_until_done(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and error is None and not self._failure_raised:
            raise failure

    def _put(self, chunk: Chunk) -> Awaitable[None]:
        # A plain function, and one future to wake the reader: this path is paid for each token.
        if len(self._pending_chunks) >= self._buffer:
            return self._put_when_capacity(chunk)
        self._pending_chunks.append(chunk)
        if self._reader_future is not None:
            self._wake()
        return HAS_CAPACITY

    async def _put_when_capacity(self, chunk: Chunk) -> None:
        while len(self._pending_chunks) >= self._buffer:
            self._capacity_event = self._capacity_event or asyncio.Event()
            await self._capacity_event.wait()
        self._pending_chunks.append(chunk)
        self._wake()

    def _wake(self) -> None:
        reader = self._reader_future
        self._reader_future = None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def chunks(self) -> AsyncIterator[Chunk]:
        """Yield every chunk of the call, in order.

        Cancelling the wait for the next one loses none.
        """
        return _ChunkIterator(self)

    def __aiter__(self) -> Self:
        _ = self._require_task()
        return self

    async def __anext__(self) -> str:
        while self._pending_chunks or await self._wait_for_chunk():
            chunk = self._pop_chunk()
            if type(chunk) is TextChunk and chunk.text:
                return chunk.text
        raise StopAsyncIteration

    async def _wait_for_chunk(self) -> bool:
        """Wait for a chunk; False at the end. Raises the call's error once, after its chunks."""
        task = self._task or self._require_task()
        while not self._pending_chunks:
            if task.done():
                if not self._failure_raised:
                    self._failure_raised = True
                    if task.cancelled():
                        raise self._cancelled_error() from _cause_of(task)
                    task.result()  # raises the call's error
                return False
            if self._reader_future is not None and not self._reader_future.done():
                raise StreamMisuse(
                    "a stream has one reader: another task is waiting for its next chunk"
                )
            self._reader_future = asyncio.get_running_loop().create_future()
            await self._reader_future
        return True

    def _pop_chunk(self) -> Chunk:
        chunk = self._pending_chunks.popleft()
        if self._capacity_event is not None:
            self._capacity_event.set()
            self._capacity_event = None
        if type(chunk) is TextChunk:
            if chunk.message_id != self._message_id:
                self._message_id = chunk.message_id
                self._pieces = []
            self._pieces.append(chunk.text)
        return chunk

    def _require_task(self) -> asyncio.Task[AgentResult]:
        if self._task is None:
            raise StreamMisuse(
                "open the stream first: `async with agent.execute_stream(...) as stream: async "
                "for text in stream: ...`"
            )
        return self._task

    def _cancelled_error(self) -> CallCancelled:
        error = CallCancelled("the runtime cancelled the call")
        error.run_id = self.run_id
        error.usage = self.context.usage
        return error


class _ChunkIterator:
    """Iterate without a frame of its own, so that cancelling a wait does not end the iterator."""

    def __init__(self, stream: AgentStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._stream._pending_chunks or await self._stream._wait_for_chunk():
            return self._stream._pop_chunk()
        raise StopAsyncIteration


def _cause_of(task: asyncio.Task[AgentResult]) -> BaseException | None:
    """Return an error that a layer raised while the call was being cancelled, or None."""
    try:
        task.exception()
    except asyncio.CancelledError as error:
        return error.__cause__
    return None


async def _wait_until_done(task: asyncio.Task[AgentResult]) -> None:
    # A second cancel of the reader must not leave the call behind half cleaned up: wait on, then
    # let it through.
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
