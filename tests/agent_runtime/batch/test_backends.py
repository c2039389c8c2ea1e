"""Where tasks run: every backend does the same, and gives the same results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.pools import template
from tests.support.tools_that_misbehave import TOOLS, script

from agent_runtime import AgentFactory
from agent_runtime.batch import (
    AsyncioBackend,
    Backend,
    BatchSettings,
    BatchTask,
    ParallelAgentExecutor,
    ProcessBackend,
    TaskResult,
)
from agent_runtime.batch.load_balancer import LoadBalancer
from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.pool import PoolConfig
from agent_runtime.testing import ScriptedChatModel
from agent_runtime.testing.conformance.batch_backend import BACKEND_CHECKS, run_backend_check

MAKE: dict[str, Callable[[AgentFactory], Backend]] = {
    "asyncio": AsyncioBackend,
    "process": lambda factory: ProcessBackend(factory, PoolConfig(size=2, grace=0.5)),
}


@pytest.mark.parametrize("backend", MAKE)
@pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Any, backend: str) -> None:
    await run_backend_check(check, MAKE[backend])


def factory_with_tools() -> AgentFactory:
    factory = AgentFactory()
    factory.register_model("scripted", lambda **_: ScriptedChatModel(script=script))
    for name, tool in TOOLS.items():
        factory.register_tool(name, tool)
    factory.register_template(template("worker", runtime={"retry": {"attempts": 1}}))
    return factory


async def run_all(
    tasks: list[Any], settings: dict[str, Any], dead: MemoryDeadLetters | None = None
) -> dict[str, TaskResult]:
    async with (
        factory_with_tools() as factory,
        ParallelAgentExecutor(
            factory, BatchSettings.parse(settings), dead_letters=dead
        ) as executor,
    ):
        name = await executor.submit_batch_tasks(tasks, agent="worker")
        await executor.wait(name)
        found = await executor.get_execution_results(name)
        assert len(found) == len({each.task_id for each in found}) == len(tasks)
        return {each.task_id: each for each in found}


def said(result: TaskResult) -> tuple[Any, ...]:
    """What must not depend on where a task ran."""
    kinds = tuple((each.attempt, each.kind, each.code) for each in result.history)
    return (
        result.status,
        result.output,
        result.structured_response,
        kinds,
        tuple(sorted(result.usage.items())),
    )


async def test_every_backend_gives_what_a_serial_run_gives() -> None:
    tasks = [f"say {n}" if n % 3 else f"echo {n}" for n in range(40)] + [
        "unknown_tool x",
        "misbehave no_such_deed",
    ]
    quick = {"retry": {"attempts": 2, "initial_delay": "1ms"}}
    serial = await run_all(tasks, {"max_concurrent": 1, **quick})
    for settings in (
        {"max_concurrent": 8},
        {"max_concurrent": 3, "queue": {"size": 4, "order": "lifo"}},
        {"max_concurrent": 4, "backend": "process", "pool": {"size": 2}},
    ):
        found = await run_all(tasks, {**settings, **quick})
        assert {name: said(each) for name, each in found.items()} == {
            n: said(each) for n, each in serial.items()
        }
    assert Counter(each.status for each in serial.values())["completed"] >= 40


async def test_a_batch_with_every_fault_ends_with_every_other_result_right() -> None:
    """10 % fail, 5 % hang, 2 % kill their process, 1 % answer what cannot leave it."""
    faults = {
        **dict.fromkeys(range(0, 100, 10), ("misbehave no_such_deed", "agent_failed", "failed")),
        **dict.fromkeys(range(1, 100, 20), ("nap 600", "timeout", "failed")),
        **dict.fromkeys((33, 66), ("misbehave kill", "worker", "poisoned")),
        99: ("artifact x", "transfer_failed", "failed"),
    }
    tasks = [
        BatchTask(faults[n][0] if n in faults else f"echo {n}", id=f"n{n}") for n in range(100)
    ]
    settings = {
        "backend": "process",
        "max_concurrent": 4,
        "task_timeout": "3s",
        "grace": "500ms",
        "retry": {"attempts": 3, "on": ["worker"], "initial_delay": "1ms"},
        "pool": {"size": 4, "grace": "200ms", "starting": 2},
    }
    dead = MemoryDeadLetters()
    found = await run_all(tasks, settings, dead)
    for n in range(100):
        result = found[f"n{n}"]
        if n not in faults:
            assert (result.status, result.output) == ("completed", f"it said {n}"), result
            continue
        _, kind, status = faults[n]
        assert result.error is not None, result
        assert (result.status, result.error.kind) == (status, kind), result
        assert len(result.history) == result.attempts == (3 if kind == "worker" else 1)
        assert all(each.message and each.failed_at for each in result.history)
    assert {each.payload["task_id"].rpartition(":")[2] for each in await dead.list()} == {
        "n33",
        "n66",
    }


class Plain:
    """A backend that answers at once."""

    def __init__(self, name: str, slots: int | None = None, weight: float = 1.0) -> None:
        self.name = name
        self.slots = slots
        self.weight = weight


def picks(strategy: Any, *backends: Plain, count: int = 60, keep: bool = True) -> Counter[str]:
    scheduler = LoadBalancer(backends, strategy)  # type: ignore[arg-type]
    found = Counter[str]()
    for _ in range(count):
        if (seat := scheduler.acquire_nowait()) is None:
            break
        found[seat.backend.name] += 1
        if not keep:
            scheduler.release(seat)
    return found


def test_tasks_are_scheduled_by_load_in_turn_or_by_weight() -> None:
    assert picks("least_busy", Plain("a", 10), Plain("b", 20), Plain("c", 30)) == {
        "a": 10,
        "b": 20,
        "c": 30,
    }
    assert picks("least_busy", Plain("a", 10), Plain("b", 20), count=15) == {"a": 5, "b": 10}
    assert picks("round_robin", Plain("a"), Plain("b"), Plain("c")) == {"a": 20, "b": 20, "c": 20}
    assert picks("round_robin", Plain("a", 5), Plain("b"), count=20) == {"a": 5, "b": 15}
    assert picks("weighted", Plain("a", weight=1), Plain("b", weight=3), Plain("c", weight=2)) == {
        "a": 10, "b": 30, "c": 20,
    }  # fmt: skip
    assert picks("weighted", Plain("a", weight=1), Plain("b", weight=2), count=30, keep=False) == {
        "a": 10,
        "b": 20,
    }
    scheduler = LoadBalancer([Plain("a", 1), Plain("b", 1)], "least_busy")  # type: ignore[list-item]
    first = scheduler.acquire_nowait()
    second = scheduler.acquire_nowait()
    assert scheduler.acquire_nowait() is None
    assert (scheduler.capacity, first is not second) == (2, True)
    for wrong in ([], [Plain("a", weight=0)]):
        with pytest.raises(ConfigurationError, match="at least one backend"):
            LoadBalancer(wrong, "weighted")  # type: ignore[arg-type]
