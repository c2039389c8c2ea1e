"""Resolve an MCP server of a template: its sharing key, and how to open it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from agent_runtime.errors import ConfigurationError, MissingExtra
from agent_runtime.mcp.messages import RequestWriter, forward_answers
from agent_runtime.mcp.program import run_program
from agent_runtime.models.resolve import secret_value
from agent_runtime.providers.http_transport import bound_client
from agent_runtime.template.parts_spec import McpSpec, SecretRef

if TYPE_CHECKING:
    from mcp import ClientSession

credential_scope: ContextVar[str] = ContextVar("agent_runtime_credential_scope", default="")
"""For whom agents are made at present: a program's own MCP server is never shared across scopes."""

MessageHandler = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server: `key` is the same for all that may share one, `name` is for people.

    `timeout_s` is seconds.

    `connection` has secrets in it and is in no repr.
    """

    key: str
    name: str
    timeout_s: float
    connection: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_spec(cls, spec: McpSpec, folder: Path | None, scope: str | None = None) -> McpServer:
        """Return the server that a template means now.

        Raises ConfigurationError for a secret that is not there.

        `scope` is the credential scope, the present one when None.
        """
        if scope is None:
            scope = credential_scope.get()
        if spec.command is not None:
            cwd = None if spec.cwd is None else str((folder or Path.cwd()) / spec.cwd)
            connection: dict[str, Any] = {
                "command": spec.command,
                "args": list(spec.args),
                "cwd": cwd,
            }
            connection["env"] = _resolve_secrets(spec.env)
            name = " ".join(
                [os.path.basename(spec.command), *(os.path.basename(arg) for arg in spec.args[:2])]
            )
        else:
            connection = {"url": spec.url, "transport": spec.transport or "streamable_http"}
            connection["headers"] = _resolve_secrets(spec.headers)
            name = str(spec.url)
            # headers carry everything a server sees of its caller: equal ones may share it
            scope = ""
        content = json.dumps([connection, scope, spec.timeout], sort_keys=True)
        return cls(hashlib.sha256(content.encode()).hexdigest(), name, spec.timeout, connection)

    @asynccontextmanager
    async def session(
        self, on_message: MessageHandler, ended: asyncio.Event, stderr: TextIO
    ) -> AsyncIterator[tuple[ClientSession, RequestWriter]]:
        """Open an initialized session.

        `ended` is set when the server has ended, `stderr` receives a program's stderr. Raises
        MissingExtra, and the errors of opening it.
        """
        try:
            import anyio
            from mcp import ClientSession
        except ImportError as error:
            raise MissingExtra("a template's mcp tools", "langchain-agent-runtime[mcp]") from error
        is_http = "url" in self.connection

        async def forward(source: Any, sink: Any, requests: RequestWriter) -> None:
            try:
                await forward_answers(source, sink, requests, is_http=is_http)
            finally:
                ended.set()

        transport = (
            _http_streams(self.connection) if is_http else run_program(self.connection, stderr)
        )
        async with transport as (messages, writer), anyio.create_task_group() as group:
            requests = RequestWriter(writer)
            sink, answers = anyio.create_memory_object_stream[Any](0)
            group.start_soon(forward, messages, sink, requests)
            async with (
                sink,
                answers,
                ClientSession(
                    answers, cast("Any", requests), message_handler=cast("Any", on_message)
                ) as session,
            ):
                await session.initialize()
                yield session, requests
            group.cancel_scope.cancel()


@asynccontextmanager
async def _http_streams(connection: Mapping[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
    """Open the streams of a server that is reached by an address; decoded answers are bounded."""
    import httpx
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    def create_client(
        headers: Any = None, timeout: Any = None, auth: Any = None
    ) -> httpx.AsyncClient:
        client = create_mcp_http_client(headers, timeout, auth)
        bound_client(client, httpx)
        return client

    url = connection["url"]
    headers = dict(connection["headers"])
    if connection["transport"] == "sse":
        async with sse_client(url, headers, httpx_client_factory=create_client) as streams:
            yield streams
        return
    async with (
        create_client(headers) as client,
        streamable_http_client(url, http_client=client) as (read, write, _),
    ):
        yield read, write


def _resolve_secrets(raw_values: Mapping[str, str | SecretRef]) -> dict[str, str]:
    return {
        name: secret_value(value) if isinstance(value, SecretRef) else value
        for name, value in raw_values.items()
    }


def check_folder(server: McpServer) -> None:
    """Raise ConfigurationError for a working folder that is not there."""
    cwd = server.connection.get("cwd")
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigurationError(f"the MCP server '{server.name}' has no folder '{cwd}' to run in")
