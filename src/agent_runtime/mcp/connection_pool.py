"""McpBroker: the MCP servers of a process, each held once for all agents that may share it."""

from __future__ import annotations

import asyncio
import fnmatch
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import ConfigurationError
from agent_runtime.mcp.connection import Connection
from agent_runtime.mcp.remote_tool import RemoteTool
from agent_runtime.mcp.server import McpServer, credential_scope
from agent_runtime.orchestration.sync import LoopThread
from agent_runtime.template.parts_spec import SecretRef

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from agent_runtime.template.parts_spec import McpSpec

McpKey = Callable[["McpSpec", "Path | None"], str]
CHECK_INTERVAL_S = 5.0
"""How often the broker looks after its connections."""
PING_AFTER_S = 30.0


class _ConnectionUse:
    """Count an agent among the users of a server, for as long as one of its tools lives."""

    def __init__(self, connection: Connection) -> None:
        self._current = [connection]
        connection.user_count += 1
        weakref.finalize(self, _release, self._current)

    def switch_to(self, connection: Connection) -> None:
        """Count the agent among the users of another server: its secrets have been renewed."""
        if connection is not self._current[0]:
            connection.user_count += 1
            _release(self._current)
            self._current[0] = connection


def _release(current: list[Connection]) -> None:
    current[0].user_count -= 1


