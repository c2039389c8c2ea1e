"""Check that a journal of batches conforms, in any test suite.

    @pytest.mark.parametrize("check", JOURNAL_CHECKS)
    async def test_my_journal(check):
        await run_journal_check(check, lambda: MyJournal(fresh_name))

`open_journal` opens an empty journal, once. A check raises AssertionError.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.records import Execution, TaskRow, TaskUpdate
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.batch.task import BatchTask
from agent_runtime.errors import ExecutionBusy, ExecutionLost, ExecutionNotFound
from agent_runtime.pool.task import TaskPriority
from agent_runtime.testing.conformance.checks import assert_raises, run_store_check

JournalCheck = Callable[[Journal], Awaitable[None]]
STATUSES: tuple[TaskStatus, ...] = ("pending", "running", "completed", "failed", "skipped")


def task_row(
    seq: int, *, name: str = "", agent: str = "a", priority: TaskPriority = TaskPriority.NORMAL
) -> TaskRow:
    """Return the record of a new task."""
    task = BatchTask(f"do {seq}", agent=agent, id=name or f"t{seq}", priority=priority)
    return TaskRow.create(seq, task, 60.0, "fifo")


def task_update(
    seq: int, status: TaskStatus, *, result: TaskResult | None = None, generation: int = 0
) -> TaskUpdate:
    """Return a change of a task: its first failed attempt, and its second dispatch."""
    return TaskUpdate(seq, f"t{seq}", status, 1, generation, 2, 3.5, "[1]", "{}", result)


async def start_execution(journal: Journal, name: str = "e", count: int = 5) -> Execution:
    """Create an execution with tasks, and lease it."""
    execution = Execution(name, {"max_concurrent": 3}, agent="a", name="a batch")
    assert await journal.create(execution)
    execution.token = await journal.lease(name, "me", 60)
    execution.owner = "me"
    assert list(await journal.add(name, [task_row(n) for n in range(1, count + 1)])) == []
    return execution


def _seqs(rows: Sequence[Any]) -> list[int]:
    return [row.seq for row in rows]


async def an_execution_is_stored_as_its_owner_saves_it(journal: Journal) -> None:
    """Check that each field comes back, and that an id is taken once."""
    execution = await start_execution(journal)
    assert not await journal.create(Execution("e"))
    execution.status = "paused"
    execution.reason = "asked"
    execution.forecast = {"cost_usd": 1.5}
    execution.input_closed = True
    execution.source = {"path": "/x", "mapping": {"input": "é {text}"}}
    await journal.save(execution)
    await journal.heartbeat("e", execution.token, 60, '{"ended": 2}')
    stored = await journal.get("e")
    assert (stored.status, stored.reason, stored.forecast) == ("paused", "asked", {"cost_usd": 1.5})
    assert (stored.source, stored.progress) == (execution.source, {"ended": 2})
    assert stored.input_closed
    assert stored.is_leased
    assert (stored.owner, stored.name, stored.settings) == ("me", "a batch", {"max_concurrent": 3})


async def a_request_reaches_the_runner(journal: Journal) -> None:
    """Check that a heartbeat returns the pending request until that one is acknowledged."""
    execution = await start_execution(journal)
    assert await journal.heartbeat("e", execution.token, 60, "{}") == ""
    await journal.request("e", "pause")
    await journal.save(execution)
    assert await journal.heartbeat("e", execution.token, 60, "{}") == "pause"
    await journal.ack_request("e", "cancel")
    assert (await journal.get("e")).requested == "pause"
    await journal.ack_request("e", "pause")
    assert (await journal.get("e")).requested == ""


async def executions_are_listed_and_deleted(journal: Journal) -> None:
    """Check that the newest comes first, and that a deleted one leaves nothing behind."""
    first = await start_execution(journal)
    second = Execution("later", created_at=first.created_at + 1)
    assert await journal.create(second)
    assert [execution.id for execution in await journal.list()] == ["later", "e"]
    assert [execution.id for execution in await journal.list(1)] == ["later"]
    await journal.delete("e")
    await journal.delete("e")
    assert [execution.id for execution in await journal.list()] == ["later"]
    for operation in (
        journal.get("e"),
        journal.counts("e"),
        journal.request("e", "pause"),
        journal.lease("e", "me", 60),
    ):
        await assert_raises(ExecutionNotFound, operation)
    assert await journal.create(Execution("e"))
    assert await journal.counts("e") == {}
    assert list(await journal.results("e")) == []


async def one_owner_writes_at_a_time(journal: Journal) -> None:
    """Check that a lease excludes others, and that a lost one can write nothing."""
    execution = await start_execution(journal)
    await assert_raises(ExecutionBusy, journal.lease("e", "other", 60))
    await journal.heartbeat("e", execution.token, -1, "{}")
    assert await journal.lease("e", "other", 60) == execution.token + 1
    for operation in (
        journal.heartbeat("e", execution.token, 60, "{}"),
        journal.save(execution),
        journal.write("e", execution.token, [task_update(1, "running")]),
        journal.reset("e", execution.token, ["failed"]),
    ):
        await assert_raises(ExecutionLost, operation)
    assert (await journal.get_tasks("e", [1]))[0].status == "pending"
    assert await journal.lease("e", "third", 60, dead="other") == execution.token + 2
    execution.token += 2
    await journal.save(execution, release=True)
    released = journal.write("e", execution.token, [task_update(1, "running")])
    await assert_raises(ExecutionLost, released)
    assert await journal.lease("e", "fourth", 60) == execution.token + 1


async def tasks_come_by_rank_and_ids_are_taken_once(journal: Journal) -> None:
    """Check the order of tasks, of one agent too, and that duplicates are not stored."""
    await start_execution(journal, count=0)
    low, normal, high, urgent = TaskPriority
    levels = [low, normal, urgent, high, normal]
    rows = [task_row(n, priority=level, agent="ab"[n % 2]) for n, level in enumerate(levels, 1)]
    assert list(await journal.add("e", rows)) == []
    duplicates = [task_row(6, name="t2"), task_row(7), task_row(3, name="new")]
    assert list(await journal.add("e", duplicates)) == [6, 3]
    assert _seqs(await journal.rows("e", "pending", 10)) == [3, 4, 2, 5, 7, 1]
    assert _seqs(await journal.rows("e", "pending", 2)) == [3, 4]
    assert _seqs(await journal.rows("e", "pending", 10, agent="b")) == [3, 5, 1]
    assert list(await journal.agents("e")) == ["a", "b"]
    (row,) = await journal.get_tasks("e", [4])
    assert row.to_task() == BatchTask("do 4", agent="a", id="t4", priority=high)
    assert await journal.counts("e") == {"pending": 6}


async def changes_are_written_together(journal: Journal) -> None:
    """Check that a change replaces each mutable field, and that counts follow."""
    execution = await start_execution(journal)
    await journal.write("e", execution.token, [task_update(n, "running") for n in (1, 2, 3)])
    assert await journal.counts("e") == {"pending": 2, "running": 3}
    row = (await journal.rows("e", "running", 10))[0]
    assert (row.failed_attempts, row.dispatch_count, row.not_before) == (1, 2, 3.5)
    assert (row.history, row.usage) == ("[1]", "{}")


async def results_come_by_completion_or_by_task(journal: Journal) -> None:
    """Check both orders, their cursors, and that a number is not given twice."""
    execution = await start_execution(journal)
    results = [
        TaskResult(f"t{n}", n, "completed", output=f"é {n}", metadata={"n": n}) for n in range(1, 6)
    ]
    third = task_update(3, "completed", result=results[2])
    await journal.write("e", execution.token, [third, task_update(1, "pending")])
    second = task_update(2, "failed", result=results[1])
    await journal.write("e", execution.token, [second])
    assert await journal.counts("e") == {"pending": 3, "failed": 1, "completed": 1}
    stored = await journal.results("e")
    assert [(result.seq, result.result) for result in stored] == [(3, results[2]), (2, results[1])]
    assert _seqs(await journal.results("e", stored[0].number)) == [2]
    assert _seqs(await journal.results("e", by="seq")) == [2, 3]
    assert _seqs(await journal.results("e", 2, by="seq")) == [3]
    assert await journal.reset("e", execution.token, ["failed", "skipped"]) == 1
    assert _seqs(await journal.results("e")) == [3]
    (row,) = await journal.get_tasks("e", [2])
    assert (row.status, row.failed_attempts, row.generation) == ("pending", 0, 1)
    assert (row.dispatch_count, row.history) == (0, "[1]")
    again = task_update(2, "completed", result=results[1])
    await journal.write("e", execution.token, [again])
    assert _seqs(await journal.results("e", stored[1].number)) == [2]


async def a_task_may_have_ended_before_it_is_added(journal: Journal) -> None:
    """Check that a refused task is stored with its result."""
    await start_execution(journal, count=1)
    refused = task_row(2)
    refused.status = "failed"
    refused.result = TaskResult("t2", 2, "failed")
    await journal.add("e", [refused])
    assert await journal.counts("e") == {"pending": 1, "failed": 1}
    assert [stored.result.status for stored in await journal.results("e")] == ["failed"]
    assert _seqs(await journal.rows("e", "pending", 5)) == [1]


async def it_answers_as_the_one_in_memory(journal: Journal) -> None:
    """Check that 30 random histories get the answers of MemoryJournal."""
    for seed in range(30):
        reference = MemoryJournal()
        expected = await _history(reference, f"e{seed}", random.Random(seed))  # noqa: S311
        assert await _history(journal, f"e{seed}", random.Random(seed)) == expected  # noqa: S311


async def _history(journal: Journal, name: str, draw: random.Random) -> list[Any]:
    """Return the answers to random operations, and the state after each."""
    execution = await start_execution(journal, name, count=6)
    answers: list[Any] = []
    for _ in range(10):
        operation = draw.choice(["write", "write", "reset", "add", "lease"])
        if operation == "write":
            chosen = [
                (draw.randint(1, 6), draw.choice(STATUSES)) for _ in range(draw.randint(0, 5))
            ]
            updates = []
            for seq, status in chosen:
                ended = status not in ("pending", "running")
                result = TaskResult(f"t{seq}", seq, status) if ended else None
                updates.append(task_update(seq, status, result=result))
            await journal.write(name, execution.token, updates)
        elif operation == "reset":
            statuses = draw.sample(STATUSES[2:], draw.randint(1, 2))
            answers.append(await journal.reset(name, execution.token, statuses))
        elif operation == "add":
            rows = [
                task_row(draw.randint(5, 9), name=f"t{draw.randint(1, 9)}")
                for _ in range(draw.randint(0, 3))
            ]
            answers.append(list(await journal.add(name, rows)))
        else:
            execution.token = await journal.lease(name, "me", 60, dead="me")
        answers += [sorted(_seqs(await journal.rows(name, status, 20))) for status in STATUSES]
        answers.append(await journal.counts(name))
        answers.append([(row.seq, row.result.status) for row in await journal.results(name)])
        answers.append(_seqs(await journal.results(name, by="seq")))
    return answers


JOURNAL_CHECKS: tuple[JournalCheck, ...] = (
    an_execution_is_stored_as_its_owner_saves_it,
    a_request_reaches_the_runner,
    executions_are_listed_and_deleted,
    one_owner_writes_at_a_time,
    tasks_come_by_rank_and_ids_are_taken_once,
    changes_are_written_together,
    results_come_by_completion_or_by_task,
    a_task_may_have_ended_before_it_is_added,
    it_answers_as_the_one_in_memory,
)
"""All checks."""


async def run_journal_check(check: JournalCheck, open_journal: Callable[[], Journal]) -> None:
    """Run one check on a new journal."""
    await run_store_check(check, open_journal)
