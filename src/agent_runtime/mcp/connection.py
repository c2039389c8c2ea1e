"""Hold one session with an MCP server.

Opened on demand, reopened after a failure, closed when idle.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from agent_runtime.errors import AgentRuntimeError, McpServerFailed
from agent_runtime.errors.backoff import Backoff
from agent_runtime.mcp.answers import content_of, protocol_error
from agent_runtime.mcp.messages import RequestWriter
from agent_runtime.mcp.program import NotDelivered
from agent_runtime.mcp.server import McpServer, check_folder
from agent_runtime.subprocess_output import OutputTail

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool, ToolException
    from mcp import ClientSession

_BACKOFF = Backoff(0.2, 30.0)
CANCEL_TIMEOUT_S = 1.0
"""So long the server may take to accept the notice that a request is cancelled."""
LOST_SESSION_GRACE_S = 1.0
"""So long other requests of a session that the server forgot may take to hear the same."""
SESSION_TERMINATED = 32600
"""The client library's own error for an HTTP 404; a server's codes are negative."""
TOOLS_TTL_S = 300.0
"""Seconds a tool list stays valid, unless the server announces a change."""


class Connection:
    """A server's session, on the broker's loop.

    `user_count` counts the agents that have tools of it.

    Args:
        server: how it is opened.
        on_status: called with the server, its new status (`open`, `closed`, `failed` or
            `tools_changed`) and the reason.
    """

    def __init__(self, server: McpServer, on_status: Callable[[McpServer, str, str], None]) -> None:
        self.server = server
        self._on_status = on_status
        self.user_count = 0
        self.active_calls = 0
        self.open_count = 0
        self.last_used_time = time.monotonic()
        self.tools_digest = ""
        self._listed_time = float("-inf")
        self._change_notices = self._listed_notices = 0
        self.last_answer_time = time.monotonic()
        self._tools: dict[str, BaseTool] = {}
        self._session: ClientSession | None = None
        self._requests: RequestWriter | None = None
        self._session_task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._broken = asyncio.Event()
        self._is_session_unknown = False
        self._failures = 0
        self._retry_after_s = 0.0
        self._error = ""
        self._list_lock = asyncio.Lock()
        self._pending_calls: set[asyncio.Future[Any]] = set()
        self._interrupted_calls: set[asyncio.Future[Any]] = set()
        self._check_task: asyncio.Task[None] | None = None

    @property
    def is_outdated(self) -> bool:
        """Return whether the server has announced a change of its tools since the last listing."""
        return self._change_notices != self._listed_notices

    @property
    def is_fresh(self) -> bool:
        """Return whether the tool list is valid."""
        return not self.is_outdated and time.monotonic() - self._listed_time < TOOLS_TTL_S

    @property
    def is_open(self) -> bool:
        """Return whether a session is open."""
        return self._session is not None

    @property
    def is_busy(self) -> bool:
        """Return whether it is being opened, or called."""
        return bool(self.active_calls) or (self._ready is not None and not self._ready.done())

    # -- the session

    async def session(self) -> ClientSession:
        """Return the session, opened if necessary.

        Raises McpServerFailed, immediately during repeated failures.
        """
        self.last_used_time = time.monotonic()
        while self._session is None:
            if self._ready is not None and not self._ready.done():
                await asyncio.shield(self._ready)
            elif self._session_task is not None and not self._session_task.done():
                await asyncio.wait([self._session_task])  # the one before has not ended yet
            else:
                if (remaining_s := self._retry_after_s - time.monotonic()) > 0:
                    raise McpServerFailed(
                        self.server.name, f"{self._error}; tried again in {remaining_s:.1f} s"
                    )
                self._ready = asyncio.get_running_loop().create_future()
                self._session_task = asyncio.get_running_loop().create_task(
                    self._run_session(self._ready)
                )
        return self._session

    async def _run_session(self, ready: asyncio.Future[None]) -> None:
        self._broken.clear()
        read_fd, write_fd = os.pipe()
        stderr_tail = OutputTail(read_fd, lambda count: None)
        stderr = os.fdopen(write_fd, "w")
        try:
            check_folder(self.server)
            async with asyncio.timeout(self.server.timeout_s) as opening:
                async with self.server.session(self._on_message, self._broken, stderr) as (
                    session,
                    requests,
                ):
                    await self._load_tools(session)
                    opening.reschedule(None)
                    self._requests = requests
                    self._on_open(session, ready)
                    await self._broken.wait()
                    if self._is_session_unknown and self._pending_calls:
                        await asyncio.wait(self._pending_calls, timeout=LOST_SESSION_GRACE_S)
                    self._discard_session()  # before the server is ended, which may take a while
        except asyncio.CancelledError:
            self._on_status(self.server, "closed", "")
            raise
        except BaseException as error:  # noqa: BLE001 - the library's groups of whatever happened
            self._on_failure(_root_cause(error), stderr_tail, ready)
        else:
            self._on_failure(ConnectionError("the server ended"), stderr_tail, ready)
        finally:
            self._discard_session()
            stderr.close()
            stderr_tail.close()
            self._fail_ready(ready, "it was closed")

    def _on_open(self, session: ClientSession, ready: asyncio.Future[None]) -> None:
        self._session = session
        self._is_session_unknown = False
        self._failures = 0
        self._retry_after_s = 0.0
        self._error = ""
        self.open_count = self.open_count + 1
        self.last_used_time = time.monotonic()
        self.last_answer_time = self.last_used_time
        self._on_status(self.server, "open", "")
        if not ready.done():
            ready.set_result(None)

    def _discard_session(self) -> None:
        self._session = None
        for call in self._pending_calls:  # the library leaves them waiting when a session ends
            self._interrupted_calls.add(call)
            call.cancel()

    def _on_failure(
        self, error: BaseException, output: OutputTail, ready: asyncio.Future[None]
    ) -> None:
        output.drain()
        tail = output.tail
        self._failures += 1
        if not ready.done() or self._failures > 1:  # one that worked may be reopened at once
            self._retry_after_s = time.monotonic() + _BACKOFF.pause_s(self._failures)
        reason = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            reason = f"it was not ready within {self.server.timeout_s:g} s"
        self._error = f"{reason}: {tail.strip()[-500:]}" if tail.strip() else reason
        self._on_status(self.server, "failed", self._error)
        if isinstance(error, AgentRuntimeError) and not ready.done():
            ready.set_exception(error)
            ready.exception()
        self._fail_ready(ready, self._error, error)

    def _fail_ready(
        self, ready: asyncio.Future[None], reason: str, cause: BaseException | None = None
    ) -> None:
        if not ready.done():
            failure = McpServerFailed(self.server.name, reason)
            failure.__cause__ = cause
            ready.set_exception(failure)
            ready.exception()  # retrieved in case of no waiter

    async def close(self) -> None:
        """Close the session, and the server if it is a program; the next use opens another."""
        session_task = self._session_task
        self._discard_session()
        if session_task is not None and not session_task.done():
            session_task.cancel()
            await asyncio.wait([session_task])

    async def check(self) -> None:
        """Ping an open session; a dead one will be reopened."""
        if (session := self._session) is not None:
            try:
                async with asyncio.timeout(min(self.server.timeout_s, 10.0)):
                    await session.send_ping()
                self.last_answer_time = time.monotonic()
            except Exception:  # noqa: BLE001 - whatever it is, the session does not answer
                self._mark_broken(session)

    def _mark_broken(self, session: ClientSession) -> None:
        if self._session is session:  # otherwise it has ended, and another one has started
            self._session = None  # the next call opens another one
            self._broken.set()

    # -- tools

    async def tools(self) -> list[BaseTool]:
        """Return the server's tools of the adapter; lists them again when the list is outdated."""
        session = await self.session()
        async with self._list_lock:
            if not self.is_fresh:
                try:
                    async with asyncio.timeout(self.server.timeout_s):
                        await self._load_tools(session)
                except Exception as error:
                    self._mark_broken(session)
                    reason = str(error) or type(error).__name__
                    raise McpServerFailed(
                        self.server.name, f"its tools cannot be listed: {reason}"
                    ) from error
        return list(self._tools.values())

    async def _load_tools(self, session: ClientSession) -> None:
        from langchain_mcp_adapters.tools import load_mcp_tools

        started = time.monotonic()
        notices = self._change_notices
        tools = await load_mcp_tools(session)
        self._tools = {tool.name: tool for tool in tools}
        content = [[tool.name, tool.description, tool.args_schema] for tool in tools]
        digest = hashlib.sha256(
            json.dumps(content, sort_keys=True, default=str).encode()
        ).hexdigest()
        if self.tools_digest and digest != self.tools_digest:
            self._on_status(self.server, "tools_changed", "")
        self.tools_digest = digest
        self._listed_time = started
        self._listed_notices = notices

    async def _on_message(self, message: Any) -> None:
        from mcp.types import ServerNotification, ToolListChangedNotification

        if isinstance(message, ServerNotification) and isinstance(
            message.root, ToolListChangedNotification
        ):
            self._change_notices += 1

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a tool; content and artifact as the adapter makes them.

        Raises McpServerFailed, ToolException.
        """
        self.active_calls += 1
        try:
            async with asyncio.timeout(self.server.timeout_s) as scope:
                return await self._call(name, arguments)
        except TimeoutError as error:
            if not scope.expired():
                raise
            self._check_task = asyncio.get_running_loop().create_task(
                self.check()
            )  # it may hang for good
            message = f"'{name}' did not answer within {self.server.timeout_s:g} s"
            raise McpServerFailed(self.server.name, message) from error
        finally:
            self.active_calls -= 1
            self.last_used_time = time.monotonic()

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        is_resent = False
        while True:
            session = await self.session()
            if name not in self._tools:
                raise McpServerFailed(self.server.name, f"it has no tool '{name}' any more")
            try:
                return content_of(
                    await self._request(session, name, session.call_tool(name, arguments))
                )
            except _NotExecuted as error:
                self._is_session_unknown = True
                self._mark_broken(session)
                if is_resent:
                    raise McpServerFailed(
                        self.server.name, f"its session ended before '{name}'"
                    ) from error
                is_resent = True

    async def _request(
        self, session: ClientSession, name: str, request: Coroutine[Any, Any, Any]
    ) -> Any:
        requests = cast("RequestWriter", self._requests)
        call = asyncio.ensure_future(request)
        self._pending_calls.add(call)
        try:
            answer = await call
            self.last_answer_time = time.monotonic()
            return answer
        except asyncio.CancelledError as error:
            if call in self._interrupted_calls:
                if not requests.has_sent(call):
                    raise _NotExecuted from error
                raise McpServerFailed(
                    self.server.name, f"its session ended during '{name}'"
                ) from error
            await self._cancel_request(session, call)
            raise
        except Exception as error:
            if _is_not_executed(error):
                raise _NotExecuted from error
            if (reason := _unreadable_reason(error)) is not None:
                raise McpServerFailed(self.server.name, f"'{name}': {reason}") from error
            if _is_session_lost(error):
                if not requests.has_sent(call):
                    raise _NotExecuted from error
                self._mark_broken(session)
                raise McpServerFailed(
                    self.server.name, f"its session ended during '{name}'"
                ) from error
            if (refusal := _refusal(error)) is not None:
                raise refusal from error
            raise
        finally:
            self._pending_calls.discard(call)
            self._interrupted_calls.discard(call)

    async def _cancel_request(self, session: ClientSession, call: asyncio.Future[Any]) -> None:
        """Notify the server that the caller no longer waits, so that it can stop."""
        from anyio import BrokenResourceError, ClosedResourceError
        from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

        if (
            self._session is not session
            or self._requests is None
            or not isinstance(call, asyncio.Task)
        ):
            return
        request_id = self._requests.request_of(call)
        if request_id is None:
            return
        self._requests.close_request(request_id)
        params = CancelledNotificationParams(
            requestId=request_id, reason="the run was cancelled or its time is over"
        )
        # Where the session is over, the request is over with it.
        with suppress(TimeoutError, OSError, BrokenResourceError, ClosedResourceError):
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await session.send_notification(
                    ClientNotification(CancelledNotification(params=params))
                )


class _NotExecuted(Exception):
    """Report that a call may be sent again: no session of the server has received it."""


def _is_not_executed(error: Exception) -> bool:
    """Return whether the server executed nothing.

    The request was not sent, or its session was lost.
    """
    from mcp import McpError

    if isinstance(error, McpError):
        # The client's own answer to an HTTP 404: the server has been restarted, and knows the
        # session no more.
        return error.error.code == SESSION_TERMINATED and "session terminated" in str(error).lower()
    return isinstance(error, NotDelivered)


def _unreadable_reason(error: Exception) -> str | None:
    """Return the problem of an unreadable answer, None for any other error."""
    from mcp import McpError
    from mcp.types import PARSE_ERROR
    from pydantic import ValidationError

    if isinstance(error, McpError) and error.error.code == PARSE_ERROR:
        return error.error.message
    if isinstance(error, ValidationError):
        return f"the server's answer cannot be read: {error.error_count()} fields are wrong"
    return None


def _refusal(error: Exception) -> ToolException | None:
    """Return the tool error for a call that the server refused, None otherwise."""
    from mcp import McpError

    return protocol_error(error) if isinstance(error, McpError) else None


def _is_session_lost(error: Exception) -> bool:
    """Return whether the session is lost, as opposed to a failed tool."""
    from anyio import BrokenResourceError, ClosedResourceError
    from httpx import HTTPError
    from mcp import McpError
    from mcp.types import CONNECTION_CLOSED

    if isinstance(error, McpError):
        return error.error.code == CONNECTION_CLOSED
    return isinstance(
        error, BrokenResourceError | ClosedResourceError | ConnectionError | HTTPError
    )


def _root_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
