"""Sinks and a harness for testing layers."""

from __future__ import annotations

from collections import defaultdict

from agent_runtime.chunks import Chunk, TextChunk
from agent_runtime.orchestration.middleware import Middleware, compose
from agent_runtime.types import AgentContext, AgentResult, Handler


class RecordingSink:
    """An `emit` that keeps every chunk. A chunk after `close` is an error.

    The call has returned by then.
    """

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._closed = False

    async def __call__(self, chunk: Chunk) -> None:
        """Keep `chunk`."""
        if self._closed:
            raise AssertionError(f"a chunk after the call has returned: {chunk!r}")
        self.chunks.append(chunk)

    def close(self) -> None:
        """Refuse further chunks."""
        self._closed = True

    @property
    def texts(self) -> dict[str, str]:
        """Return the joined text of each message."""
        joined: dict[str, str] = defaultdict(str)
        for chunk in self.chunks:
            if isinstance(chunk, TextChunk):
                joined[chunk.message_id] += chunk.text
        return dict(joined)


async def run_layer(
    layer: Middleware,
    core: Handler,
    *,
    streaming: bool = False,
    input: str = "question",  # noqa: A002
) -> tuple[AgentResult, RecordingSink]:
    """Run one call through `layer` around a stub `core`; return the result and the emitted chunks.

    Raises the layer's errors, and AssertionError when an emitted text differs from the text of its
    message in the result: the rule applies to every layer, unary and streamed.
    """
    sink = RecordingSink()
    result = await compose([layer], core)(AgentContext(input, streaming=streaming, emit=sink))
    sink.close()
    for message in result.messages:
        if (
            message.type == "ai"
            and message.id in sink.texts
            and sink.texts[message.id] != str(message.text)
        ):
            raise AssertionError(
                f"emitted {sink.texts[message.id]!r}, but the message says {message.text!r}"
            )
    return result, sink
