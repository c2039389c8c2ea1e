"""An application with a pool, which is killed: prints the processes below it, then waits."""

from __future__ import annotations

import asyncio

from agent_runtime import AgentFactory
from agent_runtime.pool import AgentInstancePool, AgentTask
from agent_runtime.testing import ScriptedChatModel
from tests.support.pools import template
from tests.support.tools_that_misbehave import TOOLS, script


async def main() -> None:
    factory = AgentFactory()
    factory.register_model("scripted", lambda **_: ScriptedChatModel(script=script))
    for name, tool in TOOLS.items():
        factory.register_tool(name, tool)
    factory.register_template(template())
    async with AgentInstancePool(factory) as pool:
        made = [await pool.create_instance("worker") for _ in range(4)]
        child = (await pool.submit_task(made[0], AgentTask("worker", "child x"))).output.rpartition(
            " "
        )[2]
        pids = [pool.get_instance_status(each).pid for each in made]
        # Busy in a thread, busy in its event loop, stopped.
        texts = ["hog x", "misbehave loop", "misbehave stop"]
        _running = [
            pool.submit_task(name, AgentTask("worker", text))
            for name, text in zip(made[1:], texts, strict=True)
        ]
        await asyncio.sleep(0.5)
        print(*pids, child, flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main())
