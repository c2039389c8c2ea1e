"""opencode #48642, Portkey models #900: DeepSeek bills twice as much at peak hours.

Others change on a date.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tests.support.providers import obedient, template

from agent_runtime import AgentFactory, Budget, MemoryLedger, PriceTable
from agent_runtime.errors import BudgetExceeded

OFF_PEAK = datetime(2026, 12, 2, 12, tzinfo=UTC).timestamp()
PEAK = datetime(2026, 12, 2, 2, tzinfo=UTC).timestamp()


async def spend(
    prices: PriceTable, clock: list[float], then: float, limit: str
) -> tuple[Decimal, MemoryLedger]:
    ledger = MemoryLedger()
    async with AgentFactory(
        prices=prices, ledger=ledger, budgets=[Budget("global", usd=float(limit))]
    ) as factory:
        factory.register_model("m", obedient("deepseek", "deepseek-v4-pro", 10, 1000))
        agent = factory.create_agent(template(model="m"))  # its price is looked up off-peak
        clock[0] = then
        with contextlib.suppress(BudgetExceeded):
            await agent.execute("hi")
    [balance] = ledger.balances().run().values()
    return Decimal(balance.spent_micro_usd) / 10**6, ledger


async def test_a_program_that_was_started_off_peak_does_not_overspend_at_peak() -> None:
    """A call of 1,000 tokens of output costs 0.00198 off-peak and 0.00396 at peak."""
    clock = [OFF_PEAK]
    spent, _ = await spend(PriceTable(clock=lambda: clock[0]), clock, PEAK, "0.0025")
    assert 0 < spent <= Decimal("0.0025")


async def test_a_reservation_that_is_open_when_the_peak_begins_covers_it() -> None:
    clock = [
        PEAK - 3600 - 300
    ]  # 00:55: five minutes before the peak, and reservations are for fifteen
    prices = PriceTable(clock=lambda: clock[0])
    before = prices.highest("deepseek", "deepseek-v4-pro", (), 900.0)
    assert before is not None
    assert before.rates_for(10)[1] == 3_960_000
    clock[0] -= 900
    earlier = prices.highest("deepseek", "deepseek-v4-pro", (), 900.0)
    assert earlier is not None
    assert (
        earlier.rates_for(10)[1] == 1_980_000
    )  # and before that the budget is not held back for it


@pytest.mark.parametrize(
    ("at", "output"),
    [(OFF_PEAK, "0.00000198"), (PEAK, "0.00000396"), (PEAK + 5 * 3600, "0.00000396")],
)
def test_the_bill_follows_the_clock(at: float, output: str) -> None:
    price = PriceTable(clock=lambda: at).price("deepseek", "deepseek-v4-pro")
    assert price is not None
    assert price.output == Decimal(output)


def test_a_price_changes_on_its_date() -> None:
    clock = [datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()]
    prices = PriceTable(clock=lambda: clock[0])
    before = prices.price("google_genai", "gemini-3.8-flash")
    highest = prices.highest("google_genai", "gemini-3.8-flash", (), 900.0)
    clock[0] += 120
    after = prices.price("google_genai", "gemini-3.8-flash")
    assert before is not None
    assert after is not None
    assert highest is not None
    assert after.output == 2 * before.output
    assert (
        highest.rates_for(10)[1] >= after.output * 10**12
    )  # what is reserved in the old year may be billed in the new one
