"""A killed batch: nothing that had ended is run again, and what was under way is paid once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.batch_kill_loop import kill_loop
from tests.support.batches import bench_of
from tests.support.billing_provider import billing, template

from agent_runtime import MemoryLedger, SessionManager, parse_template
from agent_runtime.batch import open_journal
from agent_runtime.batch.journal.records import execution_document
from agent_runtime.storage.process_identity import is_process_dead, process_identity
from agent_runtime.testing import ScriptedChatModel, say


def test_kill_and_resume_until_it_is_through(tmp_path: Path) -> None:
    found = kill_loop(tmp_path, tasks=60, kills=1, delay_s=0.05)
    assert (found["killed"], found["finished_again"]) == (1, 0)
    assert (found["results"], found["right"], found["billed"]) == (60, 60, 60)
    assert found["asked"] > 60  # what was under way was asked again, and not billed again
    assert found["ledger_usd"] == pytest.approx(found["provider_usd"])
    assert found["held_usd"] == 0


async def test_without_an_idempotency_header_what_was_lost_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The provider has billed it, for all that is known: the ledger is never below the truth."""
    monkeypatch.setenv("DUMMY_KEY", "dummy")
    ledger = MemoryLedger()
    async with (
        billing(delay_s=0.05) as provider,
        bench_of({"approval": False}, ledger=ledger) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url, header=False)))
        name = await bench.executor.submit_batch_tasks(["a", "b"], agent="stub", max_cost_usd=1.0)
        await bench.executor.wait(name)
        assert provider.replayed == 0
        balance = ledger.balances().run()[f"batch={name}/total"]
        assert balance.spent_micro_usd == 2 * 105


async def test_with_sessions_a_task_goes_on_behind_its_last_step(tmp_path: Path) -> None:
    """A tool that has run is not run again, and its model call is not paid again."""
    runs: list[str] = []
    broken = True

    async def lookup(key: str) -> str:
        """Look something up."""
        runs.append(key)
        return f"value of {key}"

    def script(messages: list[Any]) -> Any:
        if messages[-1].type != "tool":
            return say("", ("lookup", {"key": str(messages[-1].text)}))
        return say("", fail=ConnectionError("cut")) if broken else say(f"it is {messages[-1].text}")

    journal = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    manager = SessionManager.from_url(f"sqlite:{tmp_path / 's.db'}")
    settings = {"sessions": True, "retry": {"attempts": 1}}
    async with bench_of(settings, journal=journal, session_manager=manager) as bench:
        model = ScriptedChatModel(script=script)
        bench.factory.register_model("scripted", model)
        bench.factory.register_tool("lookup", lookup)
        text = (
            "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: finder}\n"
            "spec: {model: scripted, tools: [lookup], runtime: {retry: {attempts: 1}}}\n"
        )
        bench.factory.register_template(parse_template(text))
        name = await bench.executor.submit_batch_tasks(["x", "y"], agent="finder")
        assert (await bench.executor.wait(name))["failed"] == 2
        assert sorted(runs) == ["x", "y"]
        broken = False
        await bench.executor.rerun_failed(name)
        assert (await bench.executor.wait(name))["completed"] == 2
        found = await bench.executor.get_execution_results(name)
        assert [each.output for each in found] == ["it is value of x", "it is value of y"]
        assert sorted(runs) == ["x", "y"]
        assert {each.session_id for each in found} == {f"{name}-1", f"{name}-2"}
    await journal.aclose()


def test_owners_are_known_by_their_process() -> None:
    own = process_identity()
    host, pid, began = own.rsplit(":", 2)
    assert not is_process_dead(own)
    assert is_process_dead(f"{host}:{pid}:{int(began or 1) + 1}")  # another process had that pid
    assert is_process_dead(f"{host}:4194305:1")
    assert not is_process_dead(f"elsewhere:{pid}:1")
    assert not is_process_dead("nonsense")


async def test_the_next_process_takes_over_a_dead_owners_batch_at_once(tmp_path: Path) -> None:
    journal = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    async with bench_of(journal=journal) as bench:
        name = await bench.executor.submit_batch_tasks(["a", "b"], agent="echo", execution_id="e")
        await bench.executor.wait(name)
        execution = await journal.get(name)
        host = process_identity().rsplit(":", 2)[0]
        execution.token = await journal.lease(name, f"{host}:4194305:1", 10**6)
        execution.owner = f"{host}:4194305:1"
        execution.status = "running"
        await journal.reset(name, execution.token, ["completed"])
        await journal.save(execution)
        del bench.executor._registry._runners[name]
        assert (await bench.executor.get_execution_status(name))["status"] == "lost"
        await bench.executor.resume_execution(name)
        status = await asyncio.wait_for(bench.executor.wait(name), 5)
        assert (status["status"], status["completed"]) == ("completed", 2)
    await journal.aclose()


async def test_a_file_whose_tasks_were_not_all_accepted_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("".join(f'"{n}"\n' for n in range(10)))
    journal = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    async with bench_of(journal=journal) as bench:
        name = await bench.executor.submit_batch_tasks(file, agent="echo", execution_id="e")
        await bench.executor.wait(name)
    async with bench_of(
        journal=journal
    ) as bench:  # as if it had ended when four were in the journal
        _cut(journal, 4)
        await bench.executor.resume_execution("e")
        status = await bench.executor.wait("e")
        assert (status["completed"], status["total"]) == (10, 10)
        assert sorted(bench.asked, key=int) == [str(n) for n in range(4, 10)]
    await journal.aclose()


def _cut(journal: Any, kept: int) -> None:
    for table in ("tasks", "states", "results"):
        journal._db.execute(f"DELETE FROM {table} WHERE seq > ?", (kept,))
    found = journal.get("e").run()
    found.input_closed = False
    found.status = "running"
    journal._db.execute("UPDATE executions SET document=?", (execution_document(found),))
