"""claude-mem #701, obsidian-mcp #100, email-mcp #60: the processes of MCP servers stay behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.mcp_servers import is_alive, until

OTHERS = [pytest.param(how, marks=pytest.mark.integration) for how in ("closes", "ends", "SIGTERM")]
ROOT = Path(__file__).parents[4]
PROGRAM = """
import asyncio, sys, time
from tests.support.mcp_servers import calling, program_tool
from tests.support.providers import template
from agent_runtime import AgentFactory

factory = AgentFactory()
factory.register_model("m", calling(("pid", {}), ("child", {})))
result = factory.create_agent(template(model="m", tools=[program_tool("deaf")])).execute_sync("go")
print(*(message.content[0]["text"] for message in result.messages if message.type == "tool"),
    flush=True)
if sys.argv[1] == "closes":
    asyncio.run(factory.__aexit__(None, None, None))
if sys.argv[1] in ("closes", "ends"):
    sys.exit()
time.sleep(60)
"""


@pytest.mark.parametrize(
    "how",
    [
        "SIGKILL",
        *(
            pytest.param(how, marks=pytest.mark.integration)
            for how in ("closes", "ends", "SIGTERM")
        ),
    ],
)
async def test_no_process_outlives_the_application(how: str) -> None:
    """The server goes on at the end of its input.

    Its child has a session and an empty environment of its own.
    """
    command = [sys.executable, "-c", PROGRAM, how]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    server, child = (int(pid) for pid in (await asyncio.to_thread(process.stdout.readline)).split())
    if how.startswith("SIG"):
        assert is_alive(server)
        assert is_alive(child)
        process.send_signal(getattr(signal, how))
    await asyncio.to_thread(process.wait, 20)
    process.stdout.close()
    assert await until(lambda: not is_alive(server) and not is_alive(child))
