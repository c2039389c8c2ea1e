"""What went wrong once with the pool of processes, or nearly: each stays mended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore
from tests.support.pools import Make, pool_of, template, until
from tests.support.programs import with_tests

from agent_runtime import AgentContext, AgentFactory, CallDrained, CustomChunk, SessionManager
from agent_runtime.errors import (
    AgentFailed,
    AgentRuntimeError,
    CallTimeout,
    InputInvalid,
    PoolOverloaded,
    TaskPoisoned,
    TransferFailed,
    WorkerDied,
)
from agent_runtime.pool import (
    AgentInstancePool,
    AgentTask,
    InstanceStatus,
    PoolConfig,
    TaskPriority,
)
from agent_runtime.pool.process.instance import AgentInstance
from agent_runtime.pool.process.process_tree import process_info, rss_mb
from agent_runtime.testing import ScriptedChatModel, say

HIGH = TaskPriority.HIGH


def running(pool: AgentInstancePool) -> int:
    return int(pool.get_pool_status()["by_status"]["running"])


async def begun(pool: AgentInstancePool, task: AgentTask, count: int = 1) -> asyncio.Task[Any]:
    started = asyncio.create_task(pool.run(task))
    await until(lambda: running(pool) >= count)
    return started


async def test_cancels_in_the_queue_harm_nobody(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        tasks: list[asyncio.Task[Any]] = []
        told = pool.scheduler._on_change

        def on_change(instance: AgentInstance, before: InstanceStatus) -> None:
            told(instance, before)
            pending = [task for task in tasks if not task.done()]
            if instance.status is InstanceStatus.COMPLETED and len(pending) in (10, 8, 6, 4):
                pending[1].cancel()  # the next one, in the very moment in which it is to be served

        pool.scheduler._on_change = on_change
        tasks += [
            asyncio.create_task(pool.run(AgentTask("worker", "anap 0.01"))) for _ in range(12)
        ]
        found: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            isinstance(each, asyncio.CancelledError) or each.output == "it said rested"
            for each in found
        )
        await until(lambda: running(pool) == 0)
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"


async def test_what_one_call_leaves_is_not_the_next_ones(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        with pytest.raises(TransferFailed):
            async with pool.stream(AgentTask("worker", "chatter tenant-a")) as stream:
                _ = [chunk async for chunk in stream.chunks()]
        assert (await pool.run(AgentTask("worker", "busy x"))).output == "it said nothing"
        async with pool.stream(AgentTask("worker", "anap 0.4")) as stream:
            chunks = [chunk async for chunk in stream.chunks()]
        assert not [chunk for chunk in chunks if isinstance(chunk, CustomChunk)]
        assert (await pool.run(AgentTask("worker", "linger x"))).output == "it said gone"
        assert (await pool.run(AgentTask("worker", "busy x"))).output == "it said nothing"
        result = await pool.run(AgentTask("worker", "anap 0.5"))
        assert (result.usage.model_calls, result.usage.tool_calls) == (2, 1)
        assert pool.get_pool_status()["kills"] == 0


async def test_closing_tells_those_that_wait(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        first = await begun(pool, AgentTask("worker", "anap 30"))
        waiting = asyncio.create_task(pool.run(AgentTask("worker", "say x")))
        await until(lambda: pool.get_pool_status()["queue"]["depth"] == 1)
    for task in (first, waiting):
        with pytest.raises(PoolOverloaded, match="closed"):
            await asyncio.wait_for(task, 2)


async def test_an_idle_instance_serves_though_a_more_urgent_call_waits_elsewhere(
    make_factory: Make,
) -> None:
    async with pool_of(make_factory, {"size": 2, "agents": {"worker": {"limit": 1}}}) as pool:
        pool.add_agent("other", "worker")
        first = await begun(pool, AgentTask("worker", "anap 0.2"))
        waiting = asyncio.create_task(pool.run(AgentTask("worker", "say b")))
        await until(lambda: pool.get_pool_status()["queue"]["depth"] == 1)
        urgent = asyncio.create_task(pool.run(AgentTask("other", "anap 1", priority=HIGH)))
        await first
        assert (await asyncio.wait_for(waiting, 0.9)).output == "b"
        await urgent


async def test_room_is_made_by_memory_too_and_never_in_vain(make_factory: Make) -> None:
    config: dict[str, Any] = {"memory_mb": 200, "total_memory_mb": 450, "size": 6}
    async with pool_of(make_factory, config) as pool:
        pool.add_agent("other", "worker")
        for _ in range(2):
            await pool.create_instance("worker")
        assert (await asyncio.wait_for(pool.run(AgentTask("other", "say x")), 5)).output == "x"
    config = {"size": 2, "agents": {"worker": {"limit": 1}, "other": {"warm": 1}}}
    async with pool_of(make_factory, config) as pool:
        pool.add_agent("other", "worker")
        first = await begun(pool, AgentTask("worker", "anap 1.5"))
        waiting = asyncio.create_task(pool.run(AgentTask("worker", "say b")))
        await asyncio.gather(first, waiting)
        assert (
            pool.get_pool_status()["starts"] == 2
        )  # no idle instance was ended for a call that it cannot help


async def test_drain_knows_older_versions_and_calls_that_wait(
    make_factory: Make, tmp_path: Path
) -> None:
    async with pool_of(make_factory, {"size": 2}) as pool:
        old = await begun(pool, AgentTask("worker", "anap 0.5"))
        pool.factory.register_template(template(system_prompt="another"))
        await pool.run(AgentTask("worker", "say x"))
        assert await pool.drain(5) == 0
        assert old.done()
        assert (await old).output == "it said rested"
    url = f"sqlite:{tmp_path / 's.db'}"
    async with pool_of(
        make_factory, {"size": 1}, session_manager=SessionManager.from_url(url)
    ) as pool:
        first = await begun(pool, AgentTask("worker", "anap 0.4"))
        waiting = asyncio.create_task(
            pool.agent("worker").execute(AgentContext("anap 5", session_id="s"))
        )
        await until(lambda: pool.get_pool_status()["queue"]["depth"] == 1)
        assert await pool.drain(3) == 0
        await first
        with pytest.raises(CallDrained):
            await waiting


async def test_every_call_of_a_process_is_answered(make_factory: Make) -> None:
    async with make_factory(spec={"memory": "notes"}) as factory:
        store = InMemoryStore()
        await store.aput(("large",), "it", {"text": "word " * 15_000_000})
        factory.register_memory("notes", store, shared=True)
        async with AgentInstancePool(factory, PoolConfig(size=1)) as pool:
            with pytest.raises(TransferFailed, match="too large for the pipe"):
                await asyncio.wait_for(pool.run(AgentTask("worker", "large x")), 15)
            assert (await pool.run(AgentTask("worker", "say y"))).output == "y"
    async with make_factory(spec={"model": "cancels"}) as factory:
        factory.register_model(
            "cancels", lambda **_: ScriptedChatModel(script=[say(fail=asyncio.CancelledError())])
        )
        async with AgentInstancePool(factory, PoolConfig(size=1)) as pool:
            with pytest.raises(AgentFailed):
                await asyncio.wait_for(pool.run(AgentTask("worker", "x")), 10)


async def test_no_error_costs_a_living_instance(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        made = await pool.create_instance("worker", {"user": "ada"})
        with pytest.raises(InputInvalid, match="whose context is a map"):
            await pool.agent("worker").execute(AgentContext("say x", context=object()))
        with pytest.raises(WorkerDied):
            await pool.run(AgentTask("worker", "pretend x"))
        assert pool.get_pool_status()["kills"] == 0
        assert pool.get_instance_status(made).status is InstanceStatus.IDLE
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"


async def test_a_template_file_that_is_gone_is_its_own_agents_trouble(
    make_factory: Make, tmp_path: Path
) -> None:
    file = tmp_path / "gone.yaml"
    file.write_text(
        "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: g}\nspec: {model: "
        "'offline:'}\n"
    )
    async with pool_of(make_factory, {"size": 1}) as pool:
        busy = await begun(pool, AgentTask("worker", "anap 0.3"))
        waiting = asyncio.create_task(pool.run(AgentTask(str(file), "x")))
        await until(lambda: pool.get_pool_status()["queue"]["depth"] == 1)
        file.unlink()
        await busy
        assert (
            await asyncio.wait_for(pool.run(AgentTask("worker", "say y", priority=HIGH)), 5)
        ).output == "y"
        with pytest.raises(AgentRuntimeError):
            await asyncio.wait_for(waiting, 10)


async def test_a_guard_that_was_killed_is_replaced(make_factory: Make) -> None:
    async with pool_of(make_factory) as pool:
        first = pool._reaper.pid if pool._reaper is not None else None
        os.kill(first or 0, signal.SIGKILL)
        await until(lambda: process_info(first or 0) is None)
        for _ in range(2):
            assert (await pool.run(AgentTask("worker", "say y"))).output == "y"
            await pool.create_instance("worker")
        assert pool._reaper is not None
        assert pool._reaper.pid != first


async def test_nothing_is_left_of_an_instance_that_was_being_made(tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from agent_runtime import AgentFactory\n"
        "from agent_runtime.pool import AgentInstancePool, PoolConfig\n"
        "async def main():\n"
        "    config = "
        "PoolConfig(setup='tests.support.tools_that_misbehave:slow_setup')\n"
        "    async with AgentFactory() as factory, AgentInstancePool(factory, config) as pool:\n"
        "        task = asyncio.create_task(pool.create_instance('writer'))\n"
        "        while not [w for w in pool.scheduler.workers.values() if w.instance.pid]: await "
        "asyncio.sleep(0.01)\n"
        "        await asyncio.sleep(0.3)\n"
        "        print([w.instance.pid for w in pool.scheduler.workers.values()][0], flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    (tmp_path / "app.py").write_text(program)
    command = [sys.executable, str(tmp_path / "app.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=with_tests()) as app:
        assert app.stdout is not None
        pid = int(await asyncio.to_thread(app.stdout.readline))
        assert process_info(pid) is not None
        app.kill()
    await until(lambda: process_info(pid) is None, 10)


async def test_a_stopped_reader_bounds_memory_by_bytes(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        before = rss_mb(os.getpid())
        async with pool.stream(AgentTask("worker", "flood x")) as stream:
            async for _ in stream.chunks():
                break
            await asyncio.sleep(1.0)
            assert rss_mb(os.getpid()) - before < 120


async def test_what_callers_configure_and_the_environment_travel(
    make_factory: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        agent = pool.agent("worker")
        config: Any = {"configurable": {"language": "de", "lock": threading.Lock()}}
        found = await agent.ainvoke({"messages": "configured language"}, config)
        assert found["messages"][-1].text == "it said de"
    monkeypatch.setenv("SET_LATER", "yes")
    async with pool_of(make_factory, {"size": 1}) as pool:
        assert (await pool.run(AgentTask("worker", "variable SET_LATER"))).output == "it said yes"


async def test_a_task_whose_deadline_kills_counts_too(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 2, "grace": "100ms", "max_kills": 2}) as pool:
        task = AgentTask("worker", "hog x", timeout_s=0.5)
        for _ in range(2):
            with pytest.raises(CallTimeout):
                await pool.run(task)
        with pytest.raises(TaskPoisoned):
            await pool.run(task)


async def test_a_cancel_that_nobody_hears_ends_in_a_kill(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1, "grace": "200ms"}) as pool:
        began = time.monotonic()
        with pytest.raises(CallTimeout):
            await pool.run(
                AgentTask("worker", "misbehave loop", timeout_s=0.5)
            )  # busy in its event loop
        assert time.monotonic() - began < 5
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"


async def test_an_allocation_above_the_address_space_fails_inside_the_task(
    make_factory: Make,
) -> None:
    async with pool_of(make_factory, {"size": 1, "address_space_mb": 1500}) as pool:
        with pytest.raises(AgentFailed, match="MemoryError") as raised:
            await pool.run(AgentTask("worker", "allocate 2000"))
        assert isinstance(raised.value.__cause__, MemoryError)
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"
        assert pool.get_pool_status()["starts"] == 1  # the process is as good as before


async def test_other_loops_and_forks(make_factory: Callable[..., AgentFactory]) -> None:
    async with pool_of(make_factory, {"size": 2}) as pool:
        made: list[str] = []

        async def elsewhere() -> None:
            made.append(await pool.create_instance("worker"))
            await pool.shutdown_instance(made[0])
            made.append(await pool.create_instance("worker"))

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"
        assert (await pool.run(AgentTask("worker", "twins x"))).output == "it said twin"
        began = time.monotonic()
        for _ in range(3):
            assert (await pool.run(AgentTask("worker", "anap 0.2"))).output == "it said rested"
        assert time.monotonic() - began < 20
