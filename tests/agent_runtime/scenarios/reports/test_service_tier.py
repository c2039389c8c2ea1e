"""litellm #13810, #37046, PR #30558.

Service tiers have rates of their own, and the answer says which it was.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from tests.support.calls import run_call
from tests.support.providers import openai_answer, openai_stream, provider, template

from agent_runtime import AgentFactory, Budget, MemoryLedger
from agent_runtime.budgets import PriceTable
from agent_runtime.errors import BudgetExceeded

USAGE = {
    "prompt_tokens": 100_000, "completion_tokens": 10_000, "total_tokens": 110_000,
    "prompt_tokens_details": {"cached_tokens": 80_000},
    "completion_tokens_details": {"reasoning_tokens": 4_000},
}  # fmt: skip
# gpt-5-mini: 0.25, 0.025 cached and 2.00 a million; priority 0.45, 0.045, 3.60; flex and batch half
COSTS = {
    "default": "0.027", "priority": "0.0486", "flex": "0.0135", "auto": "0.027",
    "batch": "0.0135", "scale": "0.027",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")


def model(url: str, **params: object) -> dict[str, object]:
    own = {"params": params} if params else {}
    return {
        "id": "openai:gpt-5-mini",
        "base_url": url + "/v1",
        "api_key": {"from_env": "DUMMY_KEY"},
        **own,
    }


@pytest.mark.parametrize("tier", COSTS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_tier_of_the_answer_decides_the_price(tier: str, streamed: bool) -> None:
    make = openai_stream if streamed else openai_answer
    answer = make("gpt-5-mini-2025-08-07", USAGE, service_tier=tier)
    async with provider(lambda r, p: answer) as (url, _), AgentFactory() as factory:
        agent = factory.create_agent(template(model=model(url)))
        result = await run_call(agent, "hi", streaming=streamed)
    usage = result.usage
    assert result.cost_usd == Decimal(COSTS[tier])
    # A tier that the table does not know is priced as the default, and not called exact.
    assert usage.cost_kind == ("estimated" if tier == "scale" else "exact")
    assert (usage.cache_read_tokens, usage.reasoning_tokens) == (80_000, 4_000)


async def test_a_budget_holds_whatever_tier_the_account_has() -> None:
    """A request that names no tier may be answered in any: the reservation is for the dearest."""
    usage = {"prompt_tokens": 10, "completion_tokens": 1000, "total_tokens": 1010}
    ledger = MemoryLedger()

    def answer(request: dict[str, object], path: str) -> dict[str, object]:
        most = int(str(request.get("max_completion_tokens") or request.get("max_tokens")))
        used = {**usage, "completion_tokens": min(1000, most)}
        return openai_answer("gpt-5-mini", used, service_tier="priority")

    async with provider(answer) as (url, requests):
        budget = Budget(
            "global", usd=0.0025
        )  # a call of 1,000 tokens costs 0.0036 in priority, 0.002 else
        async with AgentFactory(ledger=ledger, budgets=[budget]) as factory:
            agent = factory.create_agent(template(model=model(url)))
            for _ in range(3):
                try:
                    await agent.execute("hi")
                except BudgetExceeded:
                    break
    [balance] = ledger.balances().run().values()
    assert requests
    assert balance.spent_micro_usd <= 2500


async def test_a_budget_holds_with_a_fee_for_each_request() -> None:
    ledger = MemoryLedger()
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    async with provider(lambda request, path: openai_answer("gpt-5-mini", usage)) as (url, _):
        budget = Budget("global", usd=0.025)  # two calls and a half
        prices = PriceTable({"openai:gpt-5-mini": {"input": 0.01, "output": 0.01, "request": 0.01}})
        async with AgentFactory(ledger=ledger, budgets=[budget], prices=prices) as factory:
            agent = factory.create_agent(template(model=model(url)))
            results = await asyncio.gather(
                *(agent.execute("hi") for _ in range(5)), return_exceptions=True
            )
    [balance] = ledger.balances().run().values()
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 3
    assert 20_000 <= balance.spent_micro_usd <= 25_000
