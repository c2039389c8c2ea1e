"""An MCP server as a template names it, resolved: who may share it, and how it is opened."""

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
from typing import TYPE_CHECKING, Any, TextIO

from agent_runtime.errors import ConfigurationError, MissingExtra
from agent_runtime.models.resolve import secret_value
from agent_runtime.template.parts_spec import McpSpec, SecretRef

if TYPE_CHECKING:
    from mcp import ClientSession

credential_scope: ContextVar[str] = ContextVar("agent_runtime_credential_scope", default="")
"""For whom agents are made at present: a program's own MCP server is never shared across scopes."""

Notice = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class McpServer:
    """A server: `key` is the same for all that may share one, `name` is for people; `timeout_s` is seconds.

    `connection` has secrets in it and is in no repr.
    """

    key: str
    name: str
    timeout_s: float
    connection: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, spec: McpSpec, folder: Path | None) -> McpServer:
        """The server that a template means now; raises ConfigurationError for a secret that is not there."""
        if spec.command is not None:
            cwd = None if spec.cwd is None else str((folder or Path.cwd()) / spec.cwd)
            connection: dict[str, Any] = {"command": spec.command, "args": list(spec.args), "cwd": cwd}
            connection["env"] = _filled(spec.env)
            name, scope = os.path.basename(spec.command), credential_scope.get()
            name = " ".join([name, *(os.path.basename(arg) for arg in spec.args[:2])])
        else:
            connection = {"url": spec.url, "transport": spec.transport or "streamable_http"}
            connection["headers"] = _filled(spec.headers)
            # What a server may see of its caller is in the headers, so who sends the same ones may share it.
            name, scope = str(spec.url), ""
        content = json.dumps([connection, scope, spec.timeout], sort_keys=True)
        return cls(hashlib.sha256(content.encode()).hexdigest(), name, spec.timeout, connection)

    @asynccontextmanager
    async def session(self, notice: Notice, ended: asyncio.Event, errors: TextIO) -> AsyncIterator[ClientSession]:
        """An initialized session; `ended` is set when a server that is a program is gone, `errors` gets its stderr.

        Raises MissingExtra, and what opening it raises.
        """
        try:
            from langchain_mcp_adapters.sessions import create_session
        except ImportError as error:
            raise MissingExtra("a template's mcp tools", "langchain-agent-runtime[mcp]") from error
        if "command" in self.connection:
            async with _program(self.connection, notice, ended, errors) as session:
                yield session
            return
        connection: Any = {**self.connection, "session_kwargs": {"message_handler": notice}}
        async with create_session(connection) as session:
            await session.initialize()
            yield session


@asynccontextmanager
async def _program(
    connection: Mapping[str, Any], notice: Any, ended: asyncio.Event, errors: TextIO
) -> AsyncIterator[ClientSession]:
    import anyio
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def forward(source: Any, into: Any) -> None:
        """The library tells nobody that a server has ended: the end of its messages does."""
        try:
            async with into:
                async for message in source:
                    await into.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            ended.set()

    transport = stdio_client(StdioServerParameters(**connection), errors)
    async with transport as (read, write), anyio.create_task_group() as group:
        into, out = anyio.create_memory_object_stream[Any](0)
        group.start_soon(forward, read, into)
        async with out, ClientSession(out, write, message_handler=notice) as session:
            await session.initialize()
            yield session
        group.cancel_scope.cancel()


def _filled(given: Mapping[str, str | SecretRef]) -> dict[str, str]:
    return {name: secret_value(value) if isinstance(value, SecretRef) else value for name, value in given.items()}


def check_folder(server: McpServer) -> None:
    """Raise ConfigurationError for a working folder that is not there."""
    cwd = server.connection.get("cwd")
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigurationError(f"the MCP server '{server.name}' has no folder '{cwd}' to run in")
