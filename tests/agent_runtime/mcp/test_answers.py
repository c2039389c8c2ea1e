"""Answers of an MCP server that the client library drops in silence.

Its caller hears of them at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool

from agent_runtime.errors import McpServerFailed
from agent_runtime.mcp import McpConnectionPool
from agent_runtime.template.parts_spec import McpSpec

TOOLS = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("odd", "good")]}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "t", "version": "1"},
}
GOOD = {"content": [{"type": "text", "text": "fine"}]}
STDIO = """
import json, sys
answers, odd = json.loads(sys.argv[1]), sys.argv[2]
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    name = request["params"].get("name",
    request["method"]) if "params" in request else request["method"]
    if name == "odd":
        print(odd.replace("ID", str(request["id"])), flush=True)
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answers[name]}),
        flush=True)
"""
ANSWERS = {"initialize": HELLO, "tools/list": TOOLS, "good": GOOD, "ping": {}}
ODD = {
    "neither": '{"jsonrpc": "2.0", "id": ID}',
    "text for an id": '{"jsonrpc": "2.0", "id": "ID"}',
    "a null result": '{"jsonrpc": "2.0", "id": ID, "result": null}',
    "a list as result": '{"jsonrpc": "2.0", "id": ID, "result": []}',
    "an error without a code": '{"jsonrpc": "2.0", "id": ID, "error": {"message": "x"}}',
    "a null error": '{"jsonrpc": "2.0", "id": ID, "error": null}',
    "another version": '{"jsonrpc": "1.0", "id": ID, "result": {}}',
    "content of another shape": '{"jsonrpc": "2.0", "id": ID, "result": {"content": "text"}}',
}


@pytest.fixture
async def broker() -> AsyncIterator[McpConnectionPool]:
    broker = McpConnectionPool()
    yield broker
    await broker.aclose()


async def call(tools: list[BaseTool], name: str) -> Any:
    return await asyncio.wait_for(next(tool for tool in tools if tool.name == name).ainvoke({}), 8)


async def check(broker: McpConnectionPool, spec: McpSpec) -> None:
    await broker.prepare(spec, None)
    tools = broker.tools(spec, None)
    with pytest.raises(McpServerFailed, match="'odd': the server's answer cannot be read"):
        await call(tools, "odd")
    assert (await call(tools, "good"))[0]["text"] == "fine"
    assert broker.status()[0]["opened"] == 1  # and the session goes on


@pytest.mark.parametrize("odd", list(ODD))
async def test_a_programs_unreadable_answer_is_an_error_at_once(
    broker: McpConnectionPool, odd: str
) -> None:
    await check(
        broker, McpSpec(command=sys.executable, args=["-c", STDIO, json.dumps(ANSWERS), ODD[odd]])
    )


async def test_lines_that_are_no_messages_end_no_call(broker: McpConnectionPool) -> None:
    odd = b'a line of a log\\n{"level": "info"}\\n{"jsonrpc": "2.0", "id": 99}\\n'.decode(
        "unicode_escape"
    )
    odd += json.dumps({"jsonrpc": "2.0", "id": 0, "result": GOOD}).replace('"id": 0', '"id": ID')
    spec = McpSpec(command=sys.executable, args=["-c", STDIO, json.dumps(ANSWERS), odd])
    await broker.prepare(spec, None)
    assert (await call(broker.tools(spec, None), "odd"))[0]["text"] == "fine"


@contextmanager
def http(odd: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name = (request.get("params") or {}).get("name", request["method"])
            body = json.dumps(
                {"jsonrpc": "2.0", "id": request.get("id"), "result": ANSWERS.get(name)}
            )
            if name == "odd":
                body = odd.replace("ID", str(request["id"]))
            status, data = (200, body.encode()) if "id" in request else (202, b"")
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.send_response(405)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("odd", [*ODD, "no JSON"])
async def test_an_unreadable_answer_over_http_is_an_error_at_once(
    broker: McpConnectionPool, odd: str
) -> None:
    with http(ODD.get(odd, "<html>")) as url:
        await check(broker, McpSpec(url=url))


def test_the_supervisor_is_a_script_of_its_own() -> None:
    from agent_runtime.mcp import program

    assert (
        "agent_runtime" not in Path(program.SUPERVISOR).read_text().split('"""')[2]
    )  # it imports none of the package
