"""Everything that a process can do wrong, beside healthy neighbours.

Its own call fails in time, nothing is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.tools_that_misbehave import Unpicklable

from agent_runtime import AgentFactory
from agent_runtime.errors import (
    AgentFailed,
    CallTimeout,
    OutputOverflow,
    TransferFailed,
    WorkerDied,
    WorkerOutOfMemory,
    WorkerStalled,
)
from agent_runtime.pool import AgentInstancePool, AgentTask, PoolConfig
from agent_runtime.pool.process.process_tree import pids_with_environment, process_trees
from agent_runtime.pool.process.worker import INSTANCE_VARIABLE

CONFIG = {"size": 4, "stall_timeout": 2.0, "grace": 0.3, "memory_mb": 300, "output_mb": 2}
NEIGHBOURS = 20
FAULTS: list[tuple[str, type[Exception], float]] = [
    ("misbehave kill", WorkerDied, 2.0),
    ("misbehave exit", WorkerDied, 2.0),
    ("misbehave fork", WorkerDied, 2.0),
    ("misbehave daemon", WorkerDied, 3.0),
    ("misbehave stop", WorkerStalled, 5.0),
    ("misbehave loop", WorkerStalled, 5.0),
    ("misbehave memory", WorkerOutOfMemory, 10.0),
    ("misbehave flood", OutputOverflow, 5.0),
    ("misbehave raise", Unpicklable, 3.0),
    ("misbehave leave", AgentFailed, 3.0),
    ("artifact x", TransferFailed, 3.0),
    ("hog x", CallTimeout, 6.0),
]


def strays(factory: AgentFactory, pool: AgentInstancePool) -> set[int]:
    """What instances that have ended left behind.

    In their sessions, below them, or with their mark.
    """
    told = [event.data for event in factory.event_bus.retained() if event.type == "pool.instance"]
    living = {key for key, worker in pool.scheduler.workers.items() if worker.instance.alive}
    ended = {
        data["instance_id"]: data["pid"]
        for data in told
        if data["instance_id"] not in living and "pid" in data
    }
    below = process_trees(ended.values())
    return set().union(*below.values()) | pids_with_environment(INSTANCE_VARIABLE, ended)


async def settled(factory: AgentFactory, pool: AgentInstancePool) -> set[int]:
    """What is left of them after a moment to end in."""
    for _ in range(40):
        if not (left := strays(factory, pool)):
            break
        await asyncio.sleep(0.05)
    return left


@pytest.mark.parametrize(("question", "error", "bound_s"), FAULTS, ids=[each[0] for each in FAULTS])
async def test_a_fault_hurts_nobody_else(
    make_factory: Callable[..., AgentFactory], question: str, error: type[Exception], bound_s: float
) -> None:
    async with (
        make_factory() as factory,
        AgentInstancePool(factory, PoolConfig.parse(CONFIG)) as pool,
    ):
        _ = [await pool.create_instance("worker") for _ in range(3)]

        async def victim() -> tuple[Any, float]:
            began = time.monotonic()
            timeout_s = 2.0 if error is CallTimeout else 30.0
            try:
                return await pool.run(
                    AgentTask("worker", question, timeout_s=timeout_s)
                ), time.monotonic() - began
            except Exception as raised:  # noqa: BLE001 - what it is, is looked at below
                return raised, time.monotonic() - began

        async def neighbour(n: int) -> str:
            return (await pool.run(AgentTask("worker", f"anap 0.05{n}"))).output

        (found, took_s), *others = await asyncio.gather(
            victim(), *(neighbour(n) for n in range(NEIGHBOURS))
        )
        assert others == ["it said rested"] * NEIGHBOURS
        cause = (
            found.__cause__ if type(found) is AgentFailed and error is not AgentFailed else found
        )
        assert isinstance(cause, error), repr(found)
        assert found.usage.model_calls >= 1  # what was used until then is charged
        assert took_s < bound_s
        assert (
            await pool.run(AgentTask("worker", "echo again"))
        ).output == "it said again"  # its slot is back
        assert await settled(factory, pool) == set()
    assert await settled(factory, pool) == set()


async def test_a_dead_workers_last_words_are_in_the_error(
    make_factory: Callable[..., AgentFactory],
) -> None:
    async with (
        make_factory() as factory,
        AgentInstancePool(factory, PoolConfig.parse(CONFIG)) as pool,
    ):
        with pytest.raises(AgentFailed) as raised:
            await pool.run(AgentTask("worker", "misbehave raise"))
        notes = "\n".join(getattr(raised.value.__cause__, "__notes__", []))
        assert "tools_that_misbehave.py" in notes  # the traceback of the other process
        with pytest.raises(WorkerDied, match="by signal 9") as died:
            await pool.run(AgentTask("worker", "misbehave kill"))
        assert died.value.instance_id
        assert died.value.run_id
