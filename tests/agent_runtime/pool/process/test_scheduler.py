"""The pool of processes: who gets an instance, how many there are, how they come and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.pool_long_run import long_run
from tests.support.pools import Make, pool_of, template, until
from tests.support.programs import with_tests
from tests.support.tools_that_misbehave import script

from agent_runtime import AgentContext, CallDrained, SessionManager
from agent_runtime.errors import (
    CallTimeout,
    ConfigurationError,
    InputInvalid,
    InstanceNotFound,
    InstanceStartFailed,
    PoolOverloaded,
    TaskPoisoned,
    WorkerDied,
)
from agent_runtime.pool import (
    AgentInstancePool,
    AgentTask,
    InstanceStatus,
    PoolConfig,
    TaskPriority,
)
from agent_runtime.pool.process.instance import ALLOWED_TRANSITIONS, AgentInstance
from agent_runtime.pool.process.process_tree import process_info
from agent_runtime.pool.process.wait_queue import WaitQueue
from agent_runtime.testing import ScriptedChatModel


async def test_an_instance_is_made_used_shown_and_ended(make_factory: Make) -> None:
    async with pool_of(make_factory) as pool:
        made = await pool.create_instance("worker", {"user": "ada"})
        instance = pool.get_instance_status(made)
        assert (instance.status, instance.agent, instance.context) == (
            InstanceStatus.IDLE,
            "worker",
            {"user": "ada"},
        )
        assert instance.pid != os.getpid()
        task = AgentTask("worker", "pid x")
        running = pool.submit_task(made, task)
        await until(lambda: instance.current_task is not None)
        assert instance.status is InstanceStatus.RUNNING
        assert instance.current_task is task
        assert (await running).output == f"it said {instance.pid}"
        shown = instance.to_dict()
        assert (shown["status"], shown["tasks_done"], shown["task"]) == ("idle", 1, None)
        await until(lambda: instance.memory_mb > 20)
        status = pool.get_pool_status()
        assert (status["by_status"]["idle"], status["size"], status["starts"]) == (1, 6, 1)
        await pool.shutdown_instance(made)
        assert instance.to_dict()["status"] == "terminated"
        assert process_info(instance.pid or 0) is None
        with pytest.raises(InstanceNotFound):
            pool.get_instance_status(made)
        with pytest.raises(InstanceNotFound):
            await pool.submit_task(made, task)
        changes = [
            event.data["status"] for event in pool.factory.event_bus.retained("pool.instance")
        ]
        assert changes == [
            "creating",
            "idle",
            "running",
            "completed",
            "idle",
            "shutting",
            "terminated",
        ]


async def test_a_busy_instance_ends_after_its_task_or_after_the_grace(make_factory: Make) -> None:
    async with pool_of(make_factory) as pool:
        made = await pool.create_instance("worker")
        task = pool.submit_task(made, AgentTask("worker", "anap 0.4"))
        await until(lambda: pool.get_instance_status(made).status is InstanceStatus.RUNNING)
        await pool.shutdown_instance(made)
        assert (await task).output == "it said rested"
        made = await pool.create_instance("worker")
        task = pool.submit_task(made, AgentTask("worker", "anap 30"))
        await until(lambda: pool.get_instance_status(made).status is InstanceStatus.RUNNING)
        await pool.shutdown_instance(made, grace_s=0.1)
        with pytest.raises(PoolOverloaded, match="was shut down"):
            await task


async def test_the_queue_is_bounded_and_the_urgent_go_first(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1, "queue": 3}) as pool:
        await pool.create_instance("worker")
        order: list[str] = []

        async def run(name: str, priority: TaskPriority) -> None:
            await pool.run(AgentTask("worker", "anap 0.05", priority=priority))
            order.append(name)

        tasks = [asyncio.create_task(run("first", TaskPriority.NORMAL))]
        await until(lambda: pool.get_pool_status()["by_status"]["running"])
        for name, priority in (("low", 0), ("normal", 1), ("urgent", 3)):
            tasks.append(asyncio.create_task(run(name, TaskPriority(priority))))
            await asyncio.sleep(0)
        await until(lambda: pool.get_pool_status()["queue"]["depth"] == 3)
        with pytest.raises(PoolOverloaded, match="3 calls wait") as refused:
            await pool.run(AgentTask("worker", "say x"))
        assert refused.value.retry_after_s > 0
        assert pool.factory.event_bus.retained("pool.refused")
        await asyncio.gather(*tasks)
        assert order == ["first", "urgent", "normal", "low"]


async def test_a_waiting_call_can_be_cancelled_or_time_out(make_factory: Make) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        busy = asyncio.create_task(pool.run(AgentTask("worker", "anap 0.5")))
        await until(lambda: pool.get_pool_status()["by_status"]["running"])
        waiting = asyncio.create_task(pool.run(AgentTask("worker", "say x")))
        await until(lambda: pool.get_pool_status()["queue"]["depth"] == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.get_pool_status()["queue"]["depth"] == 0
        assert (await busy).output == "it said rested"
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"


async def test_a_call_cancelled_in_the_moment_it_is_served_gives_its_instance_back(
    make_factory: Make,
) -> None:
    async with pool_of(make_factory, {"size": 1}) as pool:
        await pool.create_instance("worker")
        held = await pool.scheduler.acquire("worker", TaskPriority.NORMAL, None)
        waiting = asyncio.create_task(pool.scheduler.acquire("worker", TaskPriority.NORMAL, None))
        await asyncio.sleep(0)
        pool.on_task_end(held, None)  # it is given to the one that waits
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert held.instance.status is InstanceStatus.IDLE
        assert (await pool.run(AgentTask("worker", "say y"))).output == "y"


async def test_limits_by_agent_and_room_is_made_for_another(make_factory: Make) -> None:
    config = {"size": 2, "agents": {"worker": {"limit": 1}}}
    async with pool_of(make_factory, config) as pool:
        pool.add_agent("other", "worker")
        pool.add_agent("third", "worker")
        await asyncio.gather(*(pool.run(AgentTask("worker", "say x")) for _ in range(4)))
        assert pool.get_pool_status()["starts"] == 1
        with pytest.raises(PoolOverloaded, match="no further instance of 'worker'"):
            await pool.create_instance("worker")
        await pool.run(AgentTask("other", "say x"))
        await pool.run(AgentTask("third", "say x"))  # full: the one used longest ago goes
        await until(lambda: pool.get_pool_status()["by_status"]["idle"] == 2)
        assert {each["agent"] for each in pool.get_pool_status()["instances"]} == {"other", "third"}


async def test_the_sum_of_memory_limits_is_bounded(make_factory: Make) -> None:
    async with pool_of(make_factory, {"memory_mb": 200, "total_memory_mb": 450}) as pool:
        results = await asyncio.gather(
            *(pool.run(AgentTask("worker", "anap 0.05")) for _ in range(5))
        )
        assert len(results) == 5
        assert pool.get_pool_status()["starts"] == 2
        assert pool.get_pool_status()["memory_limit_mb"] == 400


async def test_instances_are_replaced_after_so_many_tasks_and_kept_warm(make_factory: Make) -> None:
    config = {"size": 2, "max_tasks": 2, "agents": {"worker": {"warm": 1}}}
    async with pool_of(make_factory, config) as pool:
        await until(
            lambda: pool.get_pool_status()["by_status"]["idle"] == 1
        )  # before anybody asked
        pids = {(await pool.run(AgentTask("worker", "pid x"))).output for _ in range(6)}
        assert len(pids) >= 3
        await until(lambda: pool.get_pool_status()["by_status"]["idle"] >= 1)


async def test_idle_instances_end(make_factory: Make) -> None:
    async with pool_of(make_factory, {"idle_timeout": "300ms"}) as pool:
        await pool.run(AgentTask("worker", "say x"))
        await until(lambda: not pool.get_pool_status()["instances"])


async def test_an_instance_with_a_tool_left_in_a_thread_is_not_used_again(
    make_factory: Make,
) -> None:
    async with pool_of(make_factory, {"size": 1, "grace": "1s"}) as pool:
        first = (await pool.run(AgentTask("worker", "pid x"))).output
        with pytest.raises(CallTimeout):
            await pool.run(AgentTask("worker", "hog x", timeout_s=0.3))
        assert (await pool.run(AgentTask("worker", "pid x"))).output != first


async def test_a_task_that_kills_three_processes_is_put_aside(make_factory: Make) -> None:
    async with pool_of(make_factory) as pool:
        task = AgentTask("worker", "misbehave kill")
        for _ in range(2):
            with pytest.raises(WorkerDied):
                await pool.run(task)
        with pytest.raises(TaskPoisoned) as poisoned:
            await pool.run(task)
        letter = await pool.dead_letters.get(poisoned.value.letter_id)
        assert letter is not None
        assert (letter.attempts, letter.error, letter.payload["input"]) == (
            3,
            "WorkerDied",
            "misbehave kill",
        )
        starts = pool.get_pool_status()["starts"]
        with pytest.raises(TaskPoisoned):
            await pool.run(task)
        assert pool.get_pool_status()["starts"] <= starts + 1  # it was not run
        assert pool.factory.event_bus.retained("dead_letter.added")
        assert (await pool.run(AgentTask("worker", "say x"))).output == "x"  # the queue goes on


async def test_a_process_that_dies_before_anything_happened_is_tried_again(
    make_factory: Make,
) -> None:
    deaths = iter([True, False])

    def answer(messages: Any) -> Any:
        if next(deaths):
            worker = next(iter(pool.scheduler.workers.values()))
            os.kill(worker.instance.pid or 0, signal.SIGKILL)
            time.sleep(0.2)
        return script(messages)

    async with make_factory(
        spec={"model": "deadly", "runtime": {"retry": {"initial_delay": "10ms"}}}
    ) as factory:
        factory.register_model("deadly", lambda **_: ScriptedChatModel(script=answer))
        async with AgentInstancePool(factory) as pool:
            assert (await pool.run(AgentTask("worker", "say x"))).output == "x"
            assert factory.event_bus.retained("retry.again")


def of_here() -> Any:
    """A function that no other process can import."""

    def local(argument: str) -> str:
        """Answer."""
        return argument

    return local


async def test_an_agent_that_cannot_be_made_fails_its_callers_at_once(make_factory: Make) -> None:
    async with make_factory(spec={"tools": ["local"]}) as factory:
        factory.register_tool("local", of_here())
        async with AgentInstancePool(factory) as pool:
            with pytest.raises(ConfigurationError, match="cannot be sent to an agent's process"):
                await pool.run(AgentTask("worker", "say x"))
    async with pool_of(
        make_factory, {"setup": "tests.agent_runtime.pool.no_such_module:setup"}
    ) as pool:
        with pytest.raises(InstanceStartFailed, match="ModuleNotFoundError"):
            await asyncio.wait_for(pool.run(AgentTask("worker", "say x")), 10)
        with pytest.raises(InstanceStartFailed):
            await pool.create_instance("worker")


async def test_components_can_be_registered_in_the_process(make_factory: Make) -> None:
    setup = "tests.support.tools_that_misbehave:register"
    async with make_factory(spec={"tools": ["local"]}) as factory:
        factory.register_tool("local", of_here())
        async with AgentInstancePool(factory, PoolConfig(setup=setup)) as pool:
            assert (await pool.run(AgentTask("worker", "local x"))).output == "it said registered x"


async def test_what_changed_is_not_served(
    make_factory: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_of(make_factory) as pool:
        before = (await pool.run(AgentTask("worker", "pid x"))).output
        assert (await pool.run(AgentTask("worker", "pid x"))).output == before
        pool.factory.register_template(template(tools=["pid"], system_prompt="another"))
        after = await pool.run(AgentTask("worker", "pid x"))
        assert after.output != before
        assert after.template_digest == pool.factory.get_template("worker").digest


async def test_drain_loses_no_task(make_factory: Make, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'sessions.db'}"
    async with pool_of(
        make_factory, {"size": 2}, session_manager=SessionManager.from_url(url)
    ) as pool:
        agent = pool.agent("worker")
        short = asyncio.create_task(pool.run(AgentTask("worker", "anap 0.3")))
        kept = asyncio.create_task(agent.execute(AgentContext("anap 0.3", session_id="s")))
        await until(
            lambda: len(pool.factory.event_bus.retained("tool.start")) == 2
        )  # both are in their tools
        assert await pool.drain(grace_s=5) == 0
        assert (await short).output == "it said rested"
        with pytest.raises(CallDrained):
            await kept
        with pytest.raises(PoolOverloaded):
            await pool.run(AgentTask("worker", "say x"))
    async with pool_of(make_factory, session_manager=SessionManager.from_url(url)) as pool:
        done = await pool.agent("worker").execute(AgentContext(None, session_id="s"))
        assert (
            done.output == "it said rested"
        )  # where it was stopped, it goes on, and no tool runs twice


async def test_closing_fails_what_runs_and_leaves_nothing(make_factory: Make) -> None:
    async with pool_of(make_factory) as pool:
        made = await pool.create_instance("worker")
        pid = pool.get_instance_status(made).pid or 0
        task = pool.submit_task(made, AgentTask("worker", "nap 30"))
        await until(lambda: pool.get_instance_status(made).status is InstanceStatus.RUNNING)
    with pytest.raises(PoolOverloaded, match="closed"):
        await task
    assert process_info(pid) is None


@pytest.mark.integration  # reports/test_pool_signals.py kills one in the suite
async def test_nothing_is_left_when_the_application_is_killed() -> None:
    program = Path(__file__).parents[3] / "support" / "doomed_application.py"
    app = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, env=with_tests())
    with app:
        assert app.stdout is not None
        pids = [int(text) for text in (await asyncio.to_thread(app.stdout.readline)).split()]
        assert len(pids) >= 5
        assert all(process_info(pid) is not None for pid in pids)
        app.kill()
        await asyncio.to_thread(app.wait)
    await until(lambda: not [pid for pid in pids if process_info(pid) is not None], 10)


def test_tasks_and_configurations_are_checked() -> None:
    with pytest.raises(InputInvalid, match="no priority '9': urgent, high"):
        AgentTask("worker", "x", priority=9)  # type: ignore[arg-type]
    with pytest.raises(InputInvalid, match="timeout"):
        AgentTask("worker", "x", timeout_s=0)
    for content, said in (
        ({"sise": 3}, "did you mean 'size'"),
        ({"size": 0}, "pool.size"),
        ({"idle_timeout": 5}, "with a unit"),
        ({"size": 1, "agents": {"a": {"warm": 2}}}, "more warm instances"),
        ({"task_timeout": "1s", "grace": "2s"}, "grace, which follows task_timeout"),
        ({"agents": {"a": {"warm": 2, "limit": 1}}}, "than its limit"),
        ({"memory_mb": 500, "total_memory_mb": 400}, "less than one instance"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            PoolConfig.parse(content)


def test_the_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(
        "pool:\n  size: 3\n  idle_timeout: 5m\n  agents:\n    analyst: {warm: 1, memory_mb: 256}\n"
    )
    config = PoolConfig.load(file)
    assert (
        config.size,
        config.idle_timeout,
        config.memory_of("analyst"),
        config.limits_for("x").warm,
    ) == (
        3,
        300.0,
        256,
        0,
    )
    file.write_text("pols: {}\n")
    with pytest.raises(ConfigurationError, match="no 'pool:' map"):
        PoolConfig.load(file)


@given(st.lists(st.sampled_from(list(InstanceStatus)), max_size=12))
def test_an_instance_goes_only_where_it_may(steps: list[InstanceStatus]) -> None:
    changes: list[tuple[InstanceStatus, InstanceStatus]] = []
    instance = AgentInstance(
        "a", on_change=lambda made, before: changes.append((before, made.status))
    )
    for step in steps:
        before = instance.status
        with contextlib.suppress(ValueError):
            instance.transition_to(step)
        assert instance.status is step or instance.status is before
    assert all(after in ALLOWED_TRANSITIONS[before] for before, after in changes)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(list(TaskPriority))), max_size=30),
    st.data(),
)
def test_the_queue_serves_the_urgent_and_then_the_old(
    given: list[tuple[str, TaskPriority]], data: Any
) -> None:
    async def check() -> None:
        waiting = WaitQueue()
        model = [waiting.add(agent, None, priority) for agent, priority in given]
        gone = data.draw(st.sets(st.sampled_from(range(len(model))))) if model else set()
        for index in gone:
            waiting.remove(model[index])
        left = [waiter for index, waiter in enumerate(model) if index not in gone]
        assert len(waiting) == len(left)
        for agent in "ab":
            mine = sorted((w for w in left if w.agent == agent), key=lambda w: w.rank)
            while mine:
                first = waiting.next_for(agent, "any")
                assert first is mine[0]
                waiting.remove(mine.pop(0))
            assert waiting.next_for(agent, "any") is None
        assert len(waiting) == 0

    asyncio.run(check())


async def test_many_tasks_leave_nothing_behind() -> None:
    """The short form of `make soak`: 10,000 tasks over 6 instances."""
    found = await long_run(150, size=2, kills=3, concurrent=4)
    assert found["outcomes"] == {"right": 147, "worker_died": 3}
    assert found["zombies"] == 0
    assert found["descriptors"][0] == found["descriptors"][1]
    assert found["asyncio_tasks"][0] == found["asyncio_tasks"][1]
