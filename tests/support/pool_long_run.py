"""Many tasks over a few instances, with deaths among them.

Memory, descriptors, tasks and processes at the end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from agent_runtime import AgentFactory
from agent_runtime.errors import AgentRuntimeError
from agent_runtime.pool import AgentInstancePool, AgentTask, PoolConfig
from agent_runtime.pool.process.process_tree import process_trees, rss_mb
from agent_runtime.testing import ScriptedChatModel
from tests.support.pools import template
from tests.support.tools_that_misbehave import TOOLS, script


async def long_run(
    tasks: int, *, size: int = 6, kills: int = 0, concurrent: int = 12
) -> dict[str, Any]:
    """Run `tasks` tasks; `kills` of them end their process.

    Returns what was left, and how memory went.
    """
    factory = AgentFactory()
    model = ScriptedChatModel(script=script)
    factory.register_model("scripted", lambda **_: model)
    for name, tool in TOOLS.items():
        factory.register_tool(name, tool)
    factory.register_template(template())
    dice = random.Random(5)
    outcomes = Counter[str]()
    samples = list[dict[str, float]]()
    deadly = set(dice.sample(range(tasks), kills))
    numbers = iter(range(tasks))

    async def worker(pool: AgentInstancePool) -> None:
        for number in numbers:
            question = "misbehave kill" if number in deadly else f"echo {number}"
            try:
                result = await pool.run(AgentTask("worker", question, timeout_s=30))
                outcomes["right" if result.output == f"it said {number}" else "wrong"] += 1
            except AgentRuntimeError as error:
                outcomes[error.code] += 1
            model.received_messages.clear()  # the scripted model keeps what it was asked
            if number % max(1, tasks // 5) == 0:
                samples.append(sample())

    async with factory, AgentInstancePool(factory, PoolConfig(size=size)) as pool:
        for _ in range(size):
            await pool.create_instance("worker")
        before = sample()
        began = time.perf_counter()
        await asyncio.gather(*(worker(pool) for _ in range(concurrent)))
        took_s = time.perf_counter() - began
        await asyncio.sleep(0.5)
        after = sample()
        workers = [
            round(rss_mb(each["pid"]))
            for each in pool.get_pool_status()["instances"]
            if each["pid"]
        ]
    return {
        "tasks": tasks,
        "outcomes": dict(outcomes),
        "seconds": round(took_s, 1),
        "descriptors": (int(before["fds"]), int(after["fds"])),
        "asyncio_tasks": (int(before["tasks"]), int(after["tasks"])),
        "rss_mb": [round(each["rss_mb"]) for each in (before, *samples, after)],
        "worker_rss_mb": workers,
        "zombies": zombies(),
        "left_in_the_tree": len(process_trees([os.getpid()])[os.getpid()]) - 1,
    }


def sample() -> dict[str, float]:
    """Descriptors, tasks and memory of this process now."""
    gc.collect()
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "rss_mb": rss_mb(os.getpid()),
    }


def zombies() -> int:
    """Processes in this process's session that have ended and that nobody has waited for."""
    found = 0
    session = os.getsid(0)
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found += fields[0] == "Z" and int(fields[3]) == session
    return found
