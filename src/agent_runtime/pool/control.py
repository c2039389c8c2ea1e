"""Serve a pool's control socket, for other processes of the same user."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.errors import AgentRuntimeError, ConfigurationError, InputInvalid
from agent_runtime.escapes import json_line
from agent_runtime.pool.task import AgentTask, parse_priority
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.size_limits import size_limit
from agent_runtime.strict_json import loads_unique

if TYPE_CHECKING:
    from agent_runtime.pool.process.instance_pool import AgentInstancePool
    from agent_runtime.pool.warm.session_pool import AgentSessionPool

MAX_LINE_BYTES = size_limit("control_bytes")
MAX_PATH = 100
"""A Unix socket's path may have 107 bytes."""


class ControlSocket:
    """Answer requests, one JSON object per line, with one or more lines.

    `{"do": "status"}`, `{"do": "drain", "grace_s": 30}`, and `{"do": "run", "agent": ..., "input":
    ...}` (further keys: `session_id`, `priority`, `timeout_s`), which is answered with a line for
    each piece of text and one for the result. Only the owner of the process may connect: the file
    has the mode 0600.

    Args:
        pool: the pool.
        path: the socket's path; it is removed at the end.
        sessions: a warm pool to be shown too.
    """

    def __init__(
        self, pool: AgentInstancePool, path: str | Path, *, sessions: AgentSessionPool | None = None
    ) -> None:
        self._pool = pool
        self.path = Path(path)
        self._sessions = sessions
        self._server: asyncio.Server | None = None
        self.drained = asyncio.Event()
        """Set when a request has drained the pool."""
        if len(os.fsencode(self.path)) > MAX_PATH:
            raise ConfigurationError(
                f"the control socket's path is longer than {MAX_PATH} bytes: {self.path}"
            )

    async def __aenter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.unlink(missing_ok=True)
        previous_umask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._handle_connection, self.path, limit=MAX_LINE_BYTES
            )
        finally:
            os.umask(previous_umask)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            line = await reader.readline()
            response_task = asyncio.create_task(self._write_responses(line, writer))
            disconnect_task = asyncio.create_task(
                reader.read()
            )  # no further request: the end of input is the client's
            try:
                await asyncio.wait(
                    [response_task, disconnect_task], return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for task in (response_task, disconnect_task):
                    task.cancel()
                await asyncio.gather(response_task, disconnect_task, return_exceptions=True)
        finally:
            writer.close()

    async def _write_responses(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(self._handle_request(line)) as responses:
                async for response in responses:
                    writer.write(json_line(response, default=str).encode() + b"\n")
                    await writer.drain()

    async def _handle_request(self, line: bytes) -> AsyncGenerator[dict[str, Any]]:
        try:
            request = loads_unique(line)
            if not isinstance(request, dict):
                raise InputInvalid("a request is a JSON object")
            if request.get("do") == "run":
                async with contextlib.aclosing(self._run_task(request)) as responses:
                    async for response in responses:
                        yield response
            elif request.get("do") == "drain":
                cancelled = await self._pool.drain(float(request.get("grace_s", 30.0)))
                self.drained.set()
                yield {"type": "drained", "cancelled": cancelled}
            elif request.get("do") == "status":
                yield {"type": "status", **self.status()}
            else:
                raise InputInvalid("a request does status, drain or run", "do")
        except (AgentRuntimeError, OSError, ValueError, TypeError) as error:
            code = getattr(error, "code", "input_invalid")
            yield {"type": "error", "error": {"code": code, "message": SECRETS.text(str(error))}}

    async def _run_task(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        priority = parse_priority(request.get("priority", "normal"))
        timeout_s = request.get("timeout_s")
        task = AgentTask(
            str(request.get("agent", "")),
            request.get("input"),
            priority=priority,
            session_id=request.get("session_id"),
            timeout_s=None if timeout_s is None else float(timeout_s),
        )
        async with self._pool.stream(task) as stream:
            async for text in stream:
                yield {"type": "text", "text": text}
        yield {"type": "result", **stream.result.to_dict()}

    def status(self) -> dict[str, Any]:
        """Return the answer to `status`."""
        factory = self._pool.factory
        return {
            "pid": os.getpid(),
            "pool": self._pool.get_pool_status(),
            "warm": None if self._sessions is None else self._sessions.status(),
            "providers": factory.registry.providers.status(),
            "mcp": factory.mcp_broker.status(),
        }


async def send_request(path: str | Path, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """Yield a control socket's answers; leaving early ends the request.

    Raises ConfigurationError when no process listens.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    except (FileNotFoundError, ConnectionError) as error:
        raise ConfigurationError(f"no pool answers at {path}") from error
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        while line := await reader.readline():
            yield json.loads(line)
    finally:
        writer.close()
