"""langchain-mcp-adapters #235, adk-python #2221.

The token in the headers expires, and a side-car renews its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.mcp_servers import calling, http_server, program_tool
from tests.support.ports import free_port
from tests.support.providers import template

from agent_runtime import AgentFactory
from agent_runtime.pool import AgentSessionPool


async def test_a_renewed_token_reaches_every_agent(tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    header = tmp_path / "header"
    header.touch(mode=0o600)

    def renew(token: str) -> None:
        expected.write_text(token)
        header.write_text(f"Bearer {token}")

    renew("dummy-token-one")
    port = free_port()
    mcp: dict[str, Any] = {
        "url": f"http://127.0.0.1:{port}/mcp",
        "headers": {"authorization": {"from_file": str(header)}},
    }
    with http_server(port, {"MCP_TOKEN_FILE": str(expected)}):
        async with AgentFactory() as factory, AgentSessionPool(factory) as pool:
            factory.register_model("m", calling(("echo", {"text": "x"})))
            spec = template(model="m", tools=[{"mcp": mcp, "include": ["echo"]}])
            factory.register_template(spec)
            executor = factory.create_agent(spec)

            async def warm() -> str:
                async with pool.acquire("acme:web:chat", "t") as context:
                    return str((await context.agent.execute("go")).output)

            for token in ("dummy-token-one", "dummy-token-two", "dummy-token-three"):
                renew(token)
                assert (await executor.execute("go")).output == "done"
                assert await warm() == "done"
                assert (await factory.create_agent(spec).execute("go")).output == "done"


async def test_a_renewed_secret_of_a_program_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = program_tool()
    tool["mcp"]["env"] = {"MCP_LOG": {"from_env": "THE_LOG"}}
    async with AgentFactory() as factory:
        factory.register_model("m", calling(("pid", {})))
        monkeypatch.setenv("THE_LOG", str(tmp_path / "one"))
        executor = factory.create_agent(template(model="m", tools=[tool]))
        await executor.execute("go")
        monkeypatch.setenv("THE_LOG", str(tmp_path / "two"))
        await executor.execute("go")
    assert [(tmp_path / name).read_text() for name in ("one", "two")] == ["call pid\n"] * 2
