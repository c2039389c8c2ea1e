"""The HTTP side of models that are made here.

Answers are bounded when they are decoded, and noted when they come.

Provider SDKs use `httpx`, or its successor `httpx2`; both have the same classes, and neither is
imported here.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agent_runtime.providers.answers import current_answer
from agent_runtime.size_limits import size_limit

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

MAX_ANSWER_BYTES = size_limit("answer_bytes")
"""Decoded bytes of one answer; the longest ones of any model have a few."""
MAX_STREAM_BYTES = size_limit("stream_bytes")
"""Decoded bytes of a stream of events, which nothing keeps whole."""
MAX_EVENT_BYTES = size_limit("stream_event_bytes")
"""Bytes of one line of such a stream."""
LIBRARIES = ("httpx", "httpx2")
ACCEPT_ENCODING = "gzip, deflate"
_STEP_BYTES = 64 * 1024
_MAX_DEPTH = 4
_WINDOW_BITS = {"gzip": 47, "x-gzip": 47, "deflate": 47, "identity": 0}
"""47 reads the heads of gzip and of zlib."""
_CLIENT_PACKAGES = frozenset({
    "anthropic", "cerebras", "cohere", "fireworks", "google", "groq", "mistralai", "ollama",
    "openai", "openrouter",
    "perplexity", "together",
})  # fmt: skip
"""Packages whose objects may hold an HTTP client."""


class _Decoder:
    """Decode the body of one answer in small steps, and count the output."""

    def __init__(self, headers: Any, library: Any) -> None:
        self._library = library
        names = [
            name.strip().lower()
            for name in headers.get("content-encoding", "").split(",")
            if name.strip()
        ]
        if len(names) > 2 or any(name not in _WINDOW_BITS for name in names):
            raise self._too_large(
                f"an answer in an encoding that was not asked for: {', '.join(names)[:80]}"
            )
        # The last encoding was put on last.
        self._stages = [
            zlib.decompressobj(_WINDOW_BITS[name]) for name in reversed(names) if _WINDOW_BITS[name]
        ]
        self._is_stream = headers.get("content-type", "").startswith("text/event-stream")
        self._may_be_raw_deflate = names == ["deflate"]
        self._total_bytes = 0
        self._line_bytes = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded pieces of a part of the body.

        Raises AnswerTooLarge, or the library's DecodingError.
        """
        for piece in self._decompress(data, self._stages):
            self._check_size(piece)
            yield piece

    def _decompress(self, data: bytes, stages: list[Any]) -> Iterator[bytes]:
        if not stages:
            yield data
            return
        stage = stages[0]
        inner = stages[1:]
        while data:
            try:
                piece = stage.decompress(data, _STEP_BYTES)
            except zlib.error as error:
                if (
                    self._may_be_raw_deflate and not self._total_bytes
                ):  # "deflate" without the head of zlib, as some servers send it
                    self._may_be_raw_deflate = False
                    self._stages = [zlib.decompressobj(-zlib.MAX_WBITS)]
                    yield from self._decompress(data, self._stages)
                    return
                raise self._library.DecodingError(
                    f"a body that is not what its encoding says: {error}"
                ) from error
            data = stage.unconsumed_tail
            if piece:
                yield from self._decompress(piece, inner)

    def _check_size(self, piece: bytes) -> None:
        self._total_bytes += len(piece)
        if not self._is_stream:
            if self._total_bytes > MAX_ANSWER_BYTES:
                raise self._too_large(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return
        end = piece.rfind(b"\n")
        self._line_bytes = self._line_bytes + len(piece) if end < 0 else len(piece) - end - 1
        longest = max(self._line_bytes, max((len(line) for line in piece.split(b"\n")), default=0))
        if self._total_bytes > MAX_STREAM_BYTES or longest > MAX_EVENT_BYTES:
            raise self._too_large(
                f"a stream of more than {MAX_STREAM_BYTES} bytes, or {MAX_EVENT_BYTES} in one line"
            )

    def _too_large(self, message: str) -> Exception:
        error: Exception = _transport_classes(self._library.__name__)["AnswerTooLarge"](message)
        return error


@lru_cache(maxsize=4)
def _transport_classes(library_name: str) -> dict[str, Any]:
    """Return the error and the transports that go with a library's clients."""
    library: Any = sys.modules[library_name]

    class AnswerTooLarge(library.DecodingError):  # type: ignore[misc]
        """An answer of more decoded bytes than a model's can have.

        A small one may be packed a thousandfold.
        """

    return {
        "AnswerTooLarge": AnswerTooLarge,
        "AsyncClient": _async_transport(library),
        "Client": _sync_transport(library),
    }


def _async_transport(library: Any) -> type:
    class BoundedBody(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, decoder: _Decoder) -> None:
            self._inner = inner
            self._decoder = decoder

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for data in self._inner:
                for piece in self._decoder.decode(data):
                    yield piece

        async def aclose(self) -> None:
            await self._inner.aclose()

    class BoundedTransport(library.AsyncBaseTransport):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def handle_async_request(self, request: Any) -> Any:
            request.headers["accept-encoding"] = ACCEPT_ENCODING
            response = await self.inner.handle_async_request(request)
            try:
                decoder = _Decoder(response.headers, library)
            except library.DecodingError:
                await response.aclose()
                raise
            return _decoded_response(library, response, BoundedBody(response.stream, decoder))

        async def aclose(self) -> None:
            await self.inner.aclose()

    return BoundedTransport


def _sync_transport(library: Any) -> type:
    class BoundedBody(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, decoder: _Decoder) -> None:
            self._inner = inner
            self._decoder = decoder

        def __iter__(self) -> Iterator[bytes]:
            for data in self._inner:
                yield from self._decoder.decode(data)

        def close(self) -> None:
            self._inner.close()

    class BoundedTransport(library.BaseTransport):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def handle_request(self, request: Any) -> Any:
            request.headers["accept-encoding"] = ACCEPT_ENCODING
            response = self.inner.handle_request(request)
            try:
                decoder = _Decoder(response.headers, library)
            except library.DecodingError:
                response.close()
                raise
            return _decoded_response(library, response, BoundedBody(response.stream, decoder))

        def close(self) -> None:
            self.inner.close()

    return BoundedTransport


def _decoded_response(library: Any, response: Any, stream: Any) -> Any:
    if (answer := current_answer.get()) is not None and response.status_code < 400:
        answer.has_arrived = True
    headers = response.headers.copy()
    for name in ("content-encoding", "content-length"):
        headers.pop(name, None)
    return library.Response(
        response.status_code, headers=headers, stream=stream, extensions=response.extensions
    )


def bound_model_answers(model: BaseChatModel) -> None:
    """Bound the answers of every HTTP client that a chat model holds, its SDK's included.

    LangChain shares its clients between models, so one may be bound already. A client of another
    kind is left alone.
    """
    libraries = [sys.modules[name] for name in LIBRARIES if name in sys.modules]
    if not libraries:
        return
    visited_ids: set[int] = set()
    level: list[Any] = [model]
    for _ in range(_MAX_DEPTH):
        parts = [
            part for owner in level for part in _attributes_of(owner) if id(part) not in visited_ids
        ]
        visited_ids.update(id(part) for part in parts)
        for library in libraries:
            for part in parts:
                if isinstance(part, library.AsyncClient | library.Client):
                    bound_client(part, library)
        for part in parts:
            if type(part).__module__ == "botocore.client":
                part.meta.events.register("before-parse", _note_amazon_answer, unique_id=__name__)
        level = [
            part for part in parts if type(part).__module__.partition(".")[0] in _CLIENT_PACKAGES
        ]


def _note_amazon_answer(response_dict: Any = None, **_kwargs: Any) -> None:
    """Note an answer that botocore has received; its parser reads it whole, without unpacking."""
    answer = current_answer.get()
    if answer is not None and response_dict and response_dict.get("status_code", 500) < 400:
        answer.has_arrived = True


def _attributes_of(owner: Any) -> list[Any]:
    # Clients that are made at their first use are made now: a look before each call would cost each
    # call.
    for name in ("_client", "_async_client"):
        if hasattr(type(owner), name):
            try:
                getattr(owner, name)
            except Exception:  # noqa: BLE001, S112 - a client that cannot be made says so when it is used
                continue
    private = (
        getattr(owner, "__pydantic_private__", None) or {}
    )  # where langchain-ollama has its clients
    return [*getattr(owner, "__dict__", {}).values(), *private.values()]


def bound_client(client: Any, library: Any) -> None:
    """Bound the answers of one client of `httpx` or `httpx2`, whichever `library` is."""
    wrapper = _transport_classes(library.__name__)[
        "AsyncClient" if isinstance(client, library.AsyncClient) else "Client"
    ]
    if not isinstance(client._transport, wrapper):
        client._transport = wrapper(client._transport)
    for pattern, transport in list(client._mounts.items()):
        if transport is not None and not isinstance(transport, wrapper):
            client._mounts[pattern] = wrapper(transport)
