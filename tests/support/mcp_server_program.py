"""An MCP server that is really one, for tests and benchmarks.

Stdio, or HTTP with a port as its argument.
"""

from __future__ import annotations

import os
import sys
import time

from mcp.server.fastmcp import Context, FastMCP

server = FastMCP(
    "test server",
    log_level="ERROR",
    port=int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdecimal() else 8000,
)


@server.tool()
def echo(text: str) -> str:
    """Answer the text."""
    return text


@server.tool()
def pid() -> str:
    """The server's process."""
    return str(os.getpid())


@server.tool()
def variable(name: str) -> str:
    """A variable of the server's environment."""
    return os.environ.get(name, "")


@server.tool()
def crash() -> str:
    """End the server in the middle of a call."""
    os._exit(9)


@server.tool()
def refuse() -> str:
    """Fail."""
    raise ValueError("not today")


@server.tool()
def sleep(seconds: float) -> str:
    """Answer late."""
    time.sleep(seconds)
    return "late"


@server.tool()
async def learn(name: str, context: Context) -> str:  # type: ignore[type-arg]
    """Have one more tool from now on, and say so."""
    server.add_tool(lambda: f"I am {name}", name=name, description="Learnt.")
    await context.session.send_tool_list_changed()
    return "learnt"


if __name__ == "__main__":
    if "broken" in sys.argv:
        sys.exit("no such database")
    server.run("streamable-http" if len(sys.argv) > 1 and sys.argv[1].isdecimal() else "stdio")
