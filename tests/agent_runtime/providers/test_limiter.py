"""How many calls are in flight at a provider.

Never too many, fewer after an overload, more after a clean window.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.outputs import ChatResult
from pydantic import SecretStr
from tests.support.provider_accounts import Answered, account

from agent_runtime import AgentFactory, AgentFailed, BudgetExceeded, ProviderError
from agent_runtime.providers import limiter as provider_limiter
from agent_runtime.providers.errors import is_overloaded, retry_after_s
from agent_runtime.providers.headers import pause_s
from agent_runtime.providers.limiter import ProviderLimiter
from agent_runtime.template import AgentTemplate
from agent_runtime.testing import ScriptedChatModel, say


async def test_never_more_in_flight_than_allowed() -> None:
    one = account(3)
    now = 0
    most = 0

    async def call() -> None:
        nonlocal now, most
        place = await one.aacquire()
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        place.release()

    await asyncio.gather(*(call() for _ in range(50)))
    assert (most, one.in_flight, one.waiting) == (3, 0, 0)


def test_sync_callers_and_several_loops_share_the_places() -> None:
    one = account(2)
    lock = threading.Lock()
    state = {"now": 0, "most": 0}

    def count(step: int) -> None:
        with lock:
            state["now"] += step
            state["most"] = max(state["most"], state["now"])

    def sync() -> None:
        for _ in range(10):
            place = one.acquire()
            count(1)
            time.sleep(0.001)
            count(-1)
            place.release()

    async def several() -> None:
        async def call() -> None:
            place = await one.aacquire()
            count(1)
            await asyncio.sleep(0.001)
            count(-1)
            place.release()

        await asyncio.gather(*(call() for _ in range(10)))

    threads = [threading.Thread(target=sync) for _ in range(2)]
    threads += [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (state["most"], one.in_flight, one.waiting) == (2, 0, 0)


async def test_who_gives_up_waiting_leaves_no_place_behind() -> None:
    one = account(1)
    first = await one.aacquire()
    waiters = [asyncio.create_task(one.aacquire()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    assert one.waiting == 2
    first.release()
    waiters[1].cancel()  # in the moment in which it is its turn
    await asyncio.gather(*waiters[:2], return_exceptions=True)
    (await asyncio.wait_for(waiters[2], 1)).release()
    assert (one.in_flight, one.waiting) == (0, 0)


async def test_an_overload_halves_once_and_clean_windows_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_limiter, "RAISE_AFTER_S", 0.05)
    one = account(8)
    places = [await one.aacquire() for _ in range(8)]
    for place in places[:3]:
        place.release(Answered(429))
    assert one.limit == 4  # they were in flight together: it is one overload
    for place in places[3:]:
        place.release()
    assert one.limit == 4
    (await one.aacquire()).release(Answered(503))
    assert one.limit == 2
    for _ in range(3):
        await asyncio.sleep(0.06)
        (await one.aacquire()).release()
    assert one.limit == 5
    for _ in range(6):
        await asyncio.sleep(0.06)
        (await one.aacquire()).release()
    assert one.limit == 8  # never above what the account allows


async def test_without_a_maximum_there_is_no_limit_until_the_first_overload() -> None:
    one = account()
    places = [await one.aacquire() for _ in range(20)]
    assert one.status()["limit"] is None
    places[0].release(Answered(529))
    assert one.status()["limit"] == 10
    for place in places[1:]:
        place.release(ValueError("not the provider's"))
    assert one.status()["limit"] == 10


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (Answered(429), True),
        (Answered(500), True),
        (Answered(400), False),
        (Answered(400, {"error": {"code": "1302"}}), True),
        (Answered(200, {"code": 1303}), True),
        (Answered(400, {"error": {"code": "other"}}), False),
        (ConnectionError(), False),
    ],
)
def test_what_counts_as_an_overload(error: Exception, counts: bool) -> None:
    assert is_overloaded(error, [1302, "1303"]) is counts


async def test_retry_after_and_headers_are_obeyed() -> None:
    one = account(4)
    (await one.aacquire()).release(Answered(429, headers={"retry-after": "0.2"}))
    began = time.monotonic()
    (await one.aacquire()).release(
        headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "200ms"}
    )
    assert time.monotonic() - began >= 0.19
    (await one.aacquire()).release()
    assert time.monotonic() - began >= 0.38
    assert retry_after_s(Answered(429, headers={"retry-after": "7"})) == 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "nonsense",
            },
            None,
        ),
    ],
)
def test_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_s(headers) == seconds


@given(
    st.lists(st.sampled_from(["enter", "ok", "overload", "cancel"]), max_size=60), st.integers(1, 5)
)
def test_places_are_never_lost_nor_made(steps: list[str], maximum: int) -> None:
    async def check() -> None:
        one = account(maximum)
        held = list[Any]()
        waiting = list[asyncio.Task[Any]]()
        for step in steps:
            if step == "enter":
                waiting.append(asyncio.create_task(one.aacquire()))
            elif step == "cancel" and waiting:
                waiting.pop().cancel()
            elif held:
                held.pop(0).release(Answered(500) if step == "overload" else None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            held += [task.result() for task in waiting if task.done() and not task.cancelled()]
            waiting = [task for task in waiting if not task.done()]
            assert one.in_flight <= maximum
        while held or waiting:
            for place in held:
                place.release()
            held = list(await asyncio.wait_for(asyncio.gather(*waiting[:1]), 1)) if waiting else []
            waiting = waiting[1:]
        await asyncio.sleep(0)
        assert (one.in_flight, one.waiting) == (0, 0)

    asyncio.run(check())


@pytest.mark.parametrize("block_s", [0.02, 0.3])
async def test_who_waits_is_served_when_the_pause_is_over(block_s: float) -> None:
    one = account(1)
    first = await one.aacquire()
    served: list[str] = []

    def sync() -> None:
        one.acquire().release()
        served.append("sync")

    async def waiting() -> None:
        (await one.aacquire()).release()
        served.append("async")

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    thread = threading.Thread(target=sync)
    thread.start()
    began_cpu_s = time.process_time()
    first.release(Answered(429, headers={"retry-after": str(block_s)}))
    time.sleep(0.05)  # noqa: ASYNC251 - the loop is held up while a short pause ends
    await asyncio.wait_for(task, 5)
    await asyncio.to_thread(thread.join, 5)
    assert sorted(served) == ["async", "sync"]
    assert time.process_time() - began_cpu_s < 0.2  # nobody spins


async def test_the_place_of_a_closed_loop_goes_to_the_next(
    recwarn: pytest.WarningsRecorder,
) -> None:
    one = account(1)
    first = await one.aacquire()

    def leave_a_waiter_behind() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(one.aacquire())
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    await asyncio.to_thread(leave_a_waiter_behind)
    assert one.waiting == 1
    waiting = asyncio.create_task(one.aacquire())
    await asyncio.sleep(0)
    first.release(
        Answered(429, headers={"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"})
    )
    (await asyncio.wait_for(waiting, 1)).release()
    assert (one.in_flight, one.waiting) == (0, 0)


def test_accounts_are_told_apart_by_what_the_model_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_openai import ChatOpenAI

    limiter = ProviderLimiter()
    monkeypatch.setenv("OPENAI_API_KEY", "dummy-key-one")
    by_default = limiter.account_of(ChatOpenAI(model="gpt-5-mini"))
    given = limiter.account_of(ChatOpenAI(model="gpt-5-mini", api_key=SecretStr("dummy-key-one")))
    assert by_default is given
    assert (
        limiter.account_of(ChatOpenAI(model="gpt-5-mini", api_key=SecretStr("dummy-key-two")))
        is not given
    )
    assert limiter.account_of(ChatOpenAI(model="x", base_url="http://localhost:1/v1")) is not given
    assert "dummy" not in str(limiter.status())


async def test_a_model_that_fails_before_it_streams_gives_its_place_back() -> None:
    class Eager(ScriptedChatModel):
        def _astream(self, *args: Any, **kwargs: Any) -> Any:
            raise ConnectionError("before the first piece")

    class Empty(ScriptedChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[])

    async with factory_with([say("hello")]) as factory:
        factory.register_model("eager", lambda **_: Eager(script=[say("x")]))
        factory.register_model("empty", lambda **_: Empty(script=[say("x")]))
        for name in ("eager", "empty"):
            spec = {"model": {"id": name, "limits": {"max_in_flight": 1}}}
            agent = factory.create_agent(template({}, **spec))
            for _ in range(2):
                with pytest.raises(AgentFailed):
                    if name == "eager":
                        async with agent.execute_stream("hi") as stream:
                            _ = [text async for text in stream]
                    else:
                        await asyncio.wait_for(agent.execute("hi"), 2)
        assert all(status["in_flight"] == 0 for status in factory.registry.providers.status())


async def test_a_sync_model_call_on_the_loops_own_thread_does_not_wait_for_itself() -> None:
    async with factory_with([say("hello")]) as factory:
        model = factory.registry.model(template({"max_in_flight": 1}).spec.model)  # type: ignore[arg-type]

        async def nested(text: str) -> str:
            """Ask a model without awaiting it."""
            return str(model.invoke(text).text)

        factory.register_tool("nested", nested)
        factory.register_model(
            "outer",
            lambda **_: ScriptedChatModel(
                provider="another",
                script=lambda m: (
                    say(m[-1].text) if m[-1].type == "tool" else say("", ("nested", {"text": "x"}))
                ),
            ),
        )
        place = await factory.registry.providers.account_of(model).aacquire()  # it is full
        agent = factory.create_agent(template({}, model={"id": "outer"}, tools=["nested"]))
        assert (await asyncio.wait_for(agent.execute("go"), 5)).output == "hello"
        place.release()


def template(limits: dict[str, Any], **spec: Any) -> AgentTemplate:
    content = {
        "model": {"id": "scripted", "limits": limits},
        "runtime": {"retry": {"attempts": 1}},
        **spec,
    }
    return AgentTemplate.model_validate(
        {
            "apiVersion": "agent-runtime/v1",
            "kind": "AgentTemplate",
            "metadata": {"name": "a"},
            "spec": content,
        }
    )


def factory_with(script: Any, **seats: Any) -> AgentFactory:
    factory = AgentFactory(**seats)
    factory.registry.providers = ProviderLimiter()
    factory.registry.providers.add_bus(factory.event_bus)
    factory.register_model("scripted", lambda **_: ScriptedChatModel(script=script, delay_s=0.005))
    return factory


async def test_calls_of_an_agent_take_places_and_give_them_back() -> None:
    async with factory_with([say("hello")]) as factory:
        agent = factory.create_agent(template({"max_in_flight": 2}))
        await asyncio.gather(*(agent.execute("hi") for _ in range(10)))
        (status,) = factory.registry.providers.status()
        one = factory.registry.providers.account("scripted")
        assert (one.peak, status["in_flight"], status["limit"]) == (2, 0, 2)
        async with agent.execute_stream("hi") as stream:
            async for _ in stream:
                break  # abandoned
        task = asyncio.create_task(agent.execute("hi"))
        await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert one.in_flight == 0


async def test_a_vendors_code_halves_the_limit_and_says_so() -> None:
    failed = Answered(400, {"error": {"code": "1302"}})
    async with factory_with([say(fail=failed)]) as factory:
        agent = factory.create_agent(template({"max_in_flight": 6, "overload_codes": [1302]}))
        with pytest.raises(ProviderError):
            await agent.execute("hi")
        one = factory.registry.providers.account("scripted")
        assert (one.limit, one.in_flight, one.overloads) == (3, 0, 1)
        (event,) = factory.event_bus.retained("provider.limit")
        assert event.data == {"provider": "scripted", "limit": 3, "before": 6, "reason": "overload"}


async def test_a_refused_call_gives_its_place_back() -> None:
    spec = {
        "runtime": {"cost": {"budgets": [{"scope": "run", "tokens": 1}]}, "retry": {"attempts": 1}}
    }
    async with factory_with([say("hello")]) as factory:
        agent = factory.create_agent(template({"max_in_flight": 1}, **spec))
        for _ in range(2):
            with pytest.raises(BudgetExceeded):
                await agent.execute("hi")
        assert factory.registry.providers.account("scripted").in_flight == 0
