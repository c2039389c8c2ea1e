"""MCP servers, held.

Who shares one, what a crash does, when a list is asked for again, when a server ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from tests.support.ports import free_port

from agent_runtime import AgentFactory
from agent_runtime.errors import ConfigurationError, McpServerFailed
from agent_runtime.mcp import McpConnectionPool, credential_scope
from agent_runtime.template import AgentTemplate
from agent_runtime.template.parts_spec import McpSpec
from agent_runtime.testing import ScriptedChatModel, say

PROGRAM = str(Path(__file__).parents[2] / "support" / "mcp_server_program.py")
SPEC = McpSpec(command=sys.executable, args=[PROGRAM], timeout=20.0)


@pytest.fixture
async def broker() -> AsyncIterator[McpConnectionPool]:
    made = McpConnectionPool(idle_s=60)
    yield made
    await made.aclose()


def named(tools: list[BaseTool], name: str) -> Any:
    return next(tool for tool in tools if tool.name == name)


async def called(tools: list[BaseTool], tool: str, **arguments: Any) -> str:
    blocks: Any = await named(tools, tool).ainvoke(arguments)
    return "".join(block["text"] for block in blocks)


async def tools_of(
    broker: McpConnectionPool, spec: McpSpec = SPEC, **choice: Any
) -> list[BaseTool]:
    await broker.prepare(spec, None)
    return broker.tools(spec, None, **choice)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ended(pid: int) -> bool:
    for _ in range(100):
        if not running(pid):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_one_server_for_all_that_may_share_it(broker: McpConnectionPool) -> None:
    first, second = await asyncio.gather(tools_of(broker), tools_of(broker))
    assert await called(first, "pid") == await called(second, "pid")
    assert [row["opened"] for row in broker.status()] == [1]
    assert broker.status()[0]["users"] == 2


async def test_a_program_is_never_shared_across_credential_scopes(
    broker: McpConnectionPool,
) -> None:
    pids = set()
    for scope in ("acme:a", "acme:b", "other:a"):
        token = credential_scope.set(scope)
        tools = await tools_of(broker)
        credential_scope.reset(token)
        pids.add(await called(tools, "pid"))
    assert len(pids) == 3


async def test_another_secret_is_another_server(
    broker: McpConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = McpSpec.model_validate(
        {
            "command": sys.executable,
            "args": [PROGRAM],
            "env": {"KEY": {"from_env": "THE_KEY"}},
            "timeout": 20.0,
        }
    )
    monkeypatch.setenv("THE_KEY", "dummy-one")
    before = await tools_of(broker, spec)
    assert await called(before, "variable", name="KEY") == "dummy-one"
    monkeypatch.setenv("THE_KEY", "dummy-two")
    after = await tools_of(broker, spec)
    assert await called(after, "variable", name="KEY") == "dummy-two"
    assert broker.cached_key(spec, None)[0] is not None


async def test_a_crash_fails_its_own_call_and_harms_no_other_server(
    broker: McpConnectionPool,
) -> None:
    other = McpSpec(command=sys.executable, args=[PROGRAM, "other"], timeout=20.0)
    mine = await tools_of(broker)
    theirs = await tools_of(broker, other)
    waiting = asyncio.create_task(called(theirs, "sleep", seconds=0.5))
    began = time.monotonic()
    with pytest.raises(McpServerFailed, match="its session ended during 'crash'"):
        await called(mine, "crash")
    assert time.monotonic() - began < 5
    assert await waiting == "late"
    assert await called(mine, "echo", text="again") == "again"  # the same tools, a new server
    assert {row["server"]: row["opened"] for row in broker.status()} == {
        mine_name(SPEC): 2,
        mine_name(other): 1,
    }


def mine_name(spec: McpSpec) -> str:
    return " ".join(
        [os.path.basename(sys.executable), *(os.path.basename(arg) for arg in spec.args[:2])]
    )


async def test_a_server_killed_between_calls_is_opened_again(broker: McpConnectionPool) -> None:
    tools = await tools_of(broker)
    pid = int(await called(tools, "pid"))
    os.kill(pid, signal.SIGKILL)
    assert await ended(pid)
    await asyncio.sleep(0.2)
    assert int(await called(tools, "pid")) != pid


async def test_a_server_that_does_not_start_says_why_and_is_not_started_in_a_loop(
    broker: McpConnectionPool,
) -> None:
    spec = McpSpec(command=sys.executable, args=[PROGRAM, "broken"], timeout=20.0)
    with pytest.raises(McpServerFailed, match="no such database"):
        await broker.prepare(spec, None)
    with pytest.raises(McpServerFailed, match="tried again in"):
        await broker.prepare(spec, None)
    with pytest.raises(McpServerFailed, match="No such file"):
        await broker.prepare(McpSpec(command="no-such-program-at-all"), None)
    with pytest.raises(ConfigurationError, match="no folder"):
        await broker.prepare(McpSpec(command=sys.executable, cwd="no/such/folder"), None)


async def test_a_tools_own_failure_is_an_answer(broker: McpConnectionPool) -> None:
    tools = await tools_of(broker)
    answer = await named(tools, "refuse").ainvoke(
        {"type": "tool_call", "id": "1", "name": "refuse", "args": {}}
    )
    assert answer.status == "error"
    assert "not today" in str(answer.content)


async def test_a_call_that_takes_too_long_ends(broker: McpConnectionPool) -> None:
    spec = McpSpec(command=sys.executable, args=[PROGRAM, "slow"], timeout=3.0)
    tools = await tools_of(broker, spec)
    with pytest.raises(McpServerFailed, match="did not answer within 3 s"):
        await called(tools, "sleep", seconds=30)


async def test_a_list_that_changed_is_asked_for_again(broker: McpConnectionPool) -> None:
    tools = await tools_of(broker)
    before = broker.cached_key(SPEC, None)
    await called(tools, "learn", name="dance")
    for _ in range(50):
        if broker.cached_key(SPEC, None)[0] is None:
            break
        await asyncio.sleep(0.02)
    assert broker.cached_key(SPEC, None)[0] is None  # told: it is not right any more
    assert await called(await tools_of(broker), "dance") == "I am dance"
    assert broker.cached_key(SPEC, None)[0] not in (before[0], None)


async def test_include_exclude_and_a_prefix_choose_and_name_tools(
    broker: McpConnectionPool,
) -> None:
    tools = await tools_of(broker, include=["e*", "pid"], exclude=["echo"], prefix="remote")
    assert [tool.name for tool in tools] == ["remote_pid"]
    with pytest.raises(
        ConfigurationError, match="has no tool that include and exclude leave; it has crash, echo"
    ):
        await tools_of(broker, include=["nothing"])


async def test_a_server_that_nobody_uses_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = McpConnectionPool(idle_s=0.4)
    tools = await tools_of(broker)
    pid = int(await called(tools, "pid"))
    tools.clear()
    gc.collect()
    assert await ended(pid)
    await asyncio.sleep(0.2)
    assert broker.status() == []
    await broker.aclose()


async def test_a_server_in_use_is_not_ended_and_comes_back_after_it_was_idle() -> None:
    broker = McpConnectionPool(idle_s=0.4)
    tools = await tools_of(broker)
    assert (
        await called(tools, "sleep", seconds=1.5) == "late"
    )  # longer than idle: a call is under way
    pid = int(await called(tools, "pid"))
    assert await ended(pid)
    assert int(await called(tools, "pid")) != pid
    await broker.aclose()


async def test_closing_ends_every_server(broker: McpConnectionPool) -> None:
    pid = int(await called(await tools_of(broker), "pid"))
    await broker.aclose()
    assert await ended(pid)


async def test_a_server_that_never_gets_ready_is_given_up(broker: McpConnectionPool) -> None:
    spec = McpSpec(command=sys.executable, args=["-c", "import time; time.sleep(600)"], timeout=0.5)
    with pytest.raises(McpServerFailed, match="not ready within"):
        await asyncio.wait_for(broker.prepare(spec, None), 10)


async def test_a_restart_while_it_opens_harms_nobody(broker: McpConnectionPool) -> None:
    first = asyncio.create_task(broker.prepare(SPEC, None))
    await asyncio.sleep(0.1)
    await broker.restart(SPEC)
    with pytest.raises(McpServerFailed, match="it was closed"):
        await first
    other = McpSpec(command=sys.executable, args=[PROGRAM, "other"], timeout=20.0)
    found = await asyncio.wait_for(asyncio.gather(tools_of(broker), tools_of(broker, other)), 15)
    assert [await called(tools, "echo", text="x") for tools in found] == ["x", "x"]


async def test_a_server_that_hangs_is_replaced(broker: McpConnectionPool) -> None:
    spec = McpSpec(command=sys.executable, args=[PROGRAM, "hangs"], timeout=2.5)
    tools = await tools_of(broker, spec)
    pid = int(await called(tools, "pid"))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(McpServerFailed, match=r"did not answer within 2\.5 s"):
        await called(tools, "echo", text="x")
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(McpServerFailed):
                assert int(await called(tools, "pid")) != pid
                break
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def serving(port: int) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, PROGRAM, str(port)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp"
    process.kill()
    process.wait()


@pytest.fixture
def http_url() -> Iterator[str]:
    with serving(free_port()) as url:
        yield url


async def test_a_server_over_http_is_shared_by_those_who_send_the_same(
    broker: McpConnectionPool, http_url: str
) -> None:
    spec = McpSpec(url=http_url, headers={"x-tenant": "acme"}, timeout=20.0)
    other = McpSpec(url=http_url, headers={"x-tenant": "other"}, timeout=20.0)
    token = credential_scope.set("acme:a")
    tools = await tools_of(broker, spec)
    credential_scope.reset(token)
    assert await called(tools, "echo", text="over http") == "over http"
    await tools_of(broker, spec)
    await tools_of(broker, other)
    assert sorted(row["opened"] for row in broker.status()) == [1, 1]


async def test_an_http_server_that_was_restarted_is_opened_again(broker: McpConnectionPool) -> None:
    port = free_port()
    spec = McpSpec(url=f"http://127.0.0.1:{port}/mcp", timeout=10.0)
    with serving(port):
        tools = await tools_of(broker, spec)
        assert await called(tools, "echo", text="one") == "one"
    with serving(port):
        assert await called(tools, "echo", text="two") == "two"
        assert await called(tools, "echo", text="three") == "three"


async def test_a_template_names_a_server() -> None:
    template = AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "with-mcp"},
            "spec": {
                "model": "scripted",
                "tools": [
                    {
                        "mcp": {"command": sys.executable, "args": [PROGRAM], "timeout": "20s"},
                        "include": ["echo"],
                    }
                ],
            },
        }
    )
    async with AgentFactory() as factory:
        factory.register_model(
            "scripted",
            ScriptedChatModel(script=[say("", ("echo", {"text": "hello"})), say("done")]),
        )
        agent = factory.create_agent(template)
        result = await agent.execute("go")
        assert result.output == "done"
        assert result.usage.tool_calls == 1
        assert "hello" in str(result.messages[-2].content)
        assert factory.create_agent(template).agent is agent.agent  # kept: nothing has changed
        states = [event.data["status"] for event in factory.event_bus.retained("mcp.server")]
        assert states == ["open"]
