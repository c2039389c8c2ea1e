"""A limit that names somebody holds for that one, whatever the name.

One that nobody can ever match is refused.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.providers import obedient, template

from agent_runtime import (
    AgentContext,
    AgentFactory,
    Budget,
    BudgetExceeded,
    ConcurrencyLimit,
    ConfigurationError,
    MemoryLedger,
    Principal,
    RateLimited,
)
from agent_runtime.auth.caller_names import Caller
from agent_runtime.budgets.budget import accounts_of
from agent_runtime.limits.rate_limits import RateLimit, windows_of

NAMES = st.text(st.sampled_from("ab:/=%@ é&\x1f"), min_size=1, max_size=6).filter(
    lambda name: bool(name.strip())
)
EVERYTHING = frozenset({"*"})


@pytest.mark.parametrize(
    ("budget", "tenant", "user"),
    [
        (Budget("tenant", tokens=250, only="acme corp"), "acme corp", "ada"),
        (Budget("tenant", tokens=250, tenant="a/b:c"), "a/b:c", "ada"),
        (Budget("user", tokens=250, tenant="a", user="ada@x.org"), "a", "ada@x.org"),
        (Budget("user", tokens=250, tenant="a"), "a", "anybody at all"),
        (Budget("template", tokens=250, only="t"), "a", "ada"),
    ],
    ids=str,
)
async def test_a_budget_holds_for_the_one_it_names(budget: Budget, tenant: str, user: str) -> None:
    """Three calls of 110 tokens on 250: the third one is refused."""
    async with AgentFactory(ledger=MemoryLedger(), budgets=[budget]) as factory:
        factory.register_model("m", obedient("scripted", "m", max_tokens=100))
        agent = factory.create_agent(template(model="m"))
        caller = agent.with_caller(principal=Principal(user, tenant, EVERYTHING))
        await caller.execute("one")
        await caller.execute("two")
        with pytest.raises(BudgetExceeded):
            await caller.execute("three")


@given(NAMES, NAMES, NAMES, NAMES)
def test_a_budget_is_for_exactly_the_user_that_it_names(
    tenant: str, user: str, other_tenant: str, other: str
) -> None:
    budget = Budget("user", tokens=1, tenant=tenant, user=user)
    assert accounts_of([budget], Caller(tenant, user, "t", None), 0)
    accounts = accounts_of([budget], Caller(other_tenant, other, "t", None), 0)
    assert bool(accounts) == ((tenant, user) == (other_tenant, other))


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_callers_share_an_account_only_when_they_are_one(
    a: str, b: str, c: str, d: str
) -> None:
    budgets = [Budget("user", tokens=1), Budget("session", tokens=1)]
    one = {account.key for account in accounts_of(budgets, Caller(a, b, "t", b), 0)}
    two = {account.key for account in accounts_of(budgets, Caller(c, d, "t", d), 0)}
    assert len(one) == 2
    assert (one == two) == ((a, b) == (c, d))
    assert one == two or not one & two


def test_the_budget_with_most_names_counts() -> None:
    budgets = [
        Budget("user", tokens=1),
        Budget("user", tokens=10, tenant="a"),
        Budget("user", tokens=100, tenant="a", user="ada"),
        Budget("user", tokens=50, tenant="a", user="ada"),
    ]
    limits = {
        (tenant, user): accounts_of(budgets, Caller(tenant, user, "t", None), 0)[0].limit_tokens
        for tenant, user in [("a", "ada"), ("a", "eve"), ("b", "ada")]
    }
    assert limits == {("a", "ada"): 50, ("a", "eve"): 10, ("b", "ada"): 1}


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        ({"scope": "user", "only": "ada"}, "`tenant` and `user`"),
        ({"scope": "user", "only": "a:ada"}, "`tenant` and `user`"),
        ({"scope": "user", "user": "ada"}, "say `tenant`"),
        ({"scope": "tenant", "only": " "}, "blank"),
        ({"scope": "tenant", "only": "a", "tenant": "a"}, "one of them"),
        ({"scope": "session", "only": "s"}, "`only`"),
        ({"scope": "session", "tenant": "a", "user": "ada"}, "leave `user` out"),
        ({"scope": "global", "tenant": "a"}, "leave `tenant` out"),
        ({"scope": "global", "only": "a"}, "`only`"),
        ({"scope": "run", "only": "a"}, "`only`"),
    ],
)
def test_a_budget_that_no_call_can_match_is_refused(names: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        Budget(tokens=1, **names)
    with pytest.raises(ValidationError, match=remedy):
        template(model="scripted:m", runtime={"cost": {"budgets": [{"tokens": 1, **names}]}})


@pytest.mark.parametrize("limit", ["rate", "at once"])
async def test_a_limit_per_key_counts_a_caller_without_a_key_as_the_user(limit: str) -> None:
    limits: dict[str, Any] = {"rate_limits": ["2/minute per key"]}
    if limit == "at once":
        limits = {"concurrency": [ConcurrencyLimit(2, per=("key",))]}
    async with AgentFactory(**limits) as factory:
        factory.register_model("m", obedient("scripted", "m"))
        agent = factory.create_agent(template(model="m"))

        async def call(user: str, calls: int) -> int:
            if limit == "rate":
                caller = agent.with_caller(principal=Principal(user, "a", EVERYTHING))
                for number in range(calls):
                    await caller.execute(str(number))
                return calls
            caller = agent.with_caller(principal=Principal(user, "a", EVERYTHING))
            async with caller.execute_stream("x") as one, caller.execute_stream("x") as two:
                await anext(one)
                await anext(two)
                if calls > 2:
                    await caller.execute("x")
            return calls

        assert await call("ada", 2) == 2
        assert await call("eve", 2) == 2
        with pytest.raises(RateLimited):
            await call("ada", 3)


def test_a_key_is_never_taken_for_a_user() -> None:
    limits = (RateLimit.parse("2/minute per key"),)
    keyed = AgentContext("x", principal=Principal("ada", "a", key="user:a:ada"))
    assert windows_of(limits, keyed) != windows_of(
        limits, AgentContext("x", principal=Principal("ada", "a"))
    )
