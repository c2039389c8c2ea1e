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

from agent_runtime import parse_template
from agent_runtime.testing import ScriptedChatModel, say

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(p.stem for p in (ROOT / "examples").glob("*.py") if p.stem != "sse_server")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        f"examples_{name}", ROOT / "examples" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXPECTED = {
    "chain": "4 messages.*16:00",
    "embed": "North.*per.*tokens, 0 USD|North.*tokens, 0 USD",
    "governed": r"tokens.*unauthenticated: .*rate_limited: .*tenant=acme/day=.*of 100000 "
    r"tokens.*runs_total",
    "graph_node": "is 24|The count",
    "own_graph": "Draft 3 about: the new opening hours.*run_start.*run_end",
    "stopwatch": r"[0-9a-f-]{36} \d+\.\d{3} s.*two years",
}


def test_every_example_is_listed_and_expected() -> None:
    listed = re.findall(r"`(\w+)\.py`", (ROOT / "examples/README.md").read_text())
    assert sorted(listed) == sorted([*PROGRAMS, "sse_server"])
    assert sorted(EXPECTED) == PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
async def test_an_example_runs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    await load(name).main()
    assert re.search(EXPECTED[name], capsys.readouterr().out, re.DOTALL)


def test_an_example_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "examples/embed.py"], capture_output=True, text=True, cwd=ROOT, check=False
    )
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


async def request(port: int, path: str, method: str = "GET", **headers: str) -> tuple[Any, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
    return reader, writer


async def answer(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    reader, writer = await request(port, path, method, **headers)
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split(" ")[1]), body


def sse_app(text: str, delay_s: float = 0.0) -> Any:
    module = load("sse_server")
    factory = module.make_factory()
    factory.register_model("m", ScriptedChatModel(script=[say(text)], delay_s=delay_s))
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"
    factory.register_template(parse_template(head + "spec: {model: m}\n"))
    return module.make_app(factory, "t")


def last_id(body: str) -> str:
    ids: list[str] = re.findall(r"^id: (.*?)\r?$", body, re.MULTILINE)
    return ids[-1]


def ids_and_texts(body: str) -> tuple[list[int], str]:
    texts = re.findall(r'event: llm.new_token\ndata: .*?"text": "(.*?)"', body)
    return [int(n) for n in re.findall(r"^id: .*:(\d+)\r?$", body, re.MULTILINE)], "".join(texts)


async def test_sse_readers_come_back_where_they_were_and_the_run_goes_on() -> None:
    words = " ".join(f"w{n}" for n in range(300))
    async with served(sse_app(words, delay_s=0.002)) as port:
        _, started = await answer(port, "/runs?q=hi", "POST")
        path = f"/runs/{re.findall(chr(34) + '([0-9a-f-]{36})', started)[0]}/events"
        reader, writer = await request(port, path)
        seen = (await reader.readuntil(b"w20")).decode()
        writer.transport.abort()  # the connection is lost in the middle
        ids, _ = ids_and_texts(seen)
        status, rest = await answer(port, path, last_event_id=last_id(seen))
        more, _ = ids_and_texts(rest)
        assert (status, more[0]) == (200, ids[-1] + 1)
        assert [*ids, *more] == list(range(1, more[-1] + 1))
        assert rest.rstrip("\r\n0").rstrip().rpartition("event: ")[2].startswith("run.end")
        assert (await answer(port, path, last_event_id=last_id(rest)))[0] == 204
        _, whole = await answer(port, path)
        assert ids_and_texts(whole)[1] == words


async def test_sse_a_run_is_stopped_by_whoever_asks_and_bad_requests_are_answered() -> None:
    async with served(sse_app("word " * 5000, delay_s=0.001)) as port:
        _, started = await answer(port, "/runs?q=hi", "POST")
        run = f"/runs/{re.findall(chr(34) + '([0-9a-f-]{36})', started)[0]}"
        reader, writer = await request(port, f"{run}/events")
        await reader.readuntil(b"word")
        assert (await answer(port, run, "DELETE"))[0] == 202
        end = (await asyncio.wait_for(reader.read(), 10)).decode()
        assert '"error": "cancelled"' in end
        writer.close()
        assert (await answer(port, run, "DELETE"))[0] == 404
        assert (await answer(port, "/runs", "POST"))[0] == 400
        assert (await answer(port, "/runs/other/events"))[0] == 404
        for unknown in ("x", "-1", "9" * 40):
            status, body = await answer(port, f"{run}/events", last_event_id=unknown)
            assert (status, "event: bus.gap" in body, "event: run.start" in body) == (
                200,
                True,
                True,
            )
        assert (await answer(port, f"{run}/events", last_event_id="9" * 400))[0] == 400
