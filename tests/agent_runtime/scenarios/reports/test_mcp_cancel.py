"""modelcontextprotocol/python-sdk #2507, #1458: a cancelled call goes on in the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.mcp_servers import calling, http_server, program_tool, until
from tests.support.ports import free_port
from tests.support.providers import template

from agent_runtime import AgentFactory
from agent_runtime.chunks import ToolCallChunk
from agent_runtime.errors import CallTimeout


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_the_server_hears_that_nobody_waits_any_more(tmp_path: Path, way: str) -> None:
    log = tmp_path / "log"
    log.touch()
    port = free_port()
    tool = program_tool(env={"MCP_LOG": str(log)})
    if way == "http":
        tool = {"mcp": {"url": f"http://127.0.0.1:{port}/mcp"}}

    def count(line: str) -> int:
        return log.read_text().count(line)

    async def cancelled(factory: AgentFactory) -> None:
        agent = factory.create_agent(template(model="m", tools=[tool]))
        task = asyncio.create_task(agent.execute("go"))
        assert await until(lambda: count("call slow") == 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await until(lambda: count("cancelled slow") == 1)

        stream = agent.execute_stream("go")
        async with stream:
            async for chunk in stream.chunks():
                if isinstance(chunk, ToolCallChunk):
                    assert await until(lambda: count("call slow") == 2)
                    break
        assert await until(lambda: count("cancelled slow") == 2)

        limited = factory.create_agent(
            template("u", model="m", tools=[tool], runtime={"timeout": {"run": "1s"}})
        )
        with pytest.raises(CallTimeout):
            await limited.execute("go")
        assert await until(lambda: count("cancelled slow") == 3)
        assert factory.mcp_broker.status()[0]["opened"] == 1  # and the session is good for others

    async with AgentFactory() as factory:
        factory.register_model("m", calling(("slow", {"seconds": 20})))
        if way == "stdio":
            await cancelled(factory)
        else:
            with http_server(port, {"MCP_LOG": str(log)}):
                await cancelled(factory)


async def test_a_call_that_takes_longer_than_the_server_may_is_cancelled_there(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.touch()
    tool = program_tool(env={"MCP_LOG": str(log)})
    tool["mcp"]["timeout"] = "3s"
    async with AgentFactory() as factory:
        factory.register_model("m", calling(("slow", {"seconds": 20})))
        await asyncio.gather(
            factory.create_agent(template(model="m", tools=[tool])).execute("go"),
            return_exceptions=True,
        )
        assert await until(lambda: "cancelled slow" in log.read_text())
