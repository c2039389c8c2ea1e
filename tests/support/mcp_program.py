"""An MCP server for tests, in plain JSON-RPC: over stdio, or over HTTP with `--port N`.

Environment: `MCP_LOG` names a file that gets a line for each call and each cancelled call;
`MCP_TOKEN_FILE` one with the token that HTTP requests must bring. `deaf` as an argument: the end of
its input does not end it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mcp import McpError, types
from mcp.server.lowlevel import Server

ARGS = sys.argv[1:]
EMPTY: dict[str, Any] = {"type": "object", "properties": {}}
TEXT: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
}
SECONDS: dict[str, Any] = {
    "type": "object",
    "properties": {"seconds": {"type": "number"}},
    "required": ["seconds"],
}
WORDS: dict[str, Any] = {
    "type": "object",
    "properties": {
        name: {"type": "string"}
        for name in (
            "name",
            "tool",
            "config",
            "runtime",
            "run_manager",
            "self",
            "arguments",
            "call",
        )
    },
}
TOOLS = {
    "pid": EMPTY, "child": EMPTY, "echo": TEXT, "slow": SECONDS, "words": WORDS, "resource": EMPTY,
    "nothing": EMPTY,
    "structured_only": EMPTY, "structured_error": EMPTY, "coded_error": EMPTY, "spoken": EMPTY,
    "refused": EMPTY,
}  # fmt: skip
RESOURCE = types.TextResourceContents(
    uri="file:///a.txt",  # type: ignore[arg-type]
    text="the resource's text",
    mimeType="text/plain",
)
ANSWERS: dict[str, Any] = {
    "structured_only": types.CallToolResult(
        content=[], structuredContent={"rows": [{"region": "North", "total": 41}]}
    ),
    "structured_error": types.CallToolResult(
        content=[], structuredContent={"code": "RATE_LIMITED", "retry_after": 30}, isError=True
    ),
    "coded_error": types.CallToolResult(
        content=[types.TextContent(type="text", text="slow down")],
        structuredContent={"code": "RATE_LIMITED", "retry_after": 30},
        isError=True,
    ),
    "spoken": [types.AudioContent(type="audio", data="AAAA", mimeType="audio/wav")],
    "resource": [types.EmbeddedResource(type="resource", resource=RESOURCE)],
    "nothing": [],
}
CHILD = "import time; time.sleep(120)"
server: Server[Any, Any] = Server("test server")


def log(line: str) -> None:
    if path := os.environ.get("MCP_LOG"):
        with open(path, "a") as file:
            file.write(line + "\n")


@server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]
async def list_tools() -> list[types.Tool]:
    return [types.Tool(name=name, inputSchema=schema) for name, schema in TOOLS.items()]


@server.call_tool(validate_input=False)  # type: ignore[untyped-decorator]
async def call_tool(name: str, arguments: dict[str, Any]) -> Any:
    log(f"call {name}")
    if name in ANSWERS:
        return ANSWERS[name]
    text = str(sorted(arguments.items())) if name == "words" else arguments.get("text", name)
    if name == "pid":
        text = str(os.getpid())
    if name == "child":
        null = subprocess.DEVNULL
        text = str(
            subprocess.Popen(
                [sys.executable, "-c", CHILD],
                stdin=null,
                stdout=null,
                stderr=null,
                env={},
                start_new_session=True,
            ).pid
        )
    if name == "slow":
        try:
            await asyncio.sleep(arguments["seconds"])
        except asyncio.CancelledError:
            log("cancelled slow")
            raise
    return [types.TextContent(type="text", text=text)]


answer_call = server.request_handlers[types.CallToolRequest]


async def refuse_or_answer(request: types.CallToolRequest) -> types.ServerResult:
    if request.params.name == "refused":
        raise McpError(
            types.ErrorData(code=-32602, message="no such region", data={"known": ["North"]})
        )
    return await answer_call(request)


server.request_handlers[types.CallToolRequest] = refuse_or_answer


async def over_stdio() -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def over_http(port: int) -> None:
    import uvicorn
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount

    manager = StreamableHTTPSessionManager(app=server)
    token_file = os.environ.get("MCP_TOKEN_FILE")

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        sent = dict(scope["headers"]).get(b"authorization", b"").decode()
        if token_file and sent != f"Bearer {Path(token_file).read_text()}":
            await PlainTextResponse("token expired", 401)(scope, receive, send)
            return
        await manager.handle_request(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with manager.run():
            yield

    app = Starlette(routes=[Mount("/mcp", app=endpoint)], lifespan=lifespan)
    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    if "--port" in ARGS:
        over_http(int(ARGS[ARGS.index("--port") + 1]))
    else:
        asyncio.run(over_stdio())
    if "deaf" in ARGS:
        time.sleep(300)
