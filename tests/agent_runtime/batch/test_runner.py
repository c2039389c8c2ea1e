"""What is interrupted at the worst moment.

Acceptance, loading, pauses, and executions whose process is gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import QUICK, bench_of, until
from tests.support.billing_provider import billing, template
from tests.support.operations import operation_name

from agent_runtime import AgentContext, AgentResult, MemoryLedger, parse_template
from agent_runtime.batch import (
    AsyncioBackend,
    BatchSettings,
    BatchTask,
    ParallelAgentExecutor,
    open_journal,
)
from agent_runtime.batch.journal import writer
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.sqlite import SqliteJournal
from agent_runtime.budgets.ledger.ledger import Account, Amount, ReservationRequest
from agent_runtime.errors import (
    ApprovalRequired,
    ConfigurationError,
    StoreUnavailable,
    UnknownComponent,
)
from agent_runtime.storage.process_identity import process_identity


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy")


class Hooked(MemoryJournal):
    """Has `before` called with each operation's name first, which may raise or wait."""

    def __init__(self, before: Callable[[str], Any]) -> None:
        super().__init__()
        self.before = before

    async def arun_body(self, body: Any, args: Any) -> Any:
        await self.before(operation_name(body))
        return await super().arun_body(body, args)


class Ended(Exception):
    """The process ends here, as far as the journal sees."""


async def endless(started: asyncio.Event, given: asyncio.Queue[str]) -> Any:
    started.set()
    while (text := await given.get()) != "end":
        yield text


async def test_tasks_that_are_submitted_at_once_have_places_of_their_own() -> None:
    """Also when one of them is refused while another one is being kept."""
    async with bench_of() as bench:
        given = asyncio.Queue[str]()
        started = asyncio.Event()
        name = await bench.executor.submit_batch_tasks(endless(started, given), agent="echo")
        await started.wait()
        submit = bench.executor.submit_task
        wrong = submit(name, {"input": "x", "agent": "nobody"})
        told = await asyncio.gather(
            wrong, submit(name, "a"), submit(name, "b"), return_exceptions=True
        )
        assert [type(each) for each in told] == [UnknownComponent, type(None), type(None)]
        for text in "cde":
            await asyncio.wait_for(submit(name, text), 3)
        given.put_nowait("end")
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"]) == ("completed", 5)


async def test_who_goes_away_while_a_task_is_accepted_leaves_a_task_that_runs() -> None:
    slow = asyncio.Event()

    async def before(operation: str) -> None:
        if operation == "add":
            slow.set()
            await asyncio.sleep(0.1)

    async with bench_of(journal=Hooked(before)) as bench:
        given = asyncio.Queue[str]()
        started = asyncio.Event()
        name = await bench.executor.submit_batch_tasks(endless(started, given), agent="echo")
        await started.wait()
        leaving = asyncio.create_task(bench.executor.submit_task(name, "left"))
        await slow.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await bench.executor.submit_task(name, "stays")
        given.put_nowait("end")
        status = await bench.executor.wait(name)
        assert (status["status"], status["total"], status["completed"]) == ("completed", 2, 2)
        assert await bench.executor.journal.counts(name) == {"completed": 2}


async def test_a_process_that_ends_between_two_steps_of_acceptance_is_gone_on_with(
    tmp_path: Path,
) -> None:
    """Two tasks of one id: the second is kept in a step of its own.

    What is missing of the file is taken, once.
    """
    file = tmp_path / "t.jsonl"
    file.write_text(
        "".join(json.dumps({"id": name, "input": f"{n}"}) + "\n" for n, name in enumerate("aacd"))
    )
    added = 0

    async def before(operation: str) -> None:
        nonlocal added
        added += operation == "add"
        if ending and (added == 2 or operation == "delete"):
            raise Ended

    ending = True
    journal = Hooked(before)
    async with bench_of(journal=journal) as bench:
        with pytest.raises(Ended):
            await bench.executor.submit_batch_tasks(file, agent="echo", execution_id="b")
        ending = False
        assert await journal.counts("b") == {"pending": 3}
        async with asyncio.timeout(5):
            await bench.executor.resume_execution("b")
            status = await bench.executor.wait("b")
        assert (status["completed"], status["failed"]) == (3, 1)
        found = await bench.executor.get_execution_results("b")
        assert [(each.position, each.task_id) for each in found] == [
            (1, "a"),
            (2, "a#2"),
            (3, "c"),
            (4, "d"),
        ]


