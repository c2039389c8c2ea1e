"""Rate limits and slots: exact, shared, all or nothing, and visible when their store is out."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    AgentResult,
    ConcurrencyLimit,
    ConcurrencyMiddleware,
    ConfigurationError,
    EventBus,
    LimitStore,
    Principal,
    RateLimit,
    RateLimited,
    RateLimitMiddleware,
    RuntimeMetrics,
    SessionManager,
    open_limits,
    parse_template,
)
from agent_runtime.limits.concurrency import (
    MemoryConcurrencyStore,
    Permit,
    RedisConcurrencyStore,
    permits_of,
)
from agent_runtime.limits.rate_limits import Window
from agent_runtime.limits.windows import MemorySlidingWindowStore, RedisSlidingWindowStore
from agent_runtime.orchestration.middleware import compose, fallback
from agent_runtime.testing import ScriptedChatModel, say


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LimitStore]:
    """Both stores."""
    url = "memory:"
    if request.param == "redis":
        url = f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"
    made = open_limits(url)
    yield made
    await made.aclose()


async def core(context: AgentContext) -> AgentResult:
    return AgentResult("ok", "ok")


def call(user: str = "ada", tenant: str = "acme", agent: str = "a", **more: Any) -> AgentContext:
    context = AgentContext("x", principal=Principal(user, tenant, key=f"k-{user}"), **more)
    context.agent_name = agent
    return context


async def passed(layer: Any, context: AgentContext) -> bool:
    try:
        await layer.process(context, core)
    except RateLimited:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [("60/minute per user", None), ("1000/hour per tenant and template", None), ("10/second", None),
     ("5 per 10 seconds per key", None), ("5 / 2 minutes per user, tenant", ("5 / 2 minutes per "
                                                                            "user and tenant"))],
)  # fmt: skip
def test_limits_are_read_as_they_are_written(text: str, shown: str | None) -> None:
    assert str(RateLimit.parse(text)) == (shown or text)
    assert [str(each) for each in RateLimit.parse_many(f"{text}; 1/day")] == [
        shown or text,
        "1/day",
    ]


@pytest.mark.parametrize(
    "bad",
    ["", "x", "0/minute", "-1/minute", "1/2minute/3", "1e3/minute", ("5/minute per "
                                                                    "nobody"), "5/fortnight",
                                                                    "1000000/day",
     "5/minute per", "5/0 minutes"],
)  # fmt: skip
def test_what_is_no_limit(bad: str) -> None:
    with pytest.raises(ConfigurationError):
        RateLimit.parse(bad)


@pytest.mark.parametrize("bad", [(0,), (-1,), (1, ()), (1, ("nobody",)), (True,)])
def test_what_is_no_number_of_calls(bad: Any) -> None:
    with pytest.raises(ConfigurationError):
        ConcurrencyLimit(*bad)


async def test_each_of_many_limits_counts_and_a_refused_call_counts_in_none(
    store: LimitStore,
) -> None:
    layer = RateLimitMiddleware("2/minute per user; 3/minute per tenant; 100/minute", store.windows)
    assert [await passed(layer, call("ada")) for _ in range(3)] == [True, True, False]
    assert [await passed(layer, call("bob")) for _ in range(2)] == [
        True,
        False,
    ]  # the tenant's third was still free
    assert await passed(layer, call("ada", "other"))  # a user is one of a tenant
    with pytest.raises(RateLimited) as failed:
        await layer.process(call("ada"), core)
    assert failed.value.limit == "2/minute per user"
    assert 50 < failed.value.retry_after_s <= 60
    layer = RateLimitMiddleware("3/minute per template; 1/minute per user", store.windows)
    assert [await passed(layer, call("ada", agent="b")) for _ in range(5)] == [True, *[False] * 4]
    assert [await passed(layer, call(user, agent="b")) for user in ("bob", "eve", "zoe")] == [
        True,
        True,
        False,
    ]


async def test_names_cannot_be_made_to_look_like_others(store: LimitStore) -> None:
    layer = RateLimitMiddleware("1/minute per tenant and user", store.windows)
    names = ["a/user=b", "a", "a:b", "b", "%2F", "/", "ä", ""]
    assert all(
        [await passed(layer, call(user, tenant)) for user in names for tenant in names if tenant]
    )


async def test_a_limit_per_session_does_not_count_a_call_without_one(store: LimitStore) -> None:
    layer = RateLimitMiddleware("1/minute per session", store.windows)
    assert all([await passed(layer, AgentContext("x")) for _ in range(3)])
    assert [await passed(layer, call(session_id="s")) for _ in range(2)] == [True, False]


async def test_a_hundred_of_six_hundred_at_once(
    store: LimitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the last answers take longer than a store may, which is another test's.
    monkeypatch.setattr(fallback, "ANSWER_TIMEOUT_S", 30.0)
    layer = RateLimitMiddleware("100/minute", store.windows)
    assert sum(await asyncio.gather(*(passed(layer, call()) for _ in range(600)))) == 100


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(1, 6))
@settings(deadline=None)
def test_no_window_has_more_than_its_amount_and_none_is_refused_that_fits(
    waits: list[float], amount: int
) -> None:
    now = [0.0]
    windows = MemorySlidingWindowStore(lambda: now[0])
    window = Window("k", amount, 5, "")

    async def run() -> list[float]:
        admitted = []
        for wait in waits:
            now[0] += wait
            answer = await windows.acquire([window])
            if answer.refused is None:
                admitted.append(now[0])
            else:
                recent = [t for t in admitted if t > now[0] - 5]
                assert len(recent) == amount
                assert answer.retry_after_s == pytest.approx(recent[0] + 5 - now[0])
        return admitted

    admitted = asyncio.run(run())
    assert max((sum(t <= u < t + 5 for u in admitted) for t in admitted), default=0) <= amount


def test_calls_pass_as_by_a_look_at_all_times_before_them() -> None:
    rng = random.Random(7)
    now = [1_000_000.0]
    admitted: list[float] = []
    windows = MemorySlidingWindowStore(lambda: now[0])
    window = Window("k", 7, 10, "")

    async def run() -> None:
        for _ in range(2000):
            now[0] += rng.choice([0.1, 0.5, 3.0])
            has_room = sum(now[0] - time < 10 for time in admitted) < 7
            assert ((await windows.acquire([window])).refused is None) is has_room
            if has_room:
                admitted.append(now[0])

    asyncio.run(run())


async def test_a_caller_whose_window_is_empty_and_who_is_refused_harms_nobody() -> None:
    now = [0.0]
    layer = RateLimitMiddleware(
        "5 per 10 seconds per user; 6/hour per tenant", MemorySlidingWindowStore(lambda: now[0])
    )
    for user in "abcdef":
        assert await passed(layer, call(user))
    now[0] = 20.0
    assert not await passed(layer, call("f"))
    for moment in (20.0, 40.0, 1e6):
        now[0] = moment
        assert await passed(layer, call("z", "zoo"))


async def test_slots_that_a_slow_store_took_are_given_back(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "ANSWER_TIMEOUT_S", 0.1)
    slots = RedisConcurrencyStore(redis_url, prefix=uuid.uuid4().hex, durable=False)
    acquire = slots.acquire

    async def late(wanted: Any, holder: str) -> Any:
        answer = await acquire(wanted, holder)
        await asyncio.sleep(0.3)
        return answer

    layer = ConcurrencyMiddleware([ConcurrencyLimit(1)], slots)
    monkeypatch.setattr(slots, "acquire", late)
    await layer.process(call(), core)
    assert layer.degraded
    assert await acquire(permits_of(layer.limits, call()), "another") is None
    await slots.aclose()


async def test_memory_forgets_callers_that_are_gone() -> None:
    now = [0.0]
    windows = MemorySlidingWindowStore(lambda: now[0])
    for n in range(10_000):
        await windows.acquire([Window(f"user={n}", 5, 60, "")])
    now[0] = 61.0
    for n in range(5_001):
        await windows.acquire([Window(f"new={n}", 5, 60, "")])
    assert windows.key_count <= 5_010


async def test_slots_are_held_while_a_call_runs_and_given_back(store: LimitStore) -> None:
    layer = ConcurrencyMiddleware(
        [ConcurrencyLimit(2, ("tenant",)), ConcurrencyLimit(1, ("user",))], store.slots
    )
    go = asyncio.Event()

    async def slow(context: AgentContext) -> AgentResult:
        await go.wait()
        return await core(context)

    first = asyncio.create_task(layer.process(call("ada"), slow))
    await asyncio.sleep(0.05)
    assert not await passed(layer, call("ada"))
    assert await passed(layer, call("bob"))
    second = asyncio.create_task(layer.process(call("bob"), slow))
    await asyncio.sleep(0.05)
    with pytest.raises(RateLimited, match="2 at once per tenant"):
        await layer.process(call("eve"), core)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await passed(layer, call("eve"))
    go.set()
    await first
    assert await passed(layer, call("ada"))
    if isinstance(store.slots, MemoryConcurrencyStore):
        assert store.slots.usage_by_key == {}


async def test_a_call_waits_for_a_slot_as_long_as_it_may(
    store: LimitStore, no_tasks_left: None
) -> None:
    layer = ConcurrencyMiddleware([ConcurrencyLimit(1)], store.slots, wait_s=20)
    running = 0
    most = 0

    async def inside(context: AgentContext) -> AgentResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return await core(context)

    await asyncio.gather(*(layer.process(call(), inside) for _ in range(20)))
    assert most == 1
    hurried = ConcurrencyMiddleware([ConcurrencyLimit(1)], store.slots, wait_s=0.05)
    with pytest.raises(RateLimited):
        await layer.process(call(), lambda context: hurried.process(call("other"), core))
    await store.slots.aclose()  # what is being given back has been


async def test_a_cancelled_wait_takes_nothing(store: LimitStore) -> None:
    layer = ConcurrencyMiddleware([ConcurrencyLimit(1)], store.slots, wait_s=20)
    hold = asyncio.Event()

    async def held(context: AgentContext) -> AgentResult:
        await hold.wait()
        return await core(context)

    running = asyncio.create_task(layer.process(call(), held))
    await asyncio.sleep(0.03)
    waiting = asyncio.create_task(layer.process(call(), core))
    await asyncio.sleep(0.03)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    hold.set()
    await running
    assert await passed(layer, call())


async def test_a_process_that_dies_gives_its_slots_back(redis_url: str) -> None:
    slots = RedisConcurrencyStore(redis_url, prefix=uuid.uuid4().hex, durable=False)
    slot = [Permit("k", 1, "")]
    slots.lease_s = 0.15
    assert await slots.acquire(slot, "dead") is None
    assert await slots.acquire(slot, "dead") is None  # asked again, because the answer was lost
    assert await slots.acquire(slot, "next") is not None
    await asyncio.sleep(0.2)
    assert await slots.acquire(slot, "next") is None
    for _ in range(3):
        await asyncio.sleep(0.1)
        await slots.renew(slot, "next")
    assert await slots.acquire(slot, "third") is not None
    await slots.aclose()


async def test_when_the_store_is_out_a_local_limiter_takes_over_visibly(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "RETRY_INTERVAL_S", 0.05)
    bus = EventBus()
    windows = RedisSlidingWindowStore("redis://127.0.0.1:1", durable=False)
    layer = RateLimitMiddleware("8/minute per user", windows, processes=4, bus=bus)
    async with bus.subscribe("limits.*") as events:
        with caplog.at_level(logging.WARNING):
            assert [await passed(layer, call()) for _ in range(3)] == [True, True, False]
        assert layer.degraded
        assert "rate_limit is out" in caplog.text
        event = await anext(events)
        assert (event.type, event.data) == (
            "limits.fallback",
            {"layer": "rate_limit", "processes": 4},
        )
        layer._fallback.store = RedisSlidingWindowStore(
            redis_url, prefix=uuid.uuid4().hex, durable=False
        )
        await asyncio.sleep(0.06)
        assert await passed(layer, call())
        assert vars(layer._fallback)["degraded"] is False
        assert (await anext(events)).type == "limits.restored"
        await layer._fallback.store.aclose()


async def test_slots_whose_store_is_out_are_counted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ConcurrencyMiddleware(
        [ConcurrencyLimit(4)],
        RedisConcurrencyStore("redis://127.0.0.1:1", durable=False),
        processes=2,
    )

    async def three_deep(context: AgentContext) -> AgentResult:
        return await layer.process(call("b"), lambda _: layer.process(call("c"), core))

    with pytest.raises(RateLimited):  # our share is two
        await layer.process(call("a"), three_deep)
    assert layer.degraded
    assert await passed(layer, call())


async def test_templates_say_their_limits_and_inner_agents_are_not_counted_twice() -> None:
    factory = AgentFactory(
        rate_limits=["2/minute per user"], concurrency=[ConcurrencyLimit(1, ("user",))]
    )
    factory.register_model(
        "outer",
        ScriptedChatModel(
            script=lambda m: say("done") if len(m) > 2 else say("", ("inner", {"request": "q"}))
        ),
    )
    factory.register_model("inner", ScriptedChatModel(script=lambda m: say("inner answer")))
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\n"
    runtime = (
        "runtime: {rate_limits: [1/minute per template], concurrency: {limits: [{calls: "
        "3, per: [template]}]}}"
    )
    factory.register_template(
        parse_template(f"{head}metadata: {{name: inner}}\nspec: {{model: inner}}\n")
    )
    outer: AgentExecutor = factory.create_agent(
        parse_template(
            f"{head}metadata: {{name: outer}}\nspec: {{model: outer, tools: [{{agent: inner}}], "
            f"{runtime}}}\n"
        )
    )
    ada = outer.with_caller(principal=Principal("ada"))
    result = await ada.execute("x")
    assert result.output == "done"
    assert any("inner answer" in str(m.text) for m in result.messages)
    with pytest.raises(RateLimited, match="1/minute per template"):
        await ada.execute("x")
    direct = factory.create_from_template("inner").with_caller(principal=Principal("ada"))
    await direct.execute("x")  # her second call; the one inside the first was not hers
    with pytest.raises(RateLimited, match="2/minute per user"):
        await direct.execute("x")


async def test_what_waits_in_a_layer_is_its_queue() -> None:
    metrics = RuntimeMetrics()
    go = asyncio.Event()
    layer = ConcurrencyMiddleware([ConcurrencyLimit(1)], wait_s=20)

    async def slow(context: AgentContext) -> AgentResult:
        await go.wait()
        return await core(context)

    handle = compose([layer], slow, metrics)
    running: list[Any] = [asyncio.ensure_future(handle(call())) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert b'agent_runtime_waiting{layer="concurrency"} 4.0' in metrics.render()
    go.set()
    await asyncio.gather(*running)
    assert b'agent_runtime_waiting{layer="concurrency"} 0.0' in metrics.render()
    assert b'agent_runtime_layer_seconds_count{layer="concurrency"} 5.0' in metrics.render()


async def test_a_call_that_waits_for_its_sessions_turn_holds_no_slot() -> None:
    factory = AgentFactory(session_manager=SessionManager(), concurrency=[ConcurrencyLimit(2)])
    model = ScriptedChatModel(script=lambda m: say("ok"), delay_s=0.2)
    factory.register_model("slow", model)
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\n"
    agent = factory.create_agent(
        parse_template(f"{head}metadata: {{name: t}}\nspec: {{model: slow}}\n")
    )
    sessions = (
        "one",
        "one",
        "one",
        "two",
    )  # two of them wait for the first; the last finds the second slot
    results = await asyncio.gather(
        *(agent.execute(AgentContext("x", session_id=name)) for name in sessions)
    )
    assert [result.output for result in results] == ["ok"] * 4
    await factory.__aexit__()
