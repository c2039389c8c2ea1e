"""litellm PR #35545, #37282 and Azure users: a deployment's or a gateway's alias.

The answer says the true model.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.support.providers import openai_answer, openai_stream, provider, template

from agent_runtime import AgentExecutor, AgentFactory, AgentResult
from agent_runtime.budgets import Budget, PriceTable
from agent_runtime.errors import PriceUnknown

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
TRUE = Decimal("0.00045")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-for-cases")


def answer_of(name: str) -> Any:
    return lambda request, path: (openai_stream if request.get("stream") else openai_answer)(
        name, USAGE
    )


async def both(agent: AgentExecutor) -> list[AgentResult]:
    async with agent.execute_stream("hi") as stream:
        async for _ in stream:
            pass
    return [await agent.execute("hi"), stream.result]


def model(url: str, name: str) -> dict[str, Any]:
    return {"id": f"openai:{name}", "base_url": url + "/v1", "api_key": {"from_env": "DUMMY_KEY"}}


async def test_an_alias_costs_what_the_model_that_answered_costs() -> None:
    async with provider(answer_of("gpt-5-mini-2025-08-07")) as (url, _), AgentFactory() as factory:
        for result in await both(factory.create_agent(template(model=model(url, "prod-chat")))):
            assert (result.cost_usd, result.usage.cost_kind) == (TRUE, "exact")


async def test_a_model_with_a_price_is_not_priced_by_what_an_answer_says() -> None:
    async with provider(answer_of("gpt-5-nano")) as (url, _), AgentFactory() as factory:
        for result in await both(factory.create_agent(template(model=model(url, "gpt-5-mini")))):
            assert result.cost_usd == TRUE


async def test_an_own_price_of_the_alias_goes_first() -> None:
    prices = PriceTable({"openai:prod-chat": {"input": 1, "output": 1}})
    async with (
        provider(answer_of("gpt-5-mini")) as (url, _),
        AgentFactory(prices=prices) as factory,
    ):
        for result in await both(factory.create_agent(template(model=model(url, "prod-chat")))):
            assert result.cost_usd == Decimal("0.0011")


async def test_what_a_local_server_answers_is_no_provider_s_model() -> None:
    for name in (
        "llama-3.3-70b-versatile",
        "gpt-oss-20b",
        "openai/gpt-oss-20b",
        "deepseek-chat",
        "qwen3:8b",
    ):
        async with provider(answer_of(name)) as (url, _), AgentFactory() as factory:
            for result in await both(factory.create_agent(template(model=model(url, name)))):
                assert (result.cost_usd, result.usage.cost_kind) == (None, "unknown")


async def test_with_a_budget_an_alias_is_refused_before_it_is_asked() -> None:
    factory = AgentFactory(budgets=[Budget("global", usd=1)])
    async with provider(answer_of("gpt-5-mini")) as (url, requests), factory:
        with pytest.raises(PriceUnknown):
            await factory.create_agent(template(model=model(url, "prod-chat"))).execute("hi")
    assert requests == []
