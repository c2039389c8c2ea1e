"""What a batch may cost: told before, held during, and paused when it is used up."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batches import bench_of
from tests.support.billing_provider import BillingProvider, billing, template
from tests.support.operations import operation_name

from agent_runtime import MemoryLedger, SessionManager, parse_template
from agent_runtime.batch import make_forecast, open_journal
from agent_runtime.batch.forecast import pilot_positions, student_t_quantile
from agent_runtime.batch.journal.sqlite import SqliteJournal
from agent_runtime.budgets.ledger.ledger import MICROS_PER_USD

ONE_USD = 0.000105
"""What a call of the stub provider costs: 100 tokens in and 40 out."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy")


async def batch(
    bench: Any,
    provider: BillingProvider,
    count: int,
    runtime: str = "{retry: {attempts: 1}}",
    **given: Any,
) -> tuple[str, dict[str, Any]]:
    bench.factory.register_template(parse_template(template(provider.url, runtime=runtime)))
    name = await bench.executor.submit_batch_tasks(
        [f"task {n}" for n in range(count)], agent="stub", **given
    )
    return name, await bench.executor.wait(name)


def spent_usd(ledger: MemoryLedger, name: str) -> float:
    balance = ledger.balances().run()[f"batch={name}/total"]
    assert balance.held_micro_usd == 0
    return float(balance.spent_micro_usd / MICROS_PER_USD)


@pytest.mark.parametrize(
    "journal_url",
    ["redis", *(pytest.param(s, marks=pytest.mark.integration) for s in ("memory", "sqlite"))],
    indirect=True,
)
async def test_a_batch_never_overspends_pauses_and_goes_on_with_more(journal_url: str) -> None:
    journal = open_journal(journal_url)
    ledger = MemoryLedger()
    settings = {"max_concurrent": 12, "approval": False}
    async with (
        billing(delay_s=0.02) as provider,
        bench_of(settings, journal=journal, ledger=ledger) as bench,
    ):
        name, status = await batch(bench, provider, 60, max_cost_usd=0.004)
        assert (status["status"], status["reason"], status["running"]) == ("paused", "budget", 0)
        assert 0 < status["completed"] < 60
        assert status["completed"] == sum(provider.billed.values())
        assert float(provider.billed_usd) == pytest.approx(spent_usd(ledger, name))
        assert spent_usd(ledger, name) <= 0.004
        assert float(status["cost_usd"]) == pytest.approx(spent_usd(ledger, name))
        await bench.executor.resume_execution(name)  # without more money nothing happens
        assert (await bench.executor.wait(name))["reason"] == "budget"
        await bench.executor.resume_execution(name, max_cost_usd=1.0)
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"], status["max_cost_usd"]) == (
            "completed",
            60,
            1.0,
        )
        assert set(provider.billed.values()) == {1}
        assert (
            float(provider.billed_usd)
            == pytest.approx(spent_usd(ledger, name))
            == pytest.approx(60 * ONE_USD)
        )
        report = await bench.executor.get_report(name)
        assert Decimal(report.cost_usd) == provider.billed_usd
        assert (report.usage["input_tokens"], report.usage["model_calls"]) == (6000, 60)
    await journal.aclose()


class SlowJournal(SqliteJournal):
    """Takes its time to keep what an execution is."""

    async def arun_body(self, body: Any, args: Any) -> Any:
        if operation_name(body) == "save":
            await asyncio.sleep(0.05)
        return await super().arun_body(body, args)


async def test_conversations_that_a_budget_interrupts_go_on_with_more(tmp_path: Path) -> None:
    """Where a template says so a call with a session is interrupted.

    Nothing runs when the batch rests.
    """
    journal = SlowJournal(tmp_path / "j.db")
    ledger = MemoryLedger()
    settings = {"max_concurrent": 3, "approval": False, "sessions": True}
    seats = {"ledger": ledger, "session_manager": SessionManager()}
    async with (
        billing(delay_s=0.02) as provider,
        bench_of(settings, journal=journal, **seats) as bench,
    ):
        runtime = "{retry: {attempts: 1}, cost: {on_exhausted: pause}}"
        name, status = await batch(bench, provider, 12, runtime, max_cost_usd=0.001)
        assert (status["status"], status["reason"], status["running"]) == ("paused", "budget", 0)
        assert 0 < status["completed"] < 12
        counts = await journal.counts(name)
        assert counts == {"completed": status["completed"], "pending": 12 - status["completed"]}
        await bench.executor.resume_execution(name, max_cost_usd=1.0)
        status = await bench.executor.wait(name)
        assert (status["status"], status["completed"]) == ("completed", 12)
        assert set(provider.billed.values()) == {1}
        assert float(provider.billed_usd) == pytest.approx(spent_usd(ledger, name))
    await journal.aclose()


