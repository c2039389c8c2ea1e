"""The ledger: nothing is spent twice, nothing above a budget, on memory, SQLite and Redis alike."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.budgets.ledger.ledger import (
    OPERATION_RETENTION_S,
    Account,
    Amount,
    Answer,
    Balance,
    Ledger,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.budgets.ledger.redis import RedisLedger
from agent_runtime.budgets.ledger.sqlite import SqliteLedger

TENANT = Account("tenant=acme/day=2026-11-21", 1000, None)
GLOBAL = Account("global/total", None, 500)
LABELS = SpendLabels("acme", "bob", "analyst", "gpt-5")


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """An empty ledger on each of the stores in turn."""
    async for made in opened(request.param, tmp_path, request):
        yield made


async def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    made: Any
    if kind == "memory":
        made = MemoryLedger()
    elif kind == "sqlite":
        made = SqliteLedger(folder / "ledger.db")
    else:
        made = RedisLedger(request.getfixturevalue("redis_url"), prefix=uuid.uuid4().hex)
    yield made
    await made.aclose()


def asked(
    operation_id: str,
    wanted: tuple[int, int],
    least: tuple[int, int] | None = None,
    *accounts: Account,
    ttl_s: float = 60,
) -> ReservationRequest:
    return ReservationRequest(
        operation_id,
        accounts or (TENANT, GLOBAL),
        Amount(*(least or wanted)),
        Amount(*wanted),
        ttl_s,
    )


async def transact(
    ledger: Ledger, endings: list[Settlement], reservation: ReservationRequest | None = None
) -> Answer:
    answer: Answer = await ledger.transact(endings, reservation)
    return answer


async def test_a_reservation_holds_on_every_account_or_on_none(ledger: Ledger) -> None:
    assert (await transact(ledger, [], asked("a", (600, 100)))).granted == (600, 100)
    refused = await transact(ledger, [], asked("b", (600, 100)))
    assert refused.granted is None
    assert refused.refusal == ("tenant=acme/day=2026-11-21", (0, 0), (600, 100))
    refused = await transact(ledger, [], asked("c", (100, 450)))
    assert refused.refusal is not None
    assert refused.refusal.key == "global/total"
    balances = await ledger.balances()
    assert balances["global/total"] == Balance(0, 600, 0, 100, None, 500, None)
    assert balances[TENANT.key].held_micro_usd == 600


async def test_what_is_left_is_granted_when_it_is_enough(ledger: Ledger) -> None:
    await transact(ledger, [], asked("a", (700, 100)))
    assert (await transact(ledger, [], asked("b", (600, 600), (300, 400)))).granted == (300, 400)
    assert (await transact(ledger, [], asked("c", (600, 600), (1, 0)))).granted is None


async def test_settling_replaces_the_estimate_and_says_what_changed(ledger: Ledger) -> None:
    await transact(ledger, [], asked("a", (600, 100)))
    answer = await transact(ledger, [Settlement("a", Amount(250, 40))], asked("b", (750, 100)))
    assert answer.granted == (750, 100)
    assert answer.charges == (
        (TENANT.key, (250, 40), (250, 40)),
        (GLOBAL.key, (250, 40), (250, 40)),
    )
    balance = (await ledger.balances())[TENANT.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd, balance.limit_micro_usd) == (
        250,
        750,
        1000,
    )


async def test_a_reservation_that_comes_after_its_end_is_refused(ledger: Ledger) -> None:
    account = Account("tenant=acme/total", 1000, None)
    await transact(ledger, [Settlement("late", Amount(0, 0))])
    answer = await transact(
        ledger, [], ReservationRequest("late", (account,), Amount(1, 1), Amount(10, 10), 60.0)
    )
    assert answer.granted is None
    assert answer.refusal is not None
    assert answer.refusal.key == account.key
    balance = (await ledger.balances()).get(account.key)
    assert balance is None or balance.held_micro_usd == 0


async def test_a_reservation_that_is_asked_for_again_after_its_lease_holds_anew(
    ledger: Ledger,
) -> None:
    account = Account("tenant=acme/total", 1000, None)
    late = ReservationRequest("late", (account,), Amount(1, 1), Amount(600, 10), 0.05)
    assert (await transact(ledger, [], late)).granted == Amount(600, 10)
    await asyncio.sleep(0.1)
    await ledger.expire_holds()
    assert (await ledger.balances())[account.key].spent_micro_usd == 600
    assert (await transact(ledger, [], late._replace(ttl_s=60.0))).granted == Amount(600, 10)
    balance = (await ledger.balances())[account.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (0, 600)
    await transact(ledger, [Settlement("late", Amount(200, 5))])
    balance = (await ledger.balances())[account.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (200, 0)


async def test_what_was_bought_under_a_name_is_not_paid_again(ledger: Ledger) -> None:
    account = Account("batch=b/total", 1000, None)
    named = ReservationRequest(
        "name", (account,), Amount(1, 1), Amount(600, 10), 60.0, idempotent=True
    )

    async def balance() -> tuple[int, int]:
        found = (await ledger.balances())[account.key]
        return found.spent_micro_usd, found.held_micro_usd

    assert (await transact(ledger, [], named)).granted == Amount(600, 10)
    assert (await transact(ledger, [], named)).granted == Amount(
        600, 10
    )  # its process died before it was sent
    assert await balance() == (0, 600)
    await transact(ledger, [Settlement("name", Amount(250, 5))])
    assert (await transact(ledger, [], named)).granted == Amount(600, 10)  # or after it was paid
    assert await balance() == (250, 0)
    await transact(ledger, [Settlement("name", Amount(250, 5))])
    assert await balance() == (250, 0)
    free = named._replace(operation_id="free")
    await transact(ledger, [], free)
    await transact(
        ledger, [Settlement("free", Amount(0, 0))]
    )  # it failed, and cost nothing: now it is bought
    assert (await transact(ledger, [], free)).granted == Amount(600, 10)
    assert await balance() == (250, 600)
    await transact(ledger, [Settlement("free", Amount(100, 2))])
    assert await balance() == (350, 0)
    late = named._replace(operation_id="late", ttl_s=0.05)
    await transact(ledger, [], late)
    await asyncio.sleep(0.1)
    await ledger.expire_holds()
    assert await balance() == (950, 0)  # nobody ended it: charged at its estimate
    assert (await transact(ledger, [], late._replace(ttl_s=60.0))).granted == Amount(600, 10)
    await transact(ledger, [Settlement("late", Amount(50, 1))])
    assert await balance() == (400, 0)


async def test_every_operation_may_be_repeated(ledger: Ledger) -> None:
    for _ in range(3):
        assert (await transact(ledger, [], asked("a", (600, 100)))).granted == (600, 100)
    spend = Spend(LABELS, input_tokens=30, output_tokens=10, micro_usd=250)
    for _ in range(3):
        await transact(ledger, [Settlement("a", Amount(250, 40), (spend,))])
    balance = (await ledger.balances())[TENANT.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (250, 0)
    now = time.time()
    ((hour, found),) = await ledger.report(now - 3600, now + 3600)
    assert found == spend
    assert 0 <= now - hour < 3601


async def test_an_abandoned_hold_is_charged_and_a_late_end_corrects_it(ledger: Ledger) -> None:
    await transact(ledger, [], asked("kept", (100, 10)))
    await transact(
        ledger, [], asked("a", (600, 100), ttl_s=0.05)
    )  # the last: each of them sweeps, too
    await asyncio.sleep(0.1)
    assert await ledger.expire_holds() == 1
    balance = (await ledger.balances())[TENANT.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (600, 100)
    answer = await transact(ledger, [Settlement("a", Amount(200, 20))])
    assert answer.charges[0] == (TENANT.key, (200, 20), (-400, -80))
    balance = (await ledger.balances())[TENANT.key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (200, 100)


async def test_spending_without_a_hold_is_reported_once(ledger: Ledger) -> None:
    spends = (
        Spend(LABELS, micro_usd=5),
        Spend(LABELS._replace(model="other model", user=""), unknown=1),
    )
    for _ in range(2):
        assert (await transact(ledger, [Settlement("x", Amount(), spends)])).charges == ()
    await transact(ledger, [Settlement("y", Amount(), spends[:1])])
    found = [spend for _, spend in await ledger.report(0, time.time() + 1)]
    assert sorted(found) == sorted([Spend(LABELS, calls=2, micro_usd=10), spends[1]])
    assert await ledger.report(0, 3600) == []


async def test_a_thousand_at_once_stay_within_the_budget(ledger: Ledger) -> None:
    only = (Account("tenant=a b/=c", 10_000, None),)

    async def one(number: int) -> int:
        while True:
            answer = await transact(
                ledger, [], ReservationRequest(str(number), only, Amount(30), Amount(30), 60)
            )
            if answer.granted is not None:
                break
            assert answer.refusal is not None
            if answer.refusal.reserved.micro_usd == 0:  # nobody will give anything back
                return 0
            await asyncio.sleep(0)
        await transact(ledger, [Settlement(str(number), Amount(25))])
        return 25

    spent = sum(await asyncio.gather(*(one(number) for number in range(1000))))
    balance = (await ledger.balances())[only[0].key]
    assert (balance.spent_micro_usd, balance.held_micro_usd) == (spent, 0)
    assert 10_000 - 30 < spent <= 10_000


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_operations_and_old_accounts_are_forgotten(kind: str, tmp_path: Path) -> None:
    now = [1000.0]
    clock = lambda: now[0]  # noqa: E731
    ledger: Any = (
        MemoryLedger(clock=clock)
        if kind == "memory"
        else SqliteLedger(tmp_path / "l.db", clock=clock)
    )
    day = Account("tenant=a/day=1970-01-01", 100, None, ends_at=86_400.0)
    ledger.transact([], asked("a", (50, 0), None, day)).run()
    ledger.transact([Settlement("a", Amount(50), (Spend(LABELS, micro_usd=50),))], None).run()
    now[0] += OPERATION_RETENTION_S + 1
    ledger.expire_holds().run()
    assert "tenant=a/day=1970-01-01" in ledger.balances().run()
    now[0] += 500 * 86_400
    ledger.expire_holds().run()
    assert ledger.balances().run() == {}
    assert ledger.report(0, now[0]).run() == []
    assert ledger._rules._store.get_operation("a") is None
    await ledger.aclose()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "end"]),
        st.integers(0, 5),  # which operation
        st.integers(100, 700),
        st.integers(50, 300),
        st.integers(0, 2),  # which accounts
    ),
    min_size=3,
    max_size=12,
)
SETS = [(TENANT, GLOBAL), (GLOBAL,), (TENANT,)]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_the_stores_agree_with_the_book(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "redis":
        request.getfixturevalue("redis_url")  # not inside the event loop of an example

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=STEPS)
    def agree(steps: list[tuple[str, int, int, int, int]]) -> None:
        model = MemoryLedger()
        folder = tmp_path / uuid.uuid4().hex
        real: Any = (
            SqliteLedger(folder / "l.db", synchronous="normal")
            if kind == "sqlite"
            else RedisLedger(request.getfixturevalue("redis_url"), prefix=uuid.uuid4().hex)
        )
        for kind_of_step, number, usd, tokens, accounts in steps:
            args: tuple[Any, ...]
            if kind_of_step == "end":
                args = (
                    [Settlement(str(number), Amount(usd, tokens), (Spend(LABELS, micro_usd=usd),))],
                    None,
                )
            else:
                least = (usd // 2, tokens // 2)
                args = ([], asked(str(number), (usd, tokens), least, *SETS[accounts]))
            assert real.transact(*args).run() == model.transact(*args).run()
        assert real.balances().run() == dict(sorted(model.balances().run().items()))
        assert [s for _, s in real.report(0, 2e10).run()] == [
            s for _, s in model.report(0, 2e10).run()
        ]
        asyncio.run(real.aclose())

    await asyncio.to_thread(agree)
