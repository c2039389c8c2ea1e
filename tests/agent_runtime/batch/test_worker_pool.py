"""An execution: what it promises about tasks, their order, their failures, and its own end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.batches import bench_of, until
from tests.support.operations import operation_name

from agent_runtime import AgentContext, AgentResult
from agent_runtime.batch import (
    AsyncioBackend,
    BatchSettings,
    BatchTask,
    ParallelAgentExecutor,
    TaskPriority,
)
from agent_runtime.batch.journal import open_journal
from agent_runtime.errors import (
    ConfigurationError,
    ExecutionBusy,
    ExecutionNotFound,
    InputInvalid,
    QueueFull,
    RateLimited,
    StoreUnavailable,
    UnknownComponent,
)
from agent_runtime.storage.process_identity import process_identity


async def test_every_task_has_one_result_on_every_journal(journal_url: str) -> None:
    journal = open_journal(journal_url)
    async with bench_of({"max_concurrent": 7}, journal=journal) as bench:

        async def work(text: str) -> str:
            await asyncio.sleep(0.001)
            return f"did {text}"

        bench.agent("echo", work)
        name = await bench.executor.submit_batch_tasks(
            [str(n) for n in range(100)], agent="echo", name="hundred"
        )
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"], status["total"]) == ("completed", 100, 100)
        found = await bench.executor.get_execution_results(name)
        assert [each.output for each in found] == [f"did {n}" for n in range(100)]
        assert [(each.task_id, each.position) for each in found] == [
            (f"t{n}", n) for n in range(1, 101)
        ]
        assert bench.most == 7
        assert sorted(bench.asked, key=int) == [str(n) for n in range(100)]
        assert (await bench.executor.list_executions())[0]["name"] == "hundred"
        as_they_came = await bench.executor.get_execution_results(name, ordered=False)
        assert Counter(each.task_id for each in as_they_came) == Counter(
            each.task_id for each in found
        )
    await journal.aclose()


async def test_results_are_streamed_as_they_come_and_in_order() -> None:
    async with bench_of({"max_concurrent": 4}) as bench:

        async def work(text: str) -> str:
            await asyncio.sleep(0.15 if text == "0" else 0.01)
            return text

        bench.agent("slow_first", work)
        name = await bench.executor.submit_batch_tasks(
            [str(n) for n in range(12)], agent="slow_first"
        )
        came = [each.output async for each in bench.executor.stream_results(name)]
        assert sorted(came, key=int) == [str(n) for n in range(12)]
        assert came[-1] == "0" or came.index("0") > 6
        ordered = [each.output async for each in bench.executor.stream_results(name, ordered=True)]
        assert ordered == [str(n) for n in range(12)]
        again = await bench.executor.submit_batch_tasks(
            [str(n) for n in range(12)], agent="slow_first"
        )
        live = [
            each.output
            async for each in bench.executor.stream_results(again, ordered=True, after=3)
        ]
        assert live == [str(n) for n in range(3, 12)]


async def test_a_stream_that_is_left_disturbs_nothing(no_tasks_left: None) -> None:
    async with bench_of({"max_concurrent": 2}) as bench:
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(30)], agent="echo")
        stream = bench.executor.stream_results(name)
        assert (await anext(stream)).succeeded
        await stream.aclose()  # type: ignore[attr-defined]
        reading = asyncio.ensure_future(anext(bench.executor.stream_results(name, after=29)))
        await asyncio.sleep(0)
        reading.cancel()
        assert (await bench.executor.wait(name))["completed"] == 30


async def test_priorities_decide_what_is_run_first() -> None:
    async with bench_of({"max_concurrent": 1}) as bench:
        levels = ["low", "normal", "urgent", "high", "normal", "urgent"]
        tasks = [BatchTask(f"{level} {n}", priority=level) for n, level in enumerate(levels)]  # type: ignore[arg-type]
        await bench.executor.wait(await bench.executor.submit_batch_tasks(tasks, agent="echo"))
        assert bench.asked == ["urgent 2", "urgent 5", "high 3", "normal 1", "normal 4", "low 0"]


async def test_an_agent_has_a_limit_of_its_own_and_holds_up_no_other() -> None:
    async with bench_of(
        {"max_concurrent": 8, "limits": {"narrow": 2}, "queue": {"size": 6}}
    ) as bench:
        now = 0
        most = 0

        async def narrow(text: str) -> str:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1
            return text

        bench.agent("narrow", narrow)
        tasks = [BatchTask(f"n{n}", agent="narrow") for n in range(20)] + [
            BatchTask(f"e{n}") for n in range(20)
        ]
        name = await bench.executor.submit_batch_tasks(tasks, agent="echo")
        assert (await bench.executor.wait(name))["completed"] == 40
        assert most == 2
        assert max(bench.asked.index(f"e{n}") for n in range(20)) < bench.asked.index("n12")


async def test_transient_failures_are_tried_again_and_others_are_not() -> None:
    async with bench_of({"max_concurrent": 3}) as bench:
        tries = Counter[str]()

        def work(text: str) -> str:
            tries[text] += 1
            if text == "broken":
                raise ValueError("always")
            if text == "down" or tries[text] < 3:
                raise ConnectionError(f"cut {tries[text]}")
            return "at last"

        bench.agent("flaky", work)
        retried = bench.told("batch.retry")
        tasks = [BatchTask(each, id=each) for each in ("flaky", "down", "broken")]
        name = await bench.executor.submit_batch_tasks(tasks, agent="flaky")
        status = await bench.executor.wait(name)
        found = {each.task_id: each for each in await bench.executor.get_execution_results(name)}
        assert tries == {"flaky": 3, "down": 3, "broken": 1}
        assert (found["flaky"].status, found["flaky"].attempts, found["flaky"].output) == (
            "completed",
            3,
            "at last",
        )
        assert [each.kind for each in found["flaky"].history] == ["connection"] * 2
        assert [each.message for each in found["down"].history] == [
            f"ConnectionError: cut {n}" for n in (1, 2, 3)
        ]
        assert (found["down"].error.kind, found["broken"].error.kind) == (  # type: ignore[union-attr]
            "connection",
            "agent_failed",
        )
        assert status["errors"] == {"connection": 1, "agent_failed": 1}
        assert (status["status"], status["retries"], status["failed"]) == ("completed", 4, 2)
        await until(lambda: len(retried) == 4)


async def test_retries_have_a_budget() -> None:
    async with bench_of(
        {"max_concurrent": 5, "retry": {"attempts": 5, "initial_delay": "1ms", "budget": 0.1}}
    ) as bench:

        def work(text: str) -> str:
            raise ConnectionError("the provider is down")

        bench.agent("down", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(100)], agent="down")
        status = await bench.executor.wait(name)
        assert (status["failed"], status["retries"], len(bench.asked)) == (100, 20, 120)


async def test_a_refusal_that_says_when_to_come_again_is_no_attempt() -> None:
    async with bench_of(
        {"max_concurrent": 4, "retry": {"attempts": 1}}, rate_limits=["3/second"]
    ) as bench:
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(7)], agent="echo")
        status = await bench.executor.wait(name)
        found = await bench.executor.get_execution_results(name)
        assert (status["completed"], status["retries"]) == (7, 0)
        assert {each.attempts for each in found} == {1}
    assert RateLimited.code == "rate_limited"


@pytest.mark.parametrize(
    ("settings", "state", "statuses", "asked"),
    [
        ({}, "completed", {"completed": 5, "failed": 1}, 6),
        ({"continue_on_error": False}, "failed", {"completed": 2, "failed": 1}, 3),
        ({"fail_fast": True}, "failed", {"completed": 2, "failed": 1}, 3),
        ({"fallback_strategy": "skip"}, "completed", {"completed": 5, "skipped": 1}, 6),
        ({"fallback_strategy": "retry"}, "completed", {"completed": 5, "failed": 1}, 7),
    ],
)
async def test_what_is_done_about_failures(
    settings: dict[str, Any], state: str, statuses: dict[str, int], asked: int
) -> None:
    async with bench_of({"max_concurrent": 1, **settings}) as bench:

        def work(text: str) -> str:
            if text == "2":
                raise ValueError("no")
            return text

        bench.agent("fussy", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(6)], agent="fussy")
        status = await bench.executor.wait(name)
        assert (status["status"], len(bench.asked)) == (state, asked)
        assert {key: status[key] for key in statuses} == statuses
        assert status["ended"] == sum(statuses.values())
        if settings.get("fallback_strategy") == "retry":
            assert bench.asked[-1] == "2"
            assert (await bench.executor.get_execution_results(name))[2].attempts == 2


async def test_fail_fast_stops_what_runs() -> None:
    async with bench_of({"max_concurrent": 3, "fail_fast": True, "grace": "30s"}) as bench:

        async def work(text: str) -> str:
            if text == "bad":
                raise ValueError("no")
            await asyncio.sleep(30)
            return text

        bench.agent("mixed", work)
        name = await bench.executor.submit_batch_tasks(
            ["slow", "slower", "bad", "never"], agent="mixed"
        )
        status = await asyncio.wait_for(bench.executor.wait(name), 5)
        assert (status["status"], status["failed"], status["ended"]) == ("failed", 1, 1)
        assert "t3" in status["reason"]
        assert "never" not in bench.asked


async def test_a_task_that_hangs_fails_in_time_even_if_it_ignores_its_cancel() -> None:
    async with bench_of(
        {"max_concurrent": 2, "task_timeout": "200ms", "grace": "100ms", "retry": {"attempts": 1}}
    ) as bench:
        stubborn = asyncio.Event()

        async def work(text: str) -> str:
            while text == "stubborn" and not stubborn.is_set():
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue
            await asyncio.sleep(30 if text == "hangs" else 0)
            return text

        bench.agent("mixed", work)
        tasks = [BatchTask(each, id=each) for each in ("hangs", "stubborn", "fine", "good")]
        name = await bench.executor.submit_batch_tasks(tasks, agent="mixed")
        try:
            status = await asyncio.wait_for(bench.executor.wait(name), 5)
        finally:
            stubborn.set()
        found = {each.task_id: each for each in await bench.executor.get_execution_results(name)}
        assert {key: each.status for key, each in found.items()} == {
            "hangs": "failed", "stubborn": "failed", "fine": "completed", "good": "completed",
        }  # fmt: skip
        assert {found[key].error.kind for key in ("hangs", "stubborn")} == {"timeout"}  # type: ignore[union-attr]
        assert status["status"] == "completed"


async def test_a_slow_task_is_told() -> None:
    async with bench_of({"slow_after": "50ms"}) as bench:

        async def work(text: str) -> str:
            await asyncio.sleep(0.6 if text == "slow" else 0)
            return text

        bench.agent("mixed", work)
        told = bench.told("batch.slow")
        name = await bench.executor.submit_batch_tasks(
            [BatchTask("slow", id="s"), "quick"], agent="mixed"
        )
        status = await bench.executor.wait(name)
        await until(lambda: told)
        assert [(each["task_id"], each["execution_id"]) for each in told] == [("s", name)]
        assert (status["slow"], status["completed"]) == (1, 2)


async def test_cancel_begins_nothing_more_lets_none_past_its_grace_and_keeps_results() -> None:
    async with bench_of({"max_concurrent": 3, "grace": "300ms"}) as bench:
        cancelled = asyncio.Event()

        async def work(text: str) -> str:
            kind = text.partition(" ")[0]
            await (
                cancelled.wait()
                if kind == "medium"
                else asyncio.sleep({"short": 0.01, "long": 60}[kind])
            )
            return text

        bench.agent("mixed", work)
        tasks = [
            "short 1",
            "short 2",
            "short 3",
            "medium 4",
            "long 5",
            "long 6",
            *(f"short {n}" for n in range(50)),
        ]
        name = await bench.executor.submit_batch_tasks(tasks, agent="mixed")
        await until(lambda: "long 6" in bench.asked)
        begun = len(bench.asked)
        began_s = time.monotonic()
        cancel = asyncio.create_task(bench.executor.cancel_execution(name))
        await asyncio.sleep(0)  # it has begun
        cancelled.set()
        status = await cancel
        assert (
            time.monotonic() - began_s < 2
        )  # its grace of 300 ms, and not the time of one that does not stop
        assert len(bench.asked) == begun
        assert bench.now == 0
        assert (status["status"], status["completed"], status["running"]) == ("cancelled", 4, 0)
        assert [each.output for each in await bench.executor.get_execution_results(name)][
            -1
        ] == "medium 4"
        await asyncio.sleep(0.05)
        assert len(bench.asked) == begun
        bench.agent("mixed", lambda text: text)
        await bench.executor.resume_execution(name)  # and it can be gone on with, all the same
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"]) == ("completed", 56)
        assert (
            Counter(bench.asked)["short 1"] == 2
        )  # of the 50, and the first three: none was run twice


async def test_one_task_may_be_given_several_times() -> None:
    async with bench_of() as bench:
        own = BatchTask("x", agent="echo")
        name = await bench.executor.submit_batch_tasks([own] * 3)
        await bench.executor.wait(name)
        assert [each.task_id for each in await bench.executor.get_execution_results(name)] == [
            "t1",
            "t2",
            "t3",
        ]
        assert own == BatchTask("x", agent="echo")


class GatedBackend(AsyncioBackend):
    """Its tasks wait for `go`, and end in the same turn of the loop."""

    go: asyncio.Event
    begun = 0

    async def run(self, task: BatchTask, call: AgentContext, execution_id: str) -> AgentResult:
        self.begun += 1
        await self.go.wait()
        return AgentResult("done", None)


async def test_workers_that_get_free_as_a_cancel_comes_begin_nothing() -> None:
    async with bench_of() as bench:
        backend = GatedBackend(bench.factory)
        backend.go = asyncio.Event()
        settings = BatchSettings.parse({"max_concurrent": 2})
        async with ParallelAgentExecutor(bench.factory, settings, backends=[backend]) as executor:
            name = await executor.submit_batch_tasks(["a"] * 20, agent="echo")
            await until(lambda: backend.begun == 2)
            backend.go.set()
            status = await executor.cancel_execution(name)
            assert (status["status"], status["completed"], backend.begun) == ("cancelled", 2, 2)


async def test_pause_and_resume() -> None:
    async with bench_of({"max_concurrent": 2}) as bench:
        go = asyncio.Event()

        async def work(text: str) -> str:
            await go.wait()
            return text

        bench.agent("gated", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(10)], agent="gated")
        await until(lambda: len(bench.asked) == 2)
        await bench.executor.pause_execution(name)
        go.set()
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"], len(bench.asked)) == ("paused", 2, 2)
        assert (
            len([each async for each in bench.executor.stream_results(name)]) == 2
        )  # it ends while nothing runs
        await bench.executor.resume_execution(name)
        assert (await bench.executor.wait(name))["completed"] == 10


async def test_failed_tasks_are_run_again_and_others_are_not() -> None:
    async with bench_of({"max_concurrent": 4}) as bench:
        broken = True

        def work(text: str) -> str:
            if broken and int(text) % 3 == 0:
                raise ValueError("no")
            return f"did {text}"

        bench.agent("fussy", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(10)], agent="fussy")
        assert (await bench.executor.wait(name))["failed"] == 4
        broken = False
        bench.asked.clear()
        assert await bench.executor.rerun_failed(name) == 4
        status = await bench.executor.wait(name)
        assert (status["completed"], status["failed"]) == (10, 0)
        assert sorted(bench.asked) == ["0", "3", "6", "9"]
        found = await bench.executor.get_execution_results(name)
        assert [each.output for each in found] == [f"did {n}" for n in range(10)]
        assert [len(each.history) for each in found] == [
            1,
            0,
            0,
            1,
            0,
            0,
            1,
            0,
            0,
            1,
        ]  # what went wrong is kept


async def test_producers_are_held_back_or_refused() -> None:
    async with bench_of({"max_concurrent": 1, "queue": {"size": 3}}) as bench:
        go = asyncio.Event()
        given = 0

        async def work(text: str) -> str:
            await go.wait()
            return text

        async def endless() -> AsyncIterator[str]:
            nonlocal given
            while given < 50:
                given += 1
                yield str(given)

        bench.agent("gated", work)
        name = await bench.executor.submit_batch_tasks(endless(), agent="gated")
        await until(lambda: len(bench.asked) == 1)
        await asyncio.sleep(0.05)
        assert given == 5  # one runs, three wait, one is held
        with pytest.raises(QueueFull, match="3 tasks"):
            await bench.executor.submit_task(name, "more", wait=False)
        status = await bench.executor.get_execution_status(name)
        assert (status["total"], status["input_closed"]) == (4, False)
        go.set()
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"]) == ("completed", 50)
        with pytest.raises(InputInvalid, match="takes no more tasks"):
            await bench.executor.submit_task(name, "too late")


async def test_a_producer_that_fails_pauses_its_batch() -> None:
    async with bench_of() as bench:

        async def broken() -> AsyncIterator[str]:
            yield "one"
            raise OSError("the source is gone")

        name = await bench.executor.submit_batch_tasks(broken(), agent="echo")
        status = await bench.executor.wait(name)
        assert status["status"] == "paused"
        assert "the source is gone" in status["reason"]
        assert [each.output for each in await bench.executor.get_execution_results(name)] == [
            "did one"
        ]


async def test_bad_items_are_failed_tasks_and_the_others_run() -> None:
    async with bench_of() as bench:
        tasks: list[Any] = [
            "fine",
            7,
            {"input": "x", "colour": "red"},
            {"id": "no input"},
            BatchTask("a", id="same"),
        ]
        tasks += [
            BatchTask("b", id="same"),
            {"input": {"messages": [{"role": "user", "content": "hi"}]}},
        ]
        tasks += [
            {"input": float("nan")},
            {"input": "y", "priority": "soon"},
            {"input": "z", "metadata": {"n": 1}},
        ]
        name = await bench.executor.submit_batch_tasks(tasks, agent="echo")
        status = await bench.executor.wait(name)
        found = await bench.executor.get_execution_results(name)
        assert [each.status[0] for each in found] == list("cfffcfcffc")
        assert {each.error.kind for each in found if each.error} == {"input_invalid"}
        assert "appears twice" in found[5].error.message  # type: ignore[union-attr]
        assert (found[6].output, found[9].metadata) == ("did hi", {"n": 1})
        assert (status["failed"], len(bench.asked)) == (6, 4)


async def test_what_refuses_a_whole_batch_leaves_nothing_behind() -> None:
    async with bench_of({"max_cost_usd": 1.0}) as bench:
        submit = bench.executor.submit_batch_tasks
        with pytest.raises(InputInvalid, match="at least one task"):
            await submit([], agent="echo")
        with pytest.raises(UnknownComponent, match="nobody"):
            await submit(["x"], agent="nobody")
        with pytest.raises(ConfigurationError, match="needs a ledger"):
            await submit(["x"], agent="echo")
        with pytest.raises(ConfigurationError, match="names no agent"):
            await submit(["x"])
        with pytest.raises(InputInvalid, match="id is 1 to 64"):
            await submit(["x"], agent="echo", execution_id="no/such id")
        with pytest.raises(ConfigurationError, match="max_concurrent"):
            await submit(["x"], 0, agent="echo")
        assert await bench.executor.list_executions() == []
        for looked in (
            "get_execution_status",
            "get_execution_results",
            "resume_execution",
            "cancel_execution",
        ):
            with pytest.raises(ExecutionNotFound, match="'none'"):
                await getattr(bench.executor, looked)("none")


async def test_an_execution_is_run_by_one_process_at_a_time(journal_url: str) -> None:
    journal = open_journal(journal_url)
    async with (
        bench_of({"max_concurrent": 1}, journal=journal) as bench,
        bench_of(journal=journal) as other,
    ):
        go = asyncio.Event()

        async def work(text: str) -> str:
            await go.wait()
            return text

        bench.agent("gated", work)
        other.executor._environment.owner = "elsewhere:1:1"
        name = await bench.executor.submit_batch_tasks(
            ["a", "b"], agent="gated", execution_id="mine"
        )
        with pytest.raises(InputInvalid, match="already"):
            await other.executor.submit_batch_tasks(["c"], agent="echo", execution_id="mine")
        await until(lambda: bench.asked)
        with pytest.raises(ExecutionBusy):
            await other.executor.resume_execution(name)
        seen = await other.executor.get_execution_status(name)
        assert (seen["status"], seen["total"]) == ("running", 2)
        await other.executor.pause_execution(name)  # asked through the journal
        await until(
            lambda: bench.executor._registry._runners[name].active.execution.status == "paused"
        )
        go.set()
        assert (await bench.executor.wait(name))["status"] == "paused"
        await other.executor.cancel_execution(name, within_s=5)
        assert (await bench.executor.wait(name))["status"] == "cancelled"
    await journal.aclose()


async def test_who_has_lost_an_execution_writes_nothing_more(journal_url: str) -> None:
    journal = open_journal(journal_url)
    async with bench_of({"max_concurrent": 2}, journal=journal) as bench:
        go = asyncio.Event()

        async def work(text: str) -> str:
            await go.wait()
            return text

        bench.agent("gated", work)
        name = await bench.executor.submit_batch_tasks(["a", "b", "c"], agent="gated")
        await until(lambda: len(bench.asked) == 2)
        await journal.lease(name, "thief:1:1", 60, dead=bench.executor._environment.owner)
        go.set()
        run = bench.executor._registry._runners[name]
        await asyncio.wait_for(run.wait_closed(), 10)
        assert type(run.error).__name__ == "ExecutionLost"
        assert list(await journal.results(name)) == []
        assert bench.now == 0
    await journal.aclose()


async def test_a_store_that_fails_pauses_the_batch_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("agent_runtime.batch.journal.writer.RETRIES_S", (0.01, 0.01))
    journal: Any = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    fails = False
    inner = journal.arun_body

    async def failing(body: Any, args: Any) -> Any:
        if fails and operation_name(body) == "write":
            raise StoreUnavailable("the disk is gone")
        return await inner(body, args)

    monkeypatch.setattr(journal, "arun_body", failing)
    async with bench_of({"max_concurrent": 2}, journal=journal) as bench:

        async def work(text: str) -> str:
            nonlocal fails
            fails = fails or text == "12"
            await asyncio.sleep(0.01)
            return text

        bench.agent("unlucky", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(20)], agent="unlucky")
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(bench.executor.wait(name), 10)
        seen = [each.output for each in await bench.executor.get_execution_results(name)]
        assert 3 <= len(seen) < 20
        fails = False
        bench.agent("unlucky", lambda text: text)
        await bench.executor.resume_execution(name)
        assert (await bench.executor.wait(name))["completed"] == 20
        assert Counter(
            each.output for each in await bench.executor.get_execution_results(name)
        ) == Counter(str(n) for n in range(20))
    await journal.aclose()


async def test_a_task_that_has_lost_its_workers_is_put_aside(journal_url: str) -> None:
    journal = open_journal(journal_url)
    async with bench_of({"max_concurrent": 2}, journal=journal) as bench:
        name = await bench.executor.submit_batch_tasks(
            [BatchTask("x", id="bad"), "y"], agent="echo", execution_id="e"
        )
        await bench.executor.wait(name)
        execution = await journal.get(name)
        execution.owner = (
            f"{process_identity().rsplit(':', 2)[0]}:4194305:1"  # no process has that number
        )
        execution.token = await journal.lease(name, execution.owner, 60)
        execution.status = "running"
        await journal.reset(name, execution.token, ["completed"])
        (bad, _) = await journal.get_tasks(name, [1, 2])
        bad.status = "running"
        bad.dispatch_count = 3
        await journal.write(
            name,
            execution.token,
            [bench.executor._registry._runners[name].task_runner.build_outcome(bad).change],
        )
        await journal.save(execution)
        del bench.executor._registry._runners[name]
        bench.asked.clear()
        await bench.executor.resume_execution(name)
        status = await bench.executor.wait(name)
        assert (status["poisoned"], status["completed"], bench.asked) == (1, 1, ["y"])
        (letter,) = await bench.dead.list()
        assert (letter.queue, letter.attempts, letter.payload["execution_id"]) == ("batch", 3, "e")
        result = (await bench.executor.get_execution_results(name))[0]
        assert (result.task_id, result.error.kind, result.error.code) == (  # type: ignore[union-attr]
            "bad",
            "worker",
            "instance_failed",
        )
    await journal.aclose()


async def test_leaving_the_executor_pauses_what_runs(journal_url: str) -> None:
    journal = open_journal(journal_url)
    async with bench_of({"max_concurrent": 2, "grace": "50ms"}, journal=journal) as bench:

        async def work(text: str) -> str:
            await asyncio.sleep(60 if text == "long" else 0)
            return text

        bench.agent("mixed", work)
        name = await bench.executor.submit_batch_tasks(["a", "long", "b"], agent="mixed")
        await until(lambda: len(bench.asked) == 3)
        await asyncio.sleep(0.05)
    async with bench_of(journal=journal) as bench:
        if journal_url != "memory:":
            status = await bench.executor.get_execution_status(name)
            assert (status["status"], status["reason"], status["completed"]) == (
                "paused",
                "closed",
                2,
            )
        bench.agent("mixed", lambda text: text)
        await bench.executor.resume_execution(name)
        assert (await bench.executor.wait(name))["completed"] == 3
        assert bench.asked == ["long"]
    await journal.aclose()


async def test_settings_change_while_it_runs() -> None:
    async with bench_of({"max_concurrent": 1}) as bench:
        go = asyncio.Event()

        async def work(text: str) -> str:
            await go.wait()
            return text

        bench.agent("gated", work)
        name = await bench.executor.submit_batch_tasks([str(n) for n in range(30)], agent="gated")
        await until(lambda: bench.now == 1)
        assert (
            bench.executor.configure_parallel_settings(name, max_concurrent=6).max_concurrent == 6
        )
        await until(lambda: bench.now == 6)
        bench.executor.configure_parallel_settings(name, max_concurrent=2)
        go.set()
        assert (await bench.executor.wait(name))["completed"] == 30
        assert bench.executor.configure_parallel_settings(max_concurrent=3).max_concurrent == 3
        assert bench.executor.settings.max_concurrent == 3
        with pytest.raises(ConfigurationError, match="max_concurent"):
            bench.executor.configure_parallel_settings(max_concurent=3)
        metrics = await bench.executor.get_performance_metrics()
        assert (metrics["ended"], metrics["running"], metrics["executions"]) == (30, 0, 0)


async def test_tasks_carry_their_labels_and_one_key() -> None:
    async with bench_of() as bench:
        seen = bench.told("batch.task")
        task = BatchTask("x", id="mine", metadata={"customer": 7}, priority=TaskPriority.HIGH)
        name = await bench.executor.submit_batch_tasks([task], agent="echo")
        await bench.executor.wait(name)
        (result,) = await bench.executor.get_execution_results(name)
        assert (result.metadata, result.worker, result.agent) == (
            {"customer": 7},
            "asyncio",
            "echo",
        )
        assert result.template_digest
        await until(lambda: seen)
        assert seen[0]["task_id"] == "mine"


async def test_an_execution_runs_one_version_of_its_template() -> None:
    async with bench_of({"max_concurrent": 1}) as bench:
        go = asyncio.Event()

        async def work(text: str) -> str:
            await go.wait()
            return "first version"

        bench.agent("changing", work)
        tasks = [BatchTask("a", metadata={"n": 1}), BatchTask("b"), BatchTask("c")]
        name = await bench.executor.submit_batch_tasks(tasks, agent="changing")
        await until(lambda: bench.asked)
        bench.agent("changing", lambda text: "second version")
        bench.factory.unregister_template("changing")
        go.set()
        status = await bench.executor.wait(name)
        found = await bench.executor.get_execution_results(name)
        assert (status["completed"], {each.output for each in found}) == (3, {"first version"})
        bench.agent("changing", lambda text: "second version")
        again = await bench.executor.submit_batch_tasks(["a"], agent="changing")
        await bench.executor.wait(again)
        assert (await bench.executor.get_execution_results(again))[0].output == "second version"
