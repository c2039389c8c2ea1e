"""Track the messages to an MCP server: which task sent which, and which can never be answered."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from agent_runtime.mcp.program import NotDelivered, ProgramWriter

if TYPE_CHECKING:
    from mcp.shared.message import SessionMessage


class RequestWriter:
    """A session's outgoing stream that knows which task waits for the answer to which request.

    The session sends a request in the task that called it. `inner` is a program's input, or a
    library's stream.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._tasks: dict[int | str, asyncio.Task[Any] | None] = {}
        self._sent: weakref.WeakKeyDictionary[Any, int | str] = weakref.WeakKeyDictionary()

    async def send(self, message: SessionMessage) -> None:
        """Send a message; raises NotDelivered for a request that did not leave."""
        from anyio import BrokenResourceError, ClosedResourceError
        from mcp.types import JSONRPCRequest

        root = message.message.root
        if not isinstance(root, JSONRPCRequest):
            await self._inner.send(message)
            return
        task = asyncio.current_task()
        self._tasks[root.id] = task
        try:
            await self._inner.send(message)
        except (BrokenResourceError, ClosedResourceError) as error:
            self._tasks.pop(root.id, None)
            raise NotDelivered("the session has ended") from error
        except NotDelivered:
            self._tasks.pop(root.id, None)
            raise
        except BaseException:  # a cancelled one may have left all the same
            self._sent[task] = root.id
            raise
        self._sent[task] = root.id

    @property
    def open_requests(self) -> list[int | str]:
        """Return the ids of unanswered requests."""
        return list(self._tasks)

    def request_of(self, task: asyncio.Task[Any]) -> int | str | None:
        """Return the id of the request that `task` waits for, or None."""
        return next(
            (request_id for request_id, waiting in self._tasks.items() if waiting is task), None
        )

    def has_sent(self, task: asyncio.Future[Any]) -> bool:
        """Return whether a request of `task` may have reached the server."""
        if task not in self._sent:
            return False
        return not isinstance(self._inner, ProgramWriter) or self._inner.has_read(self._sent[task])

    def close_request(self, request_id: int | str) -> None:
        """Drop a request that was answered, or is no longer awaited."""
        self._tasks.pop(request_id, None)
        if isinstance(self._inner, ProgramWriter):
            self._inner.close_request(request_id)

    async def aclose(self) -> None:
        """End the stream."""
        await self._inner.aclose()

    async def __aenter__(self) -> RequestWriter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def forward_answers(
    source: Any, sink: Any, requests: RequestWriter, *, is_http: bool
) -> None:
    """Pass a server's messages on.

    Answer a request with an error when its own answer cannot be read.

    The library drops a message that is not JSON-RPC, an answer with neither `result` nor `error`
    for one, and its caller waits for good. Over HTTP every message answers a request, so one
    without an id ends all open requests; a program may write lines to its output that are no
    messages at all.
    """
    from anyio import BrokenResourceError, ClosedResourceError
    from mcp.types import JSONRPCError, JSONRPCResponse

    try:
        async with source, sink:
            async for message in source:
                if isinstance(message, Exception):
                    for request_id in _unanswerable_requests(message, requests, is_http=is_http):
                        requests.close_request(request_id)
                        await sink.send(_unreadable_answer(request_id, message))
                    continue
                root = message.message.root
                if isinstance(root, JSONRPCResponse | JSONRPCError):
                    requests.close_request(_normalized_id(root.id, requests))
                await sink.send(message)
    except (BrokenResourceError, ClosedResourceError):
        return


def _unanswerable_requests(
    error: Exception, requests: RequestWriter, *, is_http: bool
) -> list[int | str]:
    from pydantic import ValidationError

    parts = error.errors(include_url=False) if isinstance(error, ValidationError) else []
    for part in parts:
        value = part["input"]
        if not isinstance(value, dict) or not ("id" in value or "method" in value):
            continue
        if "method" in value:
            return []  # a request or a notice of the server's
        request_id = _normalized_id(value["id"], requests)
        return [
            open_request_id
            for open_request_id in requests.open_requests
            if open_request_id == request_id
        ]
    return requests.open_requests if is_http else []


def _normalized_id(request_id: Any, requests: RequestWriter) -> Any:
    """Return an answer's id as the session sent it: some servers answer 3 with "3"."""
    if isinstance(request_id, str) and request_id.isdecimal():
        return int(request_id)
    return request_id


def _unreadable_answer(request_id: int | str, error: Exception) -> SessionMessage:
    from mcp.shared.message import SessionMessage
    from mcp.types import PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCMessage

    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    data = ErrorData(code=PARSE_ERROR, message=f"the server's answer cannot be read: {reason}")
    return SessionMessage(JSONRPCMessage(JSONRPCError(jsonrpc="2.0", id=request_id, error=data)))