class McpConnectionPool:
    """Hold MCP sessions on one loop in a separate thread, shared by agents of any loop.

    Methods may be called from any thread and any loop.

    Args:
        idle_s: seconds after which a connection without users or calls is closed.
        on_status: called with a server's name, its new status (`open`, `closed`, `failed`,
            `tools_changed`) and the reason.
    """

    def __init__(
        self, *, idle_s: float = 900.0, on_status: Callable[[str, str, str], None] | None = None
    ) -> None:
        self._idle_s = idle_s
        self._status_callback = on_status
        self._thread = LoopThread(name="agent_runtime MCP servers")
        self._connections: dict[str, Connection] = {}
        self._upkeep_task: asyncio.Task[None] | None = None

    def tools(
        self,
        spec: McpSpec,
        folder: Path | None,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        prefix: str | None = None,
    ) -> list[BaseTool]:
        """Return a server's tools, as a template selects and names them; blocks while it is opened.

        Raises McpServerFailed, MissingExtra, ConfigurationError for a selection without any.
        """
        connection = self._get_connection(McpServer.from_spec(spec, folder))
        server_tools = self._thread.run(connection.tools())
        selected = [tool for tool in server_tools if _is_selected(tool.name, include, exclude)]
        if not selected:
            raise ConfigurationError(
                f"the MCP server '{connection.server.name}' has no tool that include and exclude "
                "leave; it has "
                f"{', '.join(sorted(tool.name for tool in server_tools)) or 'none'}"
            )
        connection_use = _ConnectionUse(connection)
        current = self._current_connection(spec, folder, connection)
        return [self._remote_tool(current, tool, prefix, connection_use) for tool in selected]

    def key(self, spec: McpSpec, folder: Path | None) -> str:
        """Return the cache key of an agent with this server's tools: sharing, secrets, tool list.

        Blocks while the list is queried; raises as `tools`.
        """
        connection = self._get_connection(McpServer.from_spec(spec, folder))
        if not connection.is_fresh:
            self._thread.run(connection.tools())
        return f"{connection.server.key}:{connection.tools_digest}"

    async def prepare(self, spec: McpSpec, folder: Path | None) -> None:
        """Open the server and ask for its tools, so that `key` and `tools` do not block.

        Raises as `tools`.
        """
        connection = self._get_connection(McpServer.from_spec(spec, folder))
        if not connection.is_fresh:
            await self._thread.arun(connection.tools())

    def cached_key(self, spec: McpSpec, folder: Path | None) -> tuple[str | None, bool]:
        """Return the key without querying the server, and whether its list is outdated.

        The key is None when the server must be queried.
        """
        connection = self._connections.get(McpServer.from_spec(spec, folder).key)
        if connection is None or not connection.tools_digest or connection.is_outdated:
            return None, False
        return f"{connection.server.key}:{connection.tools_digest}", not connection.is_fresh

    def _current_connection(
        self, spec: McpSpec, folder: Path | None, connection: Connection
    ) -> Callable[[], Connection]:
        """Return a function that selects the connection of each call, on the pool's loop.

        It resolves secrets at each call: a renewed token, say in a file, reaches existing agents
        too. The credential scope stays the one of the agent's creation.
        """
        if not any(
            isinstance(value, SecretRef) for value in [*spec.env.values(), *spec.headers.values()]
        ):
            return lambda: connection
        scope = credential_scope.get()
        return lambda: self._get_or_create(McpServer.from_spec(spec, folder, scope))

    def _remote_tool(
        self,
        current: Callable[[], Connection],
        tool: BaseTool,
        prefix: str | None,
        connection_use: _ConnectionUse,
    ) -> BaseTool:
        name = tool.name

        async def call_on_loop(arguments: dict[str, Any]) -> Any:
            connection = current()
            connection_use.switch_to(connection)
            return await connection.call(name, arguments)

        async def call(arguments: dict[str, Any]) -> Any:
            return await self._thread.arun(call_on_loop(arguments))

        return RemoteTool(
            name=f"{prefix}_{name}" if prefix else name,
            description=tool.description,
            args_schema=tool.args_schema,
            call=call,
            response_format="content_and_artifact",
            metadata=tool.metadata,
            handle_tool_error=tool.handle_tool_error,
        )

    def _get_connection(self, server: McpServer) -> Connection:
        connection = self._connections.get(server.key)
        if connection is None:
            connection = self._thread.run(self._aget_or_create(server))
        return connection

    async def _aget_or_create(self, server: McpServer) -> Connection:
        return self._get_or_create(server)

    def _get_or_create(self, server: McpServer) -> Connection:
        """Return a server's connection, on the broker's loop.

        Its session is opened when it is needed.
        """
        if self._upkeep_task is None:
            self._upkeep_task = asyncio.get_running_loop().create_task(self._check_periodically())
        return self._connections.setdefault(server.key, Connection(server, self._notify_status))

    def _notify_status(self, server: McpServer, status: str, reason: str) -> None:
        if self._status_callback is not None:
            self._status_callback(server.name, status, reason)

    # -- upkeep

    async def _check_periodically(self) -> None:
        while True:
            await asyncio.sleep(min(CHECK_INTERVAL_S, self._idle_s / 4))
            now = time.monotonic()
            for key, connection in list(self._connections.items()):
                unused_s = now - connection.last_used_time
                if connection.is_busy:
                    continue
                if unused_s > self._idle_s:
                    await connection.close()
                    if not connection.user_count:
                        del self._connections[key]
                elif connection.user_count and now - connection.last_answer_time > PING_AFTER_S:
                    await connection.check()

    def status(self) -> list[dict[str, Any]]:
        """Return each server's name, users, running calls and openings, and whether it is open."""
        return [
            {
                "server": c.server.name,
                "open": c.is_open,
                "users": c.user_count,
                "calls": c.active_calls,
                "opened": c.open_count,
            }
            for c in list(self._connections.values())
        ]

    async def restart(self, spec: McpSpec, folder: Path | None = None) -> None:
        """Close a server's session; the next call reopens it."""
        await self._thread.arun(self._get_connection(McpServer.from_spec(spec, folder)).close())

    async def aclose(self) -> None:
        """Close every session, and end every server that was started."""
        if self._upkeep_task is None:
            return
        await self._thread.arun(self._close_all())
        self._thread.close()

    async def _close_all(self) -> None:
        if self._upkeep_task is not None:
            self._upkeep_task.cancel()
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
        self._connections.clear()


class CachedKeys:
    """Collect the cached keys of several servers; `has_missing`: one must be queried.

    `has_stale`: a list is outdated.
    """

    def __init__(self, pool: McpConnectionPool) -> None:
        self._pool = pool
        self.has_missing = False
        self.has_stale = False

    def key(self, spec: McpSpec, folder: Path | None) -> str:
        """Return a server's key, empty when it is unknown."""
        key, is_stale = self._pool.cached_key(spec, folder)
        self.has_missing = self.has_missing or key is None
        self.has_stale = self.has_stale or is_stale
        return key or ""


def _is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    is_included = not include or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)
    return is_included and not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)