async def test_a_store_that_fails_while_an_execution_loads_leaves_it_to_be_resumed() -> None:
    failing = True

    async def before(operation: str) -> None:
        if failing and operation == "results":
            raise StoreUnavailable("gone")

    async with bench_of(journal=Hooked(before)) as bench:
        name = await bench.executor.submit_batch_tasks(["a", "b"], agent="echo")
        with pytest.raises(StoreUnavailable):
            await bench.executor.wait(name)
        failing = False
        status = await bench.executor.get_execution_status(name)
        assert (status["status"], status["total"]) == ("paused", 2)
        await bench.executor.resume_execution(name)
        assert (await bench.executor.wait(name))["completed"] == 2


async def test_one_hiccup_of_a_store_stops_nothing() -> None:
    failed = set[str]()

    class Hiccups(MemoryJournal):
        """Does what it is asked, and fails to say so the first time."""

        async def arun_body(self, body: Any, args: Any) -> Any:
            found = await super().arun_body(body, args)
            if (
                operation_name(body) in ("rows", "add", "write")
                and operation_name(body) not in failed
            ):
                failed.add(operation_name(body))
                raise StoreUnavailable("for a moment")
            return found

    async with bench_of(journal=Hiccups()) as bench:
        name = await bench.executor.submit_batch_tasks(["a"] * 5, agent="echo")
        assert (await bench.executor.wait(name))["completed"] == 5
        assert failed == {"rows", "add", "write"}


