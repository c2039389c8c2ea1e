"""What went wrong once, or nearly: each of these hung, lost or doubled something."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import Bench, bench_of, until
from tests.support.billing_provider import billing, template
from tests.support.operations import operation_name

from agent_runtime import MemoryLedger, parse_template
from agent_runtime.batch import (
    AsyncioBackend,
    BatchSettings,
    BatchTask,
    ParallelAgentExecutor,
    TaskQueue,
)
from agent_runtime.batch.journal import open_journal
from agent_runtime.errors import (
    ApprovalRequired,
    ConfigurationError,
    InputInvalid,
    StoreUnavailable,
)


async def over(bench: Bench, name: str, within_s: float = 10.0) -> dict[str, Any]:
    return await asyncio.wait_for(bench.executor.wait(name), within_s)


def gate(bench: Bench, name: str = "gated") -> asyncio.Event:
    """An agent that answers once it may."""
    go = asyncio.Event()

    async def work(text: str) -> str:
        await go.wait()
        return text

    bench.agent(name, work)
    return go


async def test_what_ends_while_the_journal_is_asked_is_not_run_again(
    redis_url: str, tmp_path: Path
) -> None:
    journal: Any = open_journal(f"{redis_url}?prefix={tmp_path.name}")
    async with bench_of({"max_concurrent": 50, "queue": {"size": 100}}, journal=journal) as bench:
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(1500)], agent="echo")
        status = await over(bench, name, 50)
        assert (status["completed"], max(Counter(bench.asked).values()), len(bench.asked)) == (
            1500,
            1,
            1500,
        )
        assert await journal.counts(name) == {"completed": 1500}
    await journal.aclose()


async def test_a_late_answer_of_the_journal_runs_nothing_twice() -> None:
    journal: Any = open_journal("memory:")
    inner = journal.arun_body

    async def late(body: Any, args: Any) -> Any:
        found = await inner(body, args)
        await asyncio.sleep(
            0.02 if operation_name(body) == "rows" else 0
        )  # meanwhile tasks of it are run, and end
        return found

    journal.arun_body = late
    async with bench_of({"max_concurrent": 4, "queue": {"size": 20}}, journal=journal) as bench:

        async def work(text: str) -> str:
            await asyncio.sleep(0.002)
            return text

        bench.agent("naps", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(100)], agent="naps")
        status = await over(bench, name)
        assert (status["completed"], len(bench.asked), len(set(bench.asked))) == (100, 100, 100)


async def test_an_empty_input_is_an_input(journal_url: str) -> None:
    journal: Any = open_journal(journal_url)
    async with bench_of(journal=journal) as bench:
        name = await bench.executor.submit_batch_tasks(["a", "", "b"], agent="echo")
        assert (await over(bench, name))["ended"] == 3
        assert sorted(bench.asked) == ["", "a", "b"]
    await journal.aclose()


async def test_a_task_that_is_being_accepted_keeps_its_batch_open() -> None:
    journal: Any = open_journal("memory:")
    inner = journal.arun_body

    async def slow(body: Any, args: Any) -> Any:
        await asyncio.sleep(
            0.05 if operation_name(body) == "add" else 0
        )  # meanwhile its producer ends
        return await inner(body, args)

    journal.arun_body = slow
    async with bench_of({"max_concurrent": 2}, journal=journal) as bench:
        end = asyncio.Event()

        async def producer() -> AsyncIterator[str]:
            yield "first"
            await end.wait()

        name = await bench.executor.submit_batch_tasks(producer(), agent="echo")
        await until(lambda: bench.asked)
        adding = [
            asyncio.ensure_future(bench.executor.submit_task(name, f"n{n}")) for n in range(20)
        ]
        await asyncio.sleep(0.01)
        end.set()
        told = await asyncio.gather(*adding, return_exceptions=True)
        status = await over(bench, name)
        accepted = 1 + sum(each is None for each in told)
        assert all(each is None or isinstance(each, InputInvalid) for each in told)
        assert (status["status"], status["completed"], status["total"]) == (
            "completed",
            accepted,
            accepted,
        )


async def test_tasks_that_come_while_it_is_loaded_are_counted_once() -> None:
    journal: Any = open_journal("memory:")
    inner = journal.arun_body

    async def slow(body: Any, args: Any) -> Any:
        await asyncio.sleep(0.003 if operation_name(body) in ("counts", "add") else 0)
        return await inner(body, args)

    journal.arun_body = slow
    for _ in range(10):
        async with bench_of(journal=journal) as bench:

            async def producer() -> AsyncIterator[str]:
                for n in range(6):
                    yield str(n)

            name = await bench.executor.submit_batch_tasks(producer(), agent="echo")
            status = await over(bench, name)
            assert (status["total"], status["completed"]) == (6, 6)


async def test_a_store_that_fails_at_the_start_hangs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agent_runtime.batch.journal.writer.RETRIES_S", (0.01,))
    journal: Any = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    async with bench_of(journal=journal) as bench:
        go = gate(bench)
        name = await bench.executor.submit_batch_tasks(["a"], agent="gated")
        await until(lambda: bench.asked)
        inner = journal.arun_body

        async def failing(body: Any, args: Any) -> Any:
            if operation_name(body) in ("write", "save"):
                raise StoreUnavailable("gone")
            return await inner(body, args)

        monkeypatch.setattr(journal, "arun_body", failing)
        go.set()
        with pytest.raises(StoreUnavailable):
            await over(bench, name)
        monkeypatch.setattr(journal, "arun_body", inner)
        execution = await journal.get(name)
        assert execution.status == "running"  # for all that the journal knows
        await bench.executor.resume_execution(name)
        status = await over(bench, name)
        assert (status["completed"], status["lost"]) == (1, 0)  # no process has died
    await journal.aclose()


async def test_a_worker_that_was_given_up_does_not_count() -> None:
    async with bench_of(
        {"max_concurrent": 1, "task_timeout": "100ms", "grace": "50ms", "retry": {"attempts": 1}}
    ) as bench:
        stop = asyncio.Event()

        async def work(text: str) -> str:
            while text == "stubborn" and not stop.is_set():
                try:
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    continue
            return text

        bench.agent("mixed", work)
        go = gate(bench)
        tasks: list[Any] = [
            BatchTask("stubborn"),
            BatchTask("x", agent="gated", timeout_s=60),
            "a",
            "b",
            "c",
        ]
        name = await bench.executor.submit_batch_tasks(tasks, agent="mixed")
        await until(lambda: "x" in bench.asked)
        bench.executor.configure_parallel_settings(name, slow_after="7s")
        go.set()
        status = await over(bench, name, 5)
        assert (status["completed"], status["failed"]) == (4, 1)
        stop.set()


@pytest.mark.parametrize("source", ["pilot", "producer"])
async def test_the_last_try_comes_also_behind_a_pilot_and_a_broken_producer(source: str) -> None:
    settings: dict[str, Any] = {
        "fallback_strategy": "retry",
        "pilot": {"at_least": 2},
        "max_concurrent": 1,
    }
    async with bench_of(settings) as bench:

        def work(text: str) -> str:
            raise ValueError(text)

        async def producer() -> AsyncIterator[str]:
            yield "a"
            yield "b"
            raise OSError("gone")

        bench.agent("bad", work)
        tasks: Any = producer() if source == "producer" else [str(n) for n in range(8)]
        name = await bench.executor.submit_batch_tasks(tasks, agent="bad")
        status = await over(bench, name)
        assert (status["failed"], set(Counter(bench.asked).values())) == (
            2 if source == "producer" else 8,
            {2},
        )


async def test_money_needs_its_approval_however_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy")
    async with (
        billing(delay_s=0.02) as provider,
        bench_of({"max_concurrent": 4}, ledger=MemoryLedger()) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        name = await bench.executor.submit_batch_tasks(
            [f"t{n}" for n in range(40)], agent="stub", max_cost_usd=0.0035
        )
        await until(lambda: provider.asked)
        await bench.executor.pause_execution(name)  # while the pilot runs
        await over(bench, name)
        if sum(provider.billed.values()) < 5:
            await bench.executor.resume_execution(name)
            assert (await over(bench, name))["status"] == "awaiting_approval"
        with pytest.raises(
            ApprovalRequired, match=r"about 0\.004200 USD, and its budget is 0\.0035 USD"
        ):
            await bench.executor.resume_execution(name)
        await bench.executor.suspend_execution(name)
        with pytest.raises(ApprovalRequired):
            await bench.executor.resume_execution(name)
        assert sum(provider.billed.values()) == 5
        await bench.executor.resume_execution(name, max_cost_usd=1.0)
        assert (await over(bench, name))["completed"] == 40


async def test_a_resume_during_a_cancel_comes_after_it() -> None:
    async with bench_of({"max_concurrent": 2, "grace": "300ms"}) as bench:
        go = gate(bench)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(20)], agent="gated")
        await until(lambda: len(bench.asked) == 2)
        cancelling = asyncio.ensure_future(bench.executor.cancel_execution(name))
        await asyncio.sleep(0.05)
        resuming = asyncio.ensure_future(bench.executor.resume_execution(name))
        await asyncio.sleep(0.05)
        assert len(bench.asked) == 2
        await asyncio.wait_for(asyncio.gather(cancelling, resuming), 5)
        go.set()
        assert (await over(bench, name))["completed"] == 20
        assert len(bench.asked) == 22


async def test_pausing_again_and_again_begins_nothing() -> None:
    async with bench_of({"max_concurrent": 3}) as bench:
        go = gate(bench)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(30)], agent="gated")
        await until(lambda: len(bench.asked) == 3)
        for _ in range(5):
            resuming = asyncio.ensure_future(bench.executor.resume_execution(name))
            await bench.executor.pause_execution(name)
            await resuming
            await bench.executor.pause_execution(name)
        go.set()
        status = await over(bench, name)
        assert (status["status"], status["completed"], len(bench.asked)) == ("paused", 3, 3)


async def test_producers_end_with_their_batch(no_tasks_left: None) -> None:
    async with bench_of({"max_concurrent": 1, "queue": {"size": 1}, "grace": "50ms"}) as bench:
        go = gate(bench)
        closed = list[str]()

        async def endless() -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
            finally:
                closed.append("closed")

        name = await bench.executor.submit_batch_tasks(endless(), agent="gated")
        await until(lambda: bench.asked)
        waiting = asyncio.ensure_future(bench.executor.submit_task(name, "more"))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await bench.executor.cancel_execution(name)
        with pytest.raises(InputInvalid, match="takes no more"):
            await asyncio.wait_for(waiting, 2)
        await until(lambda: closed)
        go.set()


async def test_executions_on_few_seats_are_served_in_turn() -> None:
    async with bench_of() as bench:
        settings = BatchSettings.parse({"max_concurrent": 4})
        backends = [AsyncioBackend(bench.factory, slots=2)]
        async with ParallelAgentExecutor(bench.factory, settings, backends=backends) as executor:

            async def work(text: str) -> str:
                await asyncio.sleep(0.002)
                return text

            bench.agent("naps", work)
            long = await executor.submit_batch_tasks(
                [f"long {n}" for n in range(200)], agent="naps"
            )
            await until(lambda: len(bench.asked) > 10)
            short = await executor.submit_batch_tasks(["short"], agent="naps")
            await executor.wait(short)
            assert bench.asked.index("short") < 60
            await executor.wait(long)


async def test_what_is_refused_for_a_while_waits_in_the_journal() -> None:
    async with bench_of(
        {"max_concurrent": 5, "queue": {"size": 20}}, rate_limits=["50/second"]
    ) as bench:
        most = 0
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(160)], agent="echo")
        run = bench.executor._registry._runners[name]
        waiting = asyncio.ensure_future(over(bench, name))
        refused = bench.told("rate_limit.refused")
        while not waiting.done():
            most = max(most, len(run.prefetcher.loaded_seqs))
            await asyncio.sleep(0.01)
        assert (await waiting)["completed"] == 160
        assert most <= 20 + 2 * 5
        assert len(refused) <= 60


async def test_one_refusal_holds_back_its_kind_and_no_other() -> None:
    queue: TaskQueue[Any] = TaskQueue()
    for agent in ("a", "b", "a"):
        queue.requeue(BatchRow(agent))
    queue.throttle("a", 0.1)
    first = queue.get_nowait()
    assert first is not None
    assert first.agent == "b"
    assert queue.get_nowait() is None
    later = await asyncio.wait_for(queue.get(), 2)
    assert later is not None
    assert later.agent == "a"


class BatchRow:
    def __init__(self, agent: str) -> None:
        from agent_runtime.batch import TaskPriority

        self.agent = agent
        self.priority = TaskPriority.NORMAL
        self.accepted_at = 0.0


async def test_an_error_at_the_start_gives_the_lease_back(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('"a"\n"b"\n')
    journal: Any = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    async with bench_of(journal=journal) as bench:
        name = await bench.executor.submit_batch_tasks(file, agent="echo")
        await over(bench, name)
        execution = await journal.get(name)
        execution.token = await journal.lease(name, "x", 0)
        execution.owner = "x"
        execution.input_closed = False
        execution.status = "paused"
        await journal.save(execution, release=True)
        file.unlink()
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                await bench.executor.resume_execution(name)
        file.write_text('"a"\n"b"\n"c"\n')
        with pytest.raises(ConfigurationError, match="max_concurent"):
            await bench.executor.rerun_failed(name, max_concurent=3)
        await bench.executor.resume_execution(name)
        assert (await over(bench, name))["completed"] == 3
    await journal.aclose()


async def test_ids_that_clash_lose_no_task(journal_url: str) -> None:
    journal: Any = open_journal(journal_url)
    async with bench_of(journal=journal) as bench:
        tasks: list[Any] = [
            BatchTask("1", id="a#3"),
            BatchTask("2", id="a"),
            BatchTask("3", id="a"),
            BatchTask("4", id="t5"),
            "5",
            6,
        ]
        name = await bench.executor.submit_batch_tasks(tasks, agent="echo")
        status = await over(bench, name)
        found = await bench.executor.get_execution_results(name)
        assert (status["total"], status["completed"], status["failed"]) == (6, 4, 2)
        assert len({each.task_id for each in found}) == 6
        assert [each.output for each in found if each.succeeded] == [
            "did 1",
            "did 2",
            "did 4",
            "did 5",
        ]
        assert (
            await bench.executor.rerun_failed(name) == 0
        )  # what could not be accepted cannot be run
        await over(bench, name)
        assert [
            each.error.kind
            for each in await bench.executor.get_execution_results(name)
            if each.error
        ] == ["input_invalid"] * 2
    await journal.aclose()


async def test_the_newest_goes_first_of_a_list_too(journal_url: str) -> None:
    journal: Any = open_journal(journal_url)
    async with bench_of(
        {"max_concurrent": 1, "queue": {"order": "lifo"}}, journal=journal
    ) as bench:
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(8)], agent="echo")
        await over(bench, name)
        assert bench.asked == [str(n) for n in range(7, -1, -1)]
    await journal.aclose()


async def test_a_failing_row_and_fail_fast_refuse_the_batch() -> None:
    async with bench_of({"fail_fast": True}) as bench:
        with pytest.raises(InputInvalid, match="end at the first failure"):
            await bench.executor.submit_batch_tasks(["a", 7], agent="echo")  # type: ignore[list-item]
        assert await bench.executor.list_executions() == []
        assert bench.asked == []


async def test_odd_arguments_have_clear_errors() -> None:
    async with bench_of() as bench:
        submit = bench.executor.submit_batch_tasks
        for given, said in (
            ({"tasks": None}, "tasks are"),
            ({"tasks": {"input": "x"}}, "tasks are"),
            ({"tasks": ["a"], "notes": {"x": object()}}, "notes"),
            ({"tasks": [{"input": "x", "timeout_s": 10**400}]}, "timeout"),
        ):
            with pytest.raises(InputInvalid, match=said):
                await submit(agent="echo", **given)
        executor = bench.executor
        assert executor._registry.ingestors == {}
    with pytest.raises(ConfigurationError, match="not open"):
        await executor.submit_batch_tasks(["a"], agent="echo")


async def test_a_retry_within_a_call_is_paid_under_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy")
    ledger = MemoryLedger()
    async with (
        billing(delay_s=0.05) as provider,
        bench_of({"approval": False, "max_concurrent": 3}, ledger=ledger) as bench,
    ):
        provider.slow_s = 0.6  # the first time that something is asked
        runtime = "{retry: {attempts: 4, initial_delay: 1ms}, timeout: {model_call: 300ms}}"
        bench.factory.register_template(parse_template(template(provider.url, runtime=runtime)))
        name = await bench.executor.submit_batch_tasks(
            [f"t{n}" for n in range(6)], agent="stub", max_cost_usd=1.0
        )
        status = await over(bench, name)
        assert status["completed"] == 6
        spent = ledger.balances().run()[f"batch={name}/total"].spent_micro_usd
        assert spent > 6 * 105  # each answer, and the estimate of each call that was cut


async def test_what_others_hold_of_a_budget_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy")
    settings = {"approval": False, "max_concurrent": 40}
    async with (
        billing(delay_s=0.02) as provider,
        bench_of(settings, ledger=MemoryLedger()) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        tasks = [f"t{n}" for n in range(80)]
        name = await bench.executor.submit_batch_tasks(
            tasks, agent="stub", max_cost_usd=0.012
        )  # 0.0084 is needed
        status = await over(bench, name, 30)
        assert (status["status"], status["completed"]) == ("completed", 80)
        assert max(provider.asked.values()) == 1