async def test_a_forecast_above_the_budget_waits_for_approval() -> None:
    async with (
        billing(delay_s=0.005) as provider,
        bench_of({"max_concurrent": 4}, ledger=MemoryLedger()) as bench,
    ):
        told = bench.told("batch.forecast")
        name, status = await batch(bench, provider, 40, max_cost_usd=0.003)
        assert (status["status"], status["completed"]) == ("awaiting_approval", 5)
        made = status["forecast"]
        assert (made["sample"], made["tasks"]) == (5, 40)
        assert made["cost_usd"] == pytest.approx(40 * ONE_USD)
        assert made["low_usd"] == pytest.approx(made["high_usd"]) == pytest.approx(40 * ONE_USD)
        assert sorted(provider.asked) == sorted(
            f"task {n - 1}" for n in pilot_positions(40, 0.01, 5)
        )
        assert told
        await bench.executor.resume_execution(name, approve=True)
        status = await bench.executor.wait(name)
        assert (status["status"], status["reason"]) == ("paused", "budget")  # approved is not paid
        assert float(provider.billed_usd) <= 0.003


async def test_a_forecast_within_the_budget_asks_nobody() -> None:
    async with (
        billing(delay_s=0.005) as provider,
        bench_of({"max_concurrent": 4}, ledger=MemoryLedger()) as bench,
    ):
        _, status = await batch(bench, provider, 30, max_cost_usd=1.0)
        assert (status["status"], status["completed"]) == ("completed", 30)
        assert status["forecast"]["cost_usd"] == pytest.approx(30 * ONE_USD)
        assert set(provider.asked.values()) == {1}


async def test_two_batches_have_an_account_each() -> None:
    ledger = MemoryLedger()
    async with (
        billing(delay_s=0.01) as provider,
        bench_of({"max_concurrent": 4, "approval": False}, ledger=ledger) as bench,
    ):
        bench.factory.register_template(parse_template(template(provider.url)))
        names = [
            await bench.executor.submit_batch_tasks(
                [f"{each} {n}" for n in range(20)], agent="stub", max_cost_usd=limit
            )
            for each, limit in (("poor", 0.0012), ("rich", 1.0))
        ]
        poor, rich = await asyncio.gather(*(bench.executor.wait(name) for name in names))
        assert (poor["reason"], rich["status"], rich["completed"]) == ("budget", "completed", 20)
        assert spent_usd(ledger, names[0]) <= 0.0012
        assert spent_usd(ledger, names[1]) == pytest.approx(20 * ONE_USD)


@given(st.floats(0.001, 10), st.integers(2, 50), st.integers(0, 1000))
def test_equal_costs_are_forecast_exactly(cost: float, sample: int, rest: int) -> None:
    made = make_forecast(
        [Decimal(str(cost))] * sample,
        [7] * sample,
        [2.0] * sample,
        tasks=sample + rest,
        concurrent=4,
    )
    assert made.cost_usd == pytest.approx(cost * (sample + rest))
    assert made.low_usd == pytest.approx(made.high_usd, rel=1e-6)
    assert made.tokens == 7 * (sample + rest)


def test_the_interval_holds_as_often_as_it_says() -> None:
    import random

    dice = random.Random(5)
    held = 0
    for _ in range(400):
        costs = [dice.lognormvariate(0, 0.5) for _ in range(300)]
        made = make_forecast([Decimal(str(c)) for c in costs[:20]], [], [], tasks=300, concurrent=1)
        assert made.low_usd is not None
        assert made.high_usd is not None
        held += made.low_usd <= sum(costs) <= made.high_usd
    assert 0.9 <= held / 400 <= 0.99


def test_what_cannot_be_told_is_not() -> None:
    made = make_forecast([Decimal(1), None], [1, 1], [1.0, 1.0], tasks=10, concurrent=2)
    assert (made.cost_usd, made.low_usd, made.tokens, made.seconds) == (None, None, 10, 5.0)
    assert make_forecast([], [], [], tasks=3, concurrent=1).cost_usd is None
    alone = make_forecast([Decimal(2)], [1], [1.0], tasks=3, concurrent=1)
    assert (alone.cost_usd, alone.low_usd, alone.high_usd) == (6.0, 2.0, 10.0)
    assert [round(student_t_quantile(0.95, n), 3) for n in (1, 2, 3, 4, 9, 29, 200)] == [
        12.706, 4.303, 3.182, 2.776, 2.262, 2.045, 1.972,
    ]  # fmt: skip
    assert pilot_positions(1000, 0.01, 5)[0] == 51
    assert len(pilot_positions(1000, 0.02, 5)) == 20
    assert pilot_positions(3, 0.01, 5) == [1, 2, 3]
