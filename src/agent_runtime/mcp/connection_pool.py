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
ROUND_S = 5.0
"""How often the broker looks after its connections."""
PING_AFTER_S = 30.0


class _Lease:
    """Count an agent among the users of a server, for as long as one of its tools lives."""

    def __init__(self, connection: Connection) -> None:
        self._counted = [connection]
        connection.users += 1
        weakref.finalize(self, _release, self._counted)

    def move(self, connection: Connection) -> None:
        """Count the agent among the users of another server: its secrets have been renewed."""
        if connection is not self._counted[0]:
            connection.users += 1
            _release(self._counted)
            self._counted[0] = connection


def _release(counted: list[Connection]) -> None:
    counted[0].users -= 1


class McpBroker:
    """Keeps MCP sessions on one loop in its own thread, shared by agents of any loop.

    Args:
        idle_s: a connection that no agent has tools of, or that nobody called, is closed after so
        many seconds.
        on_state: told a server's name, its new state (`open`, `closed`, `failed`, `tools_changed`),
            and why.

    Methods may be called from any thread and any loop.
    """

    def __init__(
        self, *, idle_s: float = 900.0, on_state: Callable[[str, str, str], None] | None = None
    ) -> None:
        self._idle_s = idle_s
        self._told = on_state
        self._thread = LoopThread(name="agent_runtime MCP servers")
        self._connections: dict[str, Connection] = {}
        self._upkeep: asyncio.Task[None] | None = None

    # -- what agents are made of
    # ---------------------------------------------------------------------------

    def tools(
        self,
        spec: McpSpec,
        folder: Path | None,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        prefix: str | None = None,
    ) -> list[BaseTool]:
        """A server's tools, as a template chooses and names them.

        Blocks while the server is opened.

        Raises McpServerFailed, MissingExtra, ConfigurationError for a choice that leaves none.
        """
        connection = self._connection(McpServer.of(spec, folder))
        found = self._thread.run(connection.tools())
        chosen = [tool for tool in found if _chosen(tool.name, include, exclude)]
        if not chosen:
            raise ConfigurationError(
                f"the MCP server '{connection.server.name}' has no tool that include and exclude "
                "leave; it has "
                f"{', '.join(sorted(tool.name for tool in found)) or 'none'}"
            )
        lease = _Lease(connection)
        current = self._current_connection(spec, folder, connection)
        return [self._held(current, tool, prefix, lease) for tool in chosen]

    def key(self, spec: McpSpec, folder: Path | None) -> str:
        """What an agent with this server's tools depends on.

        Who may share it, its secrets, its tool list.

        Blocks while the list is asked for; raises as `tools`.
        """
        connection = self._connection(McpServer.of(spec, folder))
        if not connection.fresh:
            self._thread.run(connection.tools())
        return f"{connection.server.key}:{connection.tools_digest}"

    async def prepare(self, spec: McpSpec, folder: Path | None) -> None:
        """Open the server and ask for its tools, so that `key` and `tools` do not block.

        Raises as `tools`.
        """
        connection = self._connection(McpServer.of(spec, folder))
        if not connection.fresh:
            await self._thread.arun(connection.tools())

    def known_key(self, spec: McpSpec, folder: Path | None) -> tuple[str | None, bool]:
        """`key` without asking the server, None when it must be asked.

        And whether the list it stands for is old.
        """
        connection = self._connections.get(McpServer.of(spec, folder).key)
        if connection is None or not connection.tools_digest or connection.outdated:
            return None, False
        return f"{connection.server.key}:{connection.tools_digest}", not connection.fresh

    def _current_connection(
        self, spec: McpSpec, folder: Path | None, connection: Connection
    ) -> Callable[[], Connection]:
        """Return what gives the connection of each call, on the broker's loop.

        Its secrets as they are by then.

        A token that was renewed, say in a file, reaches the agents that were made with the old one
        too. The credential scope stays the one that the agent was made in.
        """
        if not any(
            isinstance(value, SecretRef) for value in [*spec.env.values(), *spec.headers.values()]
        ):
            return lambda: connection
        scope = credential_scope.get()
        return lambda: self._opened(McpServer.of(spec, folder, scope))

    def _held(
        self, current: Callable[[], Connection], tool: BaseTool, prefix: str | None, lease: _Lease
    ) -> BaseTool:
        name = tool.name

        async def call_there(arguments: dict[str, Any]) -> Any:
            connection = current()
            lease.move(connection)
            return await connection.call(name, arguments)

        async def call(arguments: dict[str, Any]) -> Any:
            return await self._thread.arun(call_there(arguments))

        return RemoteTool(
            name=f"{prefix}_{name}" if prefix else name,
            description=tool.description,
            args_schema=tool.args_schema,
            call=call,
            response_format="content_and_artifact",
            metadata=tool.metadata,
            handle_tool_error=tool.handle_tool_error,
        )

    def _connection(self, server: McpServer) -> Connection:
        connection = self._connections.get(server.key)
        if connection is None:
            connection = self._thread.run(self._aopened(server))
        return connection

    async def _aopened(self, server: McpServer) -> Connection:
        return self._opened(server)

    def _opened(self, server: McpServer) -> Connection:
        """Return a server's connection, on the broker's loop.

        Its session is opened when it is needed.
        """
        if self._upkeep is None:
            self._upkeep = asyncio.get_running_loop().create_task(self._look_after())
        return self._connections.setdefault(server.key, Connection(server, self._on_state))

    def _on_state(self, server: McpServer, state: str, why: str) -> None:
        if self._told is not None:
            self._told(server.name, state, why)

    # -- upkeep
    # --------------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(min(ROUND_S, self._idle_s / 4))
            now = time.monotonic()
            for key, connection in list(self._connections.items()):
                unused_s = now - connection.last_used_s
                if connection.busy:
                    continue
                if unused_s > self._idle_s:
                    await connection.close()
                    if not connection.users:
                        del self._connections[key]
                elif connection.users and now - connection.last_answer_s > PING_AFTER_S:
                    await connection.check()

    def status(self) -> list[dict[str, Any]]:
        """The servers.

        Name, whether a session is open, agents that have tools of it, calls under way, openings.
        """
        return [
            {
                "server": c.server.name,
                "open": c.is_open,
                "users": c.users,
                "calls": c.calls,
                "opened": c.opened,
            }
            for c in list(self._connections.values())
        ]

    async def restart(self, spec: McpSpec, folder: Path | None = None) -> None:
        """End a server's session; the next call opens it anew."""
        await self._thread.arun(self._connection(McpServer.of(spec, folder)).close())

    async def aclose(self) -> None:
        """Close every session, and end every server that was started."""
        if self._upkeep is None:
            return
        await self._thread.arun(self._close_all())
        self._thread.close()

    async def _close_all(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
        self._connections.clear()


class KnownKeys:
    """Gathers `known_key` of several servers.

    `unknown` and `aged` say whether one must be asked, or is old.
    """

    def __init__(self, broker: McpBroker) -> None:
        self._broker = broker
        self.unknown = False
        self.aged = False

    def key(self, spec: McpSpec, folder: Path | None) -> str:
        """A server's key, empty when it is not known."""
        found, aged = self._broker.known_key(spec, folder)
        self.unknown = self.unknown or found is None
        self.aged = self.aged or aged
        return found or ""


def _chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    wanted = not include or any(fnmatch.fnmatchcase(name, each) for each in include)
    return wanted and not any(fnmatch.fnmatchcase(name, each) for each in exclude)
