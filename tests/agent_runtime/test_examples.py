"""Every example runs; the SSE one over a real socket, with a client that goes away."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from agent_runtime.testing import say

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(p.stem for p in (ROOT / "examples").glob("*.py") if p.stem != "sse_server")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXPECTED = {
    "chain": "4 messages.*16:00",
    "embed": "North.*per.*tokens, 0 USD|North.*tokens, 0 USD",
    "governed": r"tokens.*unauthenticated: .*rate_limited: .*tenant=acme/day=.*of 100000 tokens.*runs_total",
    "graph_node": "is 24|The count",
    "own_graph": "Draft 3 about: the new opening hours.*run_start.*run_end",
    "stopwatch": r"[0-9a-f-]{36} \d+\.\d{3} s.*two years",
}


def test_every_example_is_listed_and_expected() -> None:
    listed = re.findall(r"`(\w+)\.py`", (ROOT / "examples/README.md").read_text())
    assert sorted(listed) == sorted([*PROGRAMS, "sse_server"])
    assert sorted(EXPECTED) == PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
async def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    await load(name).main()
    assert re.search(EXPECTED[name], capsys.readouterr().out, re.DOTALL)


def test_an_example_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "examples/embed.py"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_layer_of_ones_own_is_short() -> None:
    text = (ROOT / "examples/stopwatch.py").read_text()
    layer = text[text.index("class Stopwatch") : text.index("async def main")].strip()
    assert len(layer.splitlines()) < 15


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def request(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def test_sse_streams_text_and_ends_with_the_result(make_agent: Any) -> None:
    agent, _ = make_agent([say("one two three")])
    async with served(load("sse_server").make_app(agent)) as port:
        reader, writer = await request(port, "/ask?q=hi")
        body = (await reader.read()).decode()
        writer.close()
        assert 'event: text\ndata: "one "' in body
        assert '"output": "one two three"' in body
        reader, writer = await request(port, "/ask")
        assert b"400" in await reader.readline()
        writer.close()


async def test_sse_stops_the_agent_when_the_client_goes_away(make_agent: Any) -> None:
    agent, _ = make_agent([say("word " * 5000)], delay_s=0.001)
    async with served(load("sse_server").make_app(agent)) as port:
        reader, writer = await request(port, "/ask?q=hi")
        await reader.readuntil(b"word")
        writer.transport.abort()
        for _ in range(200):
            if agent.callback_handler.events("run_error"):
                break
            await asyncio.sleep(0.01)
    ended = agent.callback_handler.events("run_error")
    assert [e.data["error"] for e in ended] == ["cancelled"]
    assert ended[0].data["usage"]["estimated"] is True
