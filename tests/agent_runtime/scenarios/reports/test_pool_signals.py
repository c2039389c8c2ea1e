"""livekit/agents-js #927 and users of celery.

What the processes of a pool have started stays behind.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.mcp_servers import is_alive, until

OTHERS = [pytest.param(how, marks=pytest.mark.integration) for how in ("closes", "SIGTERM")]
ROOT = Path(__file__).parents[4]
PROGRAM = """
import asyncio, os, signal, subprocess, sys
from tests.support.mcp_servers import calling
from tests.support.providers import template
from agent_runtime import AgentFactory
from agent_runtime.pool import AgentInstancePool, AgentTask, PoolConfig

def spawn(is_bare: bool) -> str:
    '''Start a process that outlives the call.'''
    null = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"],
    start_new_session=True,
                               env={} if is_bare else None, stdin=null, stdout=null, stderr=null)
    return f"{process.pid} {os.getpid()}"

async def main():
    async with AgentFactory() as factory, AgentInstancePool(factory, PoolConfig(size=1)) as pool:
        factory.register_model("m", calling(("spawn", {"is_bare": False}), ("spawn",
        {"is_bare": True})))
        factory.register_tool("spawn", spawn)
        factory.register_template(template("t", model="m", tools=["spawn"]))
        result = await pool.run(AgentTask("t", "go"))
        print(*(message.content for message in result.messages if message.type == "tool"),
        flush=True)
        if sys.argv[1] != "closes":
            await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "how",
    [
        "SIGKILL",
        *(pytest.param(how, marks=pytest.mark.integration) for how in ("closes", "SIGTERM")),
    ],
)
async def test_no_grandchild_outlives_the_application(tmp_path: Path, how: str) -> None:
    """Both have a session of their own; the second one's environment is empty."""
    path = tmp_path / "program.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}")
    command = [sys.executable, str(path), how]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    plain, worker, bare, _ = (
        int(pid) for pid in (await asyncio.to_thread(process.stdout.readline)).split()
    )
    if how != "closes":
        assert is_alive(plain)
        assert is_alive(bare)
        process.send_signal(getattr(signal, how))
    await asyncio.to_thread(process.wait, 30)
    process.stdout.close()
    assert await until(lambda: not any(is_alive(pid) for pid in (plain, worker, bare)))
