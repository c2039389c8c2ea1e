"""Money: what a call may spend, what it did spend, and what happens when nothing is left."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from tests.support.calls import run_call

from agent_runtime import (
    AgentContext,
    AgentFactory,
    AgentTemplate,
    Budget,
    BudgetExceeded,
    BudgetUnavailable,
    ConfigurationError,
    CostTrackingMiddleware,
    InputInvalid,
    MemoryLedger,
    PriceTable,
    PriceUnknown,
    Principal,
    Resume,
    SessionManager,
    SpendingPolicy,
    SqliteLedger,
    StoreTimeout,
)
from agent_runtime.budgets.call_budget import CallBudget
from agent_runtime.budgets.ledger.ledger import Account, Amount, SpendLabels
from agent_runtime.budgets.ledger.retries import flush_deferred
from agent_runtime.budgets.token_counts import TokenCounts
from agent_runtime.run.model_call import is_plausible
from agent_runtime.run.request import max_input_tokens
from agent_runtime.testing import ScriptedChatModel, say

PRICES = PriceTable({"scripted:*": {"input": 100, "output": 1000}})  # 0.0001 and 0.001 USD a token
# Ten tokens in and five out cost 0.006 USD; the worst case of "hi" with 20 tokens of output 0.0217.
SPEND = {"max_output_tokens": 20, "min_output_tokens": 10}
ACME = Principal("bob", "acme")


class Capped(ScriptedChatModel):
    """A model that can be told how much to say."""

    max_tokens: int | None = None


def make(
    script: Any,
    *budgets: Budget,
    ledger: Any = None,
    model: Any = Capped,
    prices: PriceTable = PRICES,
    tools: tuple[Any, ...] = (),
    manager: SessionManager | None = None,
    **cost: Any,
) -> Any:
    factory = AgentFactory(
        ledger=ledger or MemoryLedger(), budgets=budgets, prices=prices, session_manager=manager
    )
    factory.register_model("script", model(script=script))
    for each in tools:
        factory.register_tool(each.name, each)
    names = [each.name for each in tools]
    runtime = {"cost": {**SPEND, **cost}}
    content: dict[str, Any] = {
        "apiVersion": "agent-runtime/v1",
        "kind": "AgentTemplate",
        "metadata": {"name": "t"},
    }
    factory.register_template(
        AgentTemplate.model_validate(
            {**content, "spec": {"model": "script", "tools": names, "runtime": runtime}}
        )
    )
    return factory.create_from_template("t")


def call(text: Any = "hi", **given: Any) -> AgentContext:
    return AgentContext(text, principal=ACME, **given)


def balances(agent: Any) -> dict[str, tuple[int, int]]:
    ledger = next(
        layer for layer in agent.pipeline if isinstance(layer, CostTrackingMiddleware)
    ).ledger
    found = ledger.balances().run()
    return {key.split("/")[0]: (b.spent_micro_usd, b.held_micro_usd) for key, b in found.items()}


def report(agent: Any) -> list[Any]:
    ledger = next(
        layer for layer in agent.pipeline if isinstance(layer, CostTrackingMiddleware)
    ).ledger
    return [spend for _, spend in ledger.report(0, time.time() + 1).run()]


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_call_settles_what_it_cost_on_every_account(streaming: bool) -> None:
    budgets = (
        Budget("tenant", usd=1, per="day"),
        Budget("user", usd=1, per="month"),
        Budget("global", tokens=1000),
    )
    agent = make([say("one")], *budgets)
    result = await run_call(agent, call(), streaming=streaming)
    assert (result.cost_usd, result.usage.cost_kind) == (Decimal("0.006"), "exact")
    assert result.usage.price_table.startswith("genai-prices")
    assert balances(agent) == {
        "tenant=acme": (6000, 0),
        "user=acme:bob": (6000, 0),
        "global": (6000, 0),
    }
    (spend,) = report(agent)
    assert spend.labels == ("acme", "bob", "t", "scripted:scripted")
    assert (spend.calls, spend.input_tokens, spend.output_tokens, spend.micro_usd) == (
        1,
        10,
        5,
        6000,
    )


async def test_without_budgets_spending_is_recorded() -> None:
    agent = make([say("one")])
    await agent.execute(call())
    assert balances(agent) == {}
    assert report(agent)[0].micro_usd == 6000


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_call_that_cannot_be_paid_is_not_sent(streaming: bool) -> None:
    agent = make([say("one")], Budget("tenant", usd="0.029"))
    for _ in range(3):  # 0.006 each; the worst case of a fourth is more than what is left
        await agent.execute(call())
    with pytest.raises(BudgetExceeded) as refused:
        await run_call(agent, call(), streaming=streaming)
    error = refused.value
    assert (error.account, error.spent_usd, error.limit_usd) == (
        "tenant=acme/total",
        Decimal("0.018"),
        Decimal("0.029"),
    )
    assert (error.code, error.usage.model_calls) == ("budget_exceeded", 0)
    assert balances(agent) == {"tenant=acme": (18000, 0)}
    assert (
        await agent.execute(AgentContext("hi", principal=Principal("eve", "other")))
    ).output == "one"


async def test_the_output_is_capped_by_what_is_left() -> None:
    asked: list[Any] = []

    class Noting(Capped):
        def _generate(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
        ) -> Any:
            asked.append(kwargs.get("max_tokens"))
            return super()._generate(messages, stop, run_manager, **kwargs)

    agent = make([say("one")], Budget("tenant", usd="0.03"), model=Noting)
    for _ in range(3):
        await agent.execute(call())
    assert asked[0] == 20
    assert 10 <= asked[2] < 20
    asked.clear()
    await make([say("one")], model=Noting).execute(call())
    assert asked == [None]  # no budget, nothing to cap


async def test_many_calls_at_once_never_spend_more_than_the_budget() -> None:
    agent = make(lambda _: say("x " * 5, usage=(10, 15)), Budget("tenant", usd="0.2"))

    async def one() -> int:
        try:
            return int((await agent.execute(call())).cost_usd * 1_000_000)
        except BudgetExceeded:
            return 0

    spent = sum(await asyncio.gather(*(one() for _ in range(100))))
    assert balances(agent) == {"tenant=acme": (spent, 0)}
    assert 0 < spent <= 200_000


@tool
async def wait() -> str:
    """Wait."""
    await asyncio.sleep(30)
    return "waited"


def calls_tool(name: str, args: dict[str, Any] | None = None) -> Any:
    return lambda m: say("done") if isinstance(m[-1], ToolMessage) else say("", (name, args or {}))


async def test_a_cancelled_call_settles_and_holds_nothing() -> None:
    agent = make(calls_tool("wait"), Budget("tenant", usd=1), tools=(wait,))
    running = asyncio.create_task(agent.execute(call()))
    while not agent.callback_handler.events("tool_start"):
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert balances(agent) == {"tenant=acme": (6000, 0)}


async def test_a_stream_that_its_reader_cuts_is_charged_by_our_count() -> None:
    class Slow(Capped):
        delay_s: float = 0.01

    agent = make([say("one two three four five six " * 20)], Budget("tenant", usd=1), model=Slow)
    async with agent.execute_stream(call()) as stream:
        async for _ in stream:
            break
    (spend,) = report(agent)
    assert (spend.estimated, spend.calls) == (1, 1)
    assert balances(agent) == {"tenant=acme": (spend.micro_usd, 0)}
    assert spend.micro_usd > 0


async def test_a_call_that_the_provider_refused_costs_nothing() -> None:
    agent = make([say(fail=ValueError("no"))], Budget("tenant", usd=1))
    with pytest.raises(Exception, match="no"):
        await agent.execute(call())
    assert balances(agent) == {"tenant=acme": (0, 0)}
    assert report(agent) == []


@pytest.mark.parametrize(
    "usage", [(0, 0), (0, 5), (-3, 5), (10, -1), (10**18, 5), (10, 10**18), None]
)
async def test_a_provider_that_lies_about_usage_is_not_believed(usage: Any) -> None:
    agent = make([say("twelve chars", usage=usage)], Budget("tenant", usd=1))
    result = await agent.execute(call("what?" * 20))
    assert result.usage.cost_kind == "estimated"
    assert 20 <= result.usage.input_tokens <= 60
    assert result.usage.output_tokens in (3, 5)
    assert balances(agent)["tenant=acme"] == (result.cost_usd * 1_000_000, 0)


def test_usage_is_believed_when_it_can_be_true() -> None:
    assert is_plausible(TokenCounts(1, 0), True, 0)
    assert not is_plausible(TokenCounts(1, 0), True, 10)


async def test_a_model_without_a_price_is_refused_or_counted_in_tokens() -> None:
    unknown = PriceTable({"other:x": {"input": 1, "output": 1}})

    class Nameless(Capped):
        provider: str = "nobody"

    agent = make([say("one")], Budget("tenant", usd=1), model=Nameless, prices=unknown)
    with pytest.raises(PriceUnknown, match="nobody:nobody"):
        await agent.execute(call())
    agent = make(
        [say("one")], Budget("tenant", usd=1), model=Nameless, prices=unknown, unknown_price="allow"
    )
    result = await agent.execute(call())
    assert (result.cost_usd, result.usage.cost_kind) == (None, "unknown")
    assert report(agent)[0].unknown == 1
    agent = make([say("one")], Budget("tenant", tokens=100), model=Nameless, prices=unknown)
    assert (await agent.execute(call())).output == "one"


async def test_a_ledger_that_cannot_be_asked_refuses() -> None:
    class Out(MemoryLedger):
        instant = False

        async def arun_body(self, body: Any, args: Any) -> Any:
            raise StoreTimeout("no answer")

    agent = make([say("one")], Budget("tenant", usd=1), ledger=Out())
    with pytest.raises(BudgetUnavailable, match="no answer"):
        await agent.execute(call())


async def test_parallel_model_calls_of_one_run_do_not_free_each_others_holds(
    tmp_path: Path,
) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    account = Account("tenant=acme/total", 1_000_000, None)
    purse = CallBudget(ledger, (account,), SpendLabels("acme", "", "t", "m"), SpendingPolicy())
    amount = Amount(400_000, 10)

    async def one() -> int:
        try:
            draw = await purse.areserve(amount, amount)
        except BudgetExceeded:
            return 0
        await asyncio.sleep(0.01)
        purse.settle(draw, draw.granted, None)
        return draw.granted.micro_usd

    spent = sum(await asyncio.gather(*(one() for _ in range(10))))
    await purse.close()
    balance = ledger.balances().run()[account.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (spent, 0)
    assert 0 < spent <= 1_000_000
    await ledger.aclose()


async def test_spending_is_kept_when_its_writing_is_cancelled_again() -> None:
    writing = asyncio.Event()
    go_on = asyncio.Event()

    class Slow(MemoryLedger):
        instant = False

        async def arun_body(self, body: Any, args: Any) -> Any:
            writing.set()
            await go_on.wait()
            return self.run_body(body, args)

    ledger = Slow()
    agent = make([say("one")], ledger=ledger)
    running = asyncio.create_task(agent.execute(call()))
    await writing.wait()
    for _ in range(3):
        running.cancel()
        for _ in range(10):  # the cancel arrives within a few steps of the loop
            await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await flush_deferred(ledger)
    assert [spend.calls for spend in report(agent)] == [1]


async def test_a_lost_answer_is_given_back_with_the_next_trip() -> None:
    class Losing(MemoryLedger):
        instant = False

        lose = 4  # the first answer, and those of every time it is asked again

        async def arun_body(self, body: Any, args: Any) -> Any:
            answer = self.run_body(body, args)
            if self.lose:
                self.lose -= 1
                raise StoreTimeout("the answer is lost")
            return answer

    agent = make([say("one")], Budget("tenant", usd=1), ledger=Losing())
    with pytest.raises(BudgetUnavailable):
        await agent.execute(call())
    assert balances(agent) == {"tenant=acme": (0, 0)}
    await agent.execute(call())
    assert balances(agent) == {"tenant=acme": (6000, 0)}


@pytest.mark.parametrize("budgets", [(), (Budget("tenant", usd=1),)])
async def test_spending_that_could_not_be_written_goes_with_the_next_call(
    budgets: tuple[Budget, ...],
) -> None:
    class Out(MemoryLedger):
        instant = False
        out = False

        async def arun_body(self, body: Any, args: Any) -> Any:
            if self.out and args[1] is None:  # what ends a call
                raise StoreTimeout("no answer")
            return self.run_body(body, args)

    ledger = Out()
    agent = make([say("one")], *budgets, ledger=ledger)
    ledger.out = True
    await agent.execute(call())
    assert report(agent) == []
    ledger.out = False
    await agent.execute(call())
    assert sum(spend.calls for spend in report(agent)) == 2
    if budgets:
        assert balances(agent) == {"tenant=acme": (12000, 0)}
    ledger.out = True
    await agent.execute(call())
    ledger.out = False
    await flush_deferred(ledger)
    assert sum(spend.micro_usd for spend in report(agent)) == 18000


async def test_a_run_has_a_budget_of_its_own() -> None:
    agent = make(calls_tool("add", {"a": 1}), Budget("run", usd="0.03"), tools=(add,))
    assert (await agent.execute(call())).output == "done"
    agent = make(lambda _: say("", ("add", {"a": 1})), Budget("run", usd="0.03"), tools=(add,))
    with pytest.raises(BudgetExceeded) as refused:
        await agent.execute(call())
    assert refused.value.account == "run"
    assert refused.value.usage.model_calls in (2, 3, 4)


@tool
def add(a: int) -> int:
    """Add."""
    return a


async def test_an_agent_used_as_a_tool_draws_on_the_budget_around_it() -> None:
    factory = AgentFactory(ledger=MemoryLedger(), prices=PRICES)
    factory.register_model("outer", Capped(script=calls_tool("inner", {"request": "q"})))
    factory.register_model("inner", Capped(script=[say("an answer")]))
    head: dict[str, Any] = {"apiVersion": "agent-runtime/v1", "kind": "AgentTemplate"}
    inner = {"cost": {**SPEND, "budgets": [{"scope": "run", "usd": 1}]}}
    outer: Any = {
        "cost": {
            **SPEND,
            "budgets": [{"scope": "tenant", "usd": 1}, {"scope": "run", "usd": "OUT"}],
        }
    }

    def agent(usd: float) -> Any:
        outer["cost"]["budgets"][1]["usd"] = usd
        for name, tools, runtime in (("inner", [], inner), ("outer", [{"agent": "inner"}], outer)):
            spec = {"model": name, "tools": tools, "runtime": runtime}
            factory.register_template(
                AgentTemplate.model_validate({**head, "metadata": {"name": name}, "spec": spec})
            )
        return factory.create_from_template("outer")

    made = agent(1.0)
    result = await made.execute(call())
    assert result.cost_usd == Decimal("0.018")
    assert balances(made) == {"tenant=acme": (18000, 0)}
    assert sorted(s.labels.template for s in report(made)) == ["inner", "outer"]
    with pytest.raises(
        BudgetExceeded
    ) as refused:  # enough for the outer's first call, not for the inner's
        await agent(0.025).execute(call())
    assert refused.value.account == "run"


async def test_slabs_save_trips() -> None:
    class Counting(MemoryLedger):
        instant = False

        trips = 0

        async def arun_body(self, body: Any, args: Any) -> Any:
            self.trips += 1
            return self.run_body(body, args)

    def four_calls(messages: list[Any]) -> Any:
        return say("done") if len(messages) > 6 else say("", ("add", {"a": len(messages)}))

    trips = {}
    for slab in (1, 10):
        ledger = Counting()
        agent = make(
            four_calls, Budget("tenant", usd=1), ledger=ledger, tools=(add,), slab_calls=slab
        )
        result = await agent.execute(call())
        assert balances(agent) == {"tenant=acme": (6000 * result.usage.model_calls, 0)}
        trips[slab] = ledger.trips
    assert trips == {1: 5, 10: 2}  # one for each of four calls and one at the end; one at each end


async def test_a_paused_call_goes_on_when_the_budget_was_raised() -> None:
    ledger = MemoryLedger()
    async with SessionManager.from_url("memory:") as manager:
        agents = [
            make(
                calls_tool("add", {"a": 1}),
                Budget("tenant", usd=usd),
                ledger=ledger,
                tools=(add,),
                manager=manager,
                on_exhausted="pause",
            )
            for usd in ("0.025", 1)
        ]
        result = await agents[0].execute(call("go", session_id="s"))
        assert (result.status, result.output) == ("interrupted", "")
        assert result.interrupts[0].value["code"] == "budget_exceeded"
        assert result.interrupts[0].value["account"] == "tenant=acme/total"
        assert (await manager.get_session("s", principal=ACME)).status == "interrupted"
        again = await agents[0].execute(
            call(Resume("approve"), session_id="s")
        )  # it has not been raised
        assert again.status == "interrupted"
        with pytest.raises(InputInvalid, match="approve"):
            await agents[1].execute(call(Resume("reject"), session_id="s"))
        result = await agents[1].execute(call(Resume("approve"), session_id="s"))
        assert (result.status, result.output) == ("completed", "done")
        assert [m.type for m in result.messages] == ["human", "ai", "tool", "ai"]
        with pytest.raises(BudgetExceeded):  # nothing could be resumed without a session
            await agents[0].execute(call("go"))


async def test_warnings_are_published_once() -> None:
    agent = make([say("one")], Budget("tenant", usd="0.06", warn_at=(0.25, 0.5)))
    layer = next(layer for layer in agent.pipeline if isinstance(layer, CostTrackingMiddleware))
    bus = layer._bus
    assert bus is not None
    async with bus.subscribe("budget.*") as events:
        for _ in range(6):
            await agent.execute(call())
        bus.close()
        seen = [event async for event in events]
    assert [(e.type, e.data["share"], e.data["account"]) for e in seen] == [
        ("budget.warning", 0.25, "tenant=acme/total"),
        ("budget.warning", 0.5, "tenant=acme/total"),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"scope": "tenant"}, "neither usd nor tokens"),
        ({"scope": "tenant", "usd": float("inf")}, "at least 0.000001"),
        ({"scope": "tenant", "usd": -1}, "at least 0.000001"),
        ({"scope": "tenant", "usd": "much"}, "at least 0.000001"),
        ({"scope": "tenant", "usd": True}, "at least 0.000001"),
        ({"scope": "tenant", "tokens": 0}, "at least 1"),
        ({"scope": "planet", "usd": 1}, "one of"),
        ({"scope": "run", "usd": 1, "per": "day"}, "no period"),
        ({"scope": "tenant", "usd": 1, "warn_at": (2.0,)}, "warn_at"),
    ],
)
def test_a_budget_that_cannot_be_one_is_refused(given: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Budget(**given)


def test_the_bound_of_the_input_counts_everything() -> None:
    plain = max_input_tokens([AIMessage("x" * 300)], {})
    assert plain >= 300 / 3
    assert max_input_tokens([AIMessage("ä" * 300)], {}) >= 600 / 3
    with_call = AIMessage(
        "x" * 300, tool_calls=[{"name": "t", "args": {"a": "y" * 300}, "id": "1"}]
    )
    assert max_input_tokens([with_call], {}) > plain + 90
    assert max_input_tokens([AIMessage("x" * 300)], {"tools": [add]}) > plain + 10
    image: Any = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    ]
    assert 2000 < max_input_tokens([AIMessage(content=image)], {}) < 2100