async def test_a_task_that_is_overdue_while_its_pause_is_written_is_not_lost() -> None:
    async def before(operation: str) -> None:
        if operation == "save" and slow:
            await asyncio.sleep(1.5)

    slow = False
    settings = {"max_concurrent": 2, "approval": False, "task_timeout": "500ms"}
    async with (
        billing(delay_s=0.01) as provider,
        bench_of(settings, journal=Hooked(before), ledger=MemoryLedger()) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        tasks = [f"t{n}" for n in range(8)]
        name = await bench.executor.submit_batch_tasks(tasks, agent="stub", max_cost_usd=0.0006)
        await until(lambda: provider.asked)
        slow = True
        assert (await bench.executor.wait(name))["reason"] == "budget"
        slow = False
        await bench.executor.resume_execution(name, max_cost_usd=1.0)
        status = await asyncio.wait_for(bench.executor.wait(name), 10)
        assert status["completed"] == 8


async def test_what_a_dead_call_holds_of_a_budget_is_not_waited_for() -> None:
    ledger = MemoryLedger()
    async with (
        billing(delay_s=0.01) as provider,
        bench_of({"approval": False}, ledger=ledger) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        ledger.transact((), _held("b", 950, limit=1000)).run()
        name = await bench.executor.submit_batch_tasks(
            ["a"], agent="stub", max_cost_usd=0.001, execution_id="b"
        )
        status = await asyncio.wait_for(bench.executor.wait(name), 5)
        assert (status["status"], status["reason"]) == ("paused", "budget")


@pytest.mark.parametrize("how", ["rerun", "cancel", "pause"])
async def test_approval_is_asked_for_whatever_came_between(how: str) -> None:
    async with (
        billing(delay_s=0.005) as provider,
        bench_of({"max_concurrent": 4}, ledger=MemoryLedger()) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        tasks = [f"t{n}" for n in range(40)]
        name = await bench.executor.submit_batch_tasks(tasks, agent="stub", max_cost_usd=0.003)
        assert (await bench.executor.wait(name))["status"] == "awaiting_approval"
        await bench.executor.suspend_execution(name)
        if how != "rerun":
            await getattr(bench.executor, f"{how}_execution")(name)
        again = bench.executor.rerun_failed if how == "rerun" else bench.executor.resume_execution
        with pytest.raises(ApprovalRequired):
            await again(name)
        assert sum(provider.billed.values()) == 5


async def test_a_budget_that_comes_later_is_for_what_was_spent_before_too() -> None:
    async with (
        billing(delay_s=0.02) as provider,
        bench_of({"max_concurrent": 2}, ledger=MemoryLedger()) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        name = await bench.executor.submit_batch_tasks([f"t{n}" for n in range(40)], agent="stub")
        await until(lambda: sum(provider.billed.values()) >= 8)
        await bench.executor.pause_execution(name)
        await bench.executor.wait(name)
        with pytest.raises(ConfigurationError, match="resume_execution"):
            bench.executor.configure_parallel_settings(name, max_cost_usd=0.0015)
        await bench.executor.resume_execution(name, max_cost_usd=0.0015, approve=True)
        status = await bench.executor.wait(name)
        assert (status["status"], status["reason"]) == ("paused", "budget")
        assert float(provider.billed_usd) <= 0.0015
    async with bench_of() as bench:
        name = await bench.executor.submit_batch_tasks(["a"], agent="echo")
        await bench.executor.pause_execution(name)
        with pytest.raises(ConfigurationError, match="needs a ledger"):
            await bench.executor.resume_execution(name, max_cost_usd=1.0)


class Named(AsyncioBackend):
    """Notes under which names its tasks' calls are made; they do not end before they may."""

    names: list[str | None]
    go: asyncio.Event

    async def run(self, task: BatchTask, call: AgentContext, execution_id: str) -> AgentResult:
        self.names.append(call.idempotency_key)
        await self.go.wait()
        return AgentResult("done", None)


@pytest.mark.parametrize("between", ["nothing", "pause", "cancel", "rerun"])
async def test_after_a_crash_calls_have_their_names_again_whatever_came_between(
    between: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRIES_S", ())  # who dies does not insist
    path = tmp_path / "j.db"
    names = list[str | None]()
    settings = BatchSettings.parse({**QUICK, "max_concurrent": 2})

    async def run(bench: Any, journal: Any, *, ends: bool) -> tuple[ParallelAgentExecutor, Named]:
        backend = Named(bench.factory)
        backend.names = names
        backend.go = asyncio.Event()
        if ends:
            backend.go.set()
        executor = ParallelAgentExecutor(
            bench.factory, settings, journal=journal, backends=[backend]
        )
        await executor.__aenter__()
        return executor, backend

    async with bench_of() as bench:
        first = SqliteJournal(path)
        second = SqliteJournal(path)
        dying, _ = await run(bench, first, ends=False)
        dying._environment.owner = (
            f"{process_identity().rsplit(':', 2)[0]}:4194305:1"  # a process that does not exist
        )
        await dying.submit_batch_tasks(["x"], agent="echo", execution_id="b")
        await until(lambda: names)
        if between == "pause":
            await dying.pause_execution("b")
        async with asyncio.timeout(10):  # that the task runs is written a moment after it began
            while not (await first.counts("b")).get("running"):
                await asyncio.sleep(0)
        await first.aclose()  # it writes nothing any more
        living, _ = await run(bench, second, ends=True)
        if between == "cancel":
            status = await living.cancel_execution("b")
            assert (status["status"], status["running"]) == ("cancelled", 0)
        await (living.rerun_failed if between == "rerun" else living.resume_execution)("b")
        assert (await living.wait("b"))["completed"] == 1
        assert names == ["b:t1:1", "b:t1:1"]
        await living.__aexit__()
        await second.aclose()
        await dying.__aexit__()


async def test_nothing_begins_on_an_executor_that_closes() -> None:
    async def before(operation: str) -> None:
        if operation == "ack_request" and closing is not None:
            await closing

    closing = None
    journal = Hooked(before)
    async with bench_of({"max_concurrent": 1}, journal=journal) as bench:
        executor = ParallelAgentExecutor(bench.factory, journal=journal)
        await executor.__aenter__()
        name = await executor.submit_batch_tasks(["a"] * 5, agent="echo")
        await executor.suspend_execution(name)
        closing = asyncio.ensure_future(executor.__aexit__())
        with pytest.raises(ConfigurationError, match="not open"):
            await executor.resume_execution(name)
        assert executor.active_executions() == []
        assert (await bench.executor.get_execution_status(name))["status"] == "paused"
        closing = None
        await bench.executor.resume_execution(name)  # its lease is free
        await bench.executor.wait(name)


@pytest.mark.parametrize("settings", [{"fail_fast": True}, {"continue_on_error": False}])
async def test_a_bad_item_of_a_producer_is_a_failure_as_others_are(
    settings: dict[str, Any],
) -> None:
    async def items() -> Any:
        yield "good"
        yield {"input": "x", "priority": "soon", "id": "A17", "metadata": {"row": 2}}
        for _ in range(20):
            await asyncio.sleep(0.01)
            yield "later"

    async with bench_of(settings) as bench:
        told = bench.told("batch.task")
        name = await bench.executor.submit_batch_tasks(items(), agent="echo")
        assert (await bench.executor.wait(name))["status"] == "failed"
        assert len(bench.asked) <= 2
        assert {each["status"] for each in told} >= {"failed"}
        found = {each.task_id: each for each in await bench.executor.get_execution_results(name)}
        assert (found["A17"].status, found["A17"].metadata) == (
            "failed",
            {"row": 2},
        )  # it is found in its source
        assert bench.executor.result_counts()["failed"] == 1


async def test_time_in_which_a_batch_rests_is_not_its_own() -> None:
    async with bench_of({"max_concurrent": 1}) as bench:
        bench.agent("naps", lambda text: asyncio.sleep(0.02, text))
        name = await bench.executor.submit_batch_tasks(["a"] * 10, agent="naps")
        await until(lambda: len(bench.asked) == 3)
        await bench.executor.pause_execution(name)
        await bench.executor.wait(name)
        await asyncio.sleep(1.5)
        await bench.executor.resume_execution(name)
        await bench.executor.wait(name)
        assert 0.19 < (await bench.executor.get_report(name)).wall_s < 1.2


async def test_a_report_is_of_what_another_process_did_since(tmp_path: Path) -> None:
    journal = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    async with bench_of({"max_concurrent": 1}, journal=journal) as bench:
        bench.agent("naps", lambda text: asyncio.sleep(0.02, text))
        name = await bench.executor.submit_batch_tasks(["a"] * 10, agent="naps")
        await until(lambda: len(bench.asked) == 3)
        await bench.executor.suspend_execution(name)
        async with ParallelAgentExecutor(bench.factory, journal=journal) as other:
            await other.resume_execution(name)
            await other.wait(name)
        report = await bench.executor.get_report(name)
        assert (report.status, report.by_status) == ("completed", {"completed": 10})
    await journal.aclose()


async def test_backends_that_were_opened_are_closed_when_one_cannot_be() -> None:
    said: list[str] = []

    class Told(AsyncioBackend):
        async def open(self) -> None:
            said.append(f"open {self.name}")
            if self.name == "bad":
                raise ConnectionError("no such machine")

        async def aclose(self) -> None:
            said.append(f"close {self.name}")

    async with bench_of() as bench:
        backends = [Told(bench.factory, name="good"), Told(bench.factory, name="bad")]
        with pytest.raises(ConnectionError):
            async with ParallelAgentExecutor(bench.factory, backends=backends):
                raise AssertionError("it opened")
        assert said == ["open good", "open bad", "close good"]
        with pytest.raises(ConfigurationError, match="needs an agent"):
            await bench.executor.aggregate(
                await bench.executor.submit_batch_tasks(["a"], agent="echo"), "reduce"
            )


async def test_a_limit_by_name_holds_for_an_agent_that_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    async with (
        billing(delay_s=0.01) as provider,
        bench_of({"max_concurrent": 8, "limits": {"stub": 1}}) as bench,
    ):
        file.write_text(template(provider.url))
        began_s = asyncio.get_running_loop().time()
        name = await bench.executor.submit_batch_tasks(
            [f"t{n}" for n in range(12)], agent=str(file)
        )
        metrics = [await bench.executor.get_performance_metrics()]
        while (await bench.executor.get_execution_status(name))["status"] in ("pending", "running"):
            metrics.append(await bench.executor.get_performance_metrics())
            await asyncio.sleep(0.002)
        assert max(each["running"] for each in metrics) == 1
        assert asyncio.get_running_loop().time() - began_s > 0.06


def _held(execution_id: str, micro_usd: int, *, limit: int) -> Any:
    account = Account(f"batch={execution_id}/total", limit, None)
    return ReservationRequest("dead", (account,), Amount(micro_usd, 0), Amount(micro_usd, 0), 900.0)
