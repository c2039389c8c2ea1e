"""modelcontextprotocol/rust-sdk #733, typescript-sdk PR #1402.

A server was redeployed, or died, between two calls.

A server answers 404 to a session that it does not know: it has run nothing, and the protocol says
to open another session and send the request again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.support.mcp_servers import calling, http_server, is_alive, program_tool, until
from tests.support.ports import free_port
from tests.support.providers import template

from agent_runtime import AgentFactory


async def test_a_call_after_a_redeploy_just_works() -> None:
    port = free_port()
    tool = {"mcp": {"url": f"http://127.0.0.1:{port}/mcp", "timeout": "10s"}, "include": ["echo"]}
    async with AgentFactory() as factory:
        factory.register_model("m", calling(("echo", {"text": "x"})))
        with http_server(port):
            agent = factory.create_agent(template(model="m", tools=[tool]))
            assert (await agent.execute("go")).output == "done"
        with http_server(port):
            results = await asyncio.gather(*(agent.execute("go") for _ in range(5)))
        assert [result.output for result in results] == ["done"] * 5
        assert factory.mcp_broker.status()[0]["opened"] == 2


async def test_a_call_right_after_the_program_died_is_sent_to_the_next_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with AgentFactory() as factory:
        factory.register_model("m", calling(("pid", {})))
        tool = program_tool(env={"MCP_LOG": str(log)})
        agent = factory.create_agent(template(model="m", tools=[tool]))
        for round_number in range(1, 4):
            result = await agent.execute("go")
            pid = int(result.messages[-2].content[0]["text"])  # type: ignore[index]
            assert log.read_text().count("call pid") == round_number  # no call ran twice
            os.kill(pid, signal.SIGKILL)
            assert await until(lambda: not is_alive(pid))  # noqa: B023


async def test_a_call_that_the_program_has_read_is_not_sent_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with AgentFactory() as factory:
        factory.register_model("m", calling(("slow", {"seconds": 30})))
        factory.register_model("n", calling(("pid", {})))
        tool = program_tool(env={"MCP_LOG": str(log)})
        pid_agent = factory.create_agent(template("n", model="n", tools=[tool]))
        pid = int((await pid_agent.execute("go")).messages[-2].content[0]["text"])  # type: ignore[index]
        task = asyncio.create_task(
            factory.create_agent(template(model="m", tools=[tool])).execute("go")
        )
        assert await until(lambda: "call slow" in log.read_text())
        os.kill(pid, signal.SIGKILL)
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert "its session ended during 'slow'" in str(outcome)
        assert log.read_text().count("call slow") == 1
