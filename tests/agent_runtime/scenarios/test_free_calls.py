"""No id, key or header that a caller chooses buys a model call.

What the provider bills is on the right accounts.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.providers import ObedientModel, obedient, openai_answer, provider, template

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    Budget,
    CallError,
    MemoryLedger,
    Principal,
)
from agent_runtime.budgets import open_ledger

RUN_ID = str(uuid.UUID(int=7))
CALLS = 12


class Billing(ObedientModel):
    """An obedient model that adds up what it bills, and answers when every call has been sent."""

    billed: list[int] = []  # noqa: RUF012 - pydantic copies it

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Any:
        await asyncio.sleep(0.05)
        result = await super()._agenerate(messages, stop, run_manager, **kwargs)
        self.billed.append(result.generations[0].message.usage_metadata["total_tokens"])
        return result


async def by_execute(agent: AgentExecutor, number: int, principal: Principal) -> None:
    await agent.execute(AgentContext(f"question {number}", run_id=RUN_ID, principal=principal))


async def by_stream(agent: AgentExecutor, number: int, principal: Principal) -> None:
    async with agent.execute_stream(
        AgentContext(f"question {number}", run_id=RUN_ID, principal=principal)
    ) as stream:
        async for _ in stream:
            pass


async def by_config(agent: AgentExecutor, number: int, principal: Principal) -> None:
    caller = agent.with_caller(principal=principal)
    await caller.ainvoke({"messages": f"question {number}"}, {"run_id": uuid.UUID(RUN_ID)})


@pytest.fixture(params=["memory", "sqlite", "redis"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'ledger.db'}"


@pytest.mark.parametrize("way", [by_execute, by_stream, by_config])
async def test_calls_under_one_run_id_are_all_charged(way: Any, ledger_url: str) -> None:
    ledger = open_ledger(ledger_url)
    model = Billing(script=obedient("scripted", "m").script, outputs=900, disable_streaming=True)
    budgets = [Budget("tenant", tokens=2500)]
    async with AgentFactory(ledger=ledger, budgets=budgets) as factory:
        factory.register_model("m", model)
        agent = factory.create_agent(template(model="m"))
        for tenant in ("a", "b"):
            caller = Principal("u", tenant, frozenset({"*"}))
            before = sum(model.billed)
            calls = [way(agent, number, caller) for number in range(CALLS)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert any(isinstance(end, CallError) for end in ends)
            assert not [end for end in ends if end is not None and not isinstance(end, CallError)]
            balance = (await ledger.balances())[f"tenant={tenant}/total"]
            assert 0 < sum(model.billed) - before == balance.spent_tokens <= 2500
            assert balance.held_tokens == 0
    await ledger.aclose()


async def test_an_idempotency_key_names_the_buyer_the_seller_and_the_goods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same key again is one sale only for the same tenant, user, address, account and body."""
    monkeypatch.setenv("KEY_ONE", "dummy-key-for-cases-1")
    monkeypatch.setenv("KEY_TWO", "dummy-key-for-cases-2")
    usage = {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110}
    ledger = MemoryLedger()

    def answer(request: dict[str, Any], path: str) -> dict[str, Any]:
        return openai_answer("gpt-5-mini", usage)

    factory = AgentFactory(ledger=ledger, budgets=[Budget("user", tokens=1_000_000)])
    async with provider(answer) as (one, _), provider(answer) as (two, _), factory:

        async def buy(tenant: str, user: str, url: str, key: str, **params: Any) -> None:
            model = {
                "id": "openai:gpt-5-mini",
                "base_url": url + "/v1",
                "api_key": {"from_env": key},
                "idempotency_header": "Idempotency-Key",
                **({"params": params} if params else {}),
            }
            agent = factory.create_agent(template(model=model))
            caller = Principal(user, tenant, frozenset({"*"}))
            await agent.execute(AgentContext("x", principal=caller, idempotency_key="k"))

        sales = [
            ("a", "ada", one, "KEY_ONE"),
            ("b", "ada", one, "KEY_ONE"),
            ("a", "eve", one, "KEY_ONE"),
            ("a", "ada", two, "KEY_ONE"),
            ("a", "ada", one, "KEY_TWO"),
        ]
        for sale in sales:
            for _ in range(2):  # the second one is the same sale again
                await buy(*sale)
        await buy("a", "ada", one, "KEY_ONE", max_tokens=500)
    charged = {key: balance.spent_tokens // 110 for key, balance in ledger.balances().run().items()}
    bought = Counter(f"user={tenant}:{user}/total" for tenant, user, *_ in sales)
    bought["user=a:ada/total"] += 1  # the other body
    assert charged == dict(bought)
