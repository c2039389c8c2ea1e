"""Check that a ledger conforms, in any test suite.

    @pytest.mark.parametrize("check", LEDGER_CHECKS)
    async def test_my_ledger(check):
        await run_ledger_check(check, lambda: MyLedger(fresh_name))

`open_ledger` opens an empty ledger, once. A check raises AssertionError.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from agent_runtime.budgets.ledger.ledger import (
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
from agent_runtime.testing.conformance.checks import run_store_check

LedgerCheck = Callable[[Ledger], Awaitable[None]]
TENANT = Account("tenant=acme/day=2026-11-21", 1000, None)
GLOBAL = Account("global/total", None, 500)
LABELS = SpendLabels("acme", "bob", "analyst", "gpt-5")
LEASE_S = 0.05
"""Seconds of the short leases of the checks."""


def reserve(
    operation_id: str,
    requested: tuple[int, int],
    minimum: tuple[int, int] | None = None,
    *,
    accounts: Sequence[Account] = (TENANT, GLOBAL),
    ttl_s: float = 60.0,
    idempotent: bool = False,
) -> ReservationRequest:
    """Return a reservation of micro-USD and tokens, whole unless a minimum is given."""
    return ReservationRequest(
        operation_id,
        tuple(accounts),
        Amount(*(minimum or requested)),
        Amount(*requested),
        ttl_s,
        idempotent,
    )


async def _reserve(ledger: Ledger, request: ReservationRequest) -> Amount | None:
    return (await ledger.transact([], request)).granted


async def _settle(ledger: Ledger, operation_id: str, micro_usd: int, tokens: int = 0) -> Answer:
    return await ledger.transact([Settlement(operation_id, Amount(micro_usd, tokens))], None)


async def _usd(ledger: Ledger, account: Account) -> tuple[int, int]:
    """Return the spent and the reserved micro-USD of an account."""
    balance = (await ledger.balances()).get(account.key, Balance())
    return balance.spent_micro_usd, balance.held_micro_usd


async def _expire(ledger: Ledger) -> int:
    await asyncio.sleep(2 * LEASE_S)
    return await ledger.expire_holds()


async def a_reservation_counts_on_every_account_or_on_none(ledger: Ledger) -> None:
    """Check that the first account without enough refuses, with its figures."""
    assert await _reserve(ledger, reserve("a", (600, 100))) == (600, 100)
    refused = await ledger.transact([], reserve("b", (600, 100)))
    assert refused.granted is None
    assert refused.refusal == (TENANT.key, (0, 0), (600, 100))
    refused = await ledger.transact([], reserve("c", (100, 450)))
    assert refused.refusal is not None
    assert refused.refusal.key == GLOBAL.key
    balances = await ledger.balances()
    assert balances[GLOBAL.key] == Balance(0, 600, 0, 100, None, 500, None)
    assert balances[TENANT.key].held_micro_usd == 600


async def a_reservation_takes_the_rest_if_that_is_enough(ledger: Ledger) -> None:
    """Check that at least the minimum is granted, at most the requested amount."""
    await ledger.transact([], reserve("a", (700, 100)))
    assert await _reserve(ledger, reserve("b", (600, 600), (300, 400))) == (300, 400)
    assert await _reserve(ledger, reserve("c", (600, 600), (1, 0))) is None


async def a_settlement_replaces_the_reservation(ledger: Ledger) -> None:
    """Check that the actual cost is charged, reported, and free for the same transaction."""
    await ledger.transact([], reserve("a", (600, 100)))
    answer = await ledger.transact([Settlement("a", Amount(250, 40))], reserve("b", (750, 100)))
    assert answer.granted == (750, 100)
    assert answer.charges == (
        (TENANT.key, (250, 40), (250, 40)),
        (GLOBAL.key, (250, 40), (250, 40)),
    )
    assert await _usd(ledger, TENANT) == (250, 750)


async def a_settlement_at_an_estimate_is_raised_once(ledger: Ledger) -> None:
    """Check that a second settlement charges the difference when it is higher, else nothing."""
    await ledger.transact([], reserve("a", (600, 100)))
    await _settle(ledger, "a", 250, 40)
    assert (await _settle(ledger, "a", 300, 30)).charges[0] == (TENANT.key, (300, 40), (50, 0))
    assert (await _settle(ledger, "a", 100, 10)).charges == ()
    assert await _usd(ledger, TENANT) == (300, 0)


async def a_reservation_after_its_settlement_is_refused(ledger: Ledger) -> None:
    """Check that a reservation which arrives late reserves nothing."""
    await _settle(ledger, "late", 0)
    answer = await ledger.transact([], reserve("late", (10, 10), (1, 1)))
    assert answer.granted is None
    assert answer.refusal is not None
    assert answer.refusal.key == TENANT.key
    assert await _usd(ledger, TENANT) == (0, 0)


async def every_operation_may_be_repeated(ledger: Ledger) -> None:
    """Check that a repetition gives the same answer and changes nothing."""
    for _ in range(3):
        assert await _reserve(ledger, reserve("a", (600, 100))) == (600, 100)
    spend = Spend(LABELS, input_tokens=30, output_tokens=10, micro_usd=250)
    for _ in range(3):
        await ledger.transact([Settlement("a", Amount(250, 40), (spend,))], None)
    assert await _usd(ledger, TENANT) == (250, 0)
    now = time.time()
    ((hour, reported),) = await ledger.report(now - 3600, now + 3600)
    assert reported == spend
    assert 0 <= now - hour < 3601


async def an_idempotent_operation_is_charged_once(ledger: Ledger) -> None:
    """Check that a paid operation is granted again without a charge, and a free one is not."""
    request = reserve("name", (600, 10), (1, 1), idempotent=True)
    assert await _reserve(ledger, request) == (600, 10)
    assert await _reserve(ledger, request) == (600, 10)
    assert await _usd(ledger, TENANT) == (0, 600)
    await _settle(ledger, "name", 250, 5)
    assert await _reserve(ledger, request) == (600, 10)
    await _settle(ledger, "name", 250, 5)
    assert await _usd(ledger, TENANT) == (250, 0)
    free = request._replace(operation_id="free")
    await ledger.transact([], free)
    await _settle(ledger, "free", 0)  # it failed and cost nothing, so the next attempt is charged
    assert await _reserve(ledger, free) == (600, 10)
    await _settle(ledger, "free", 100, 2)
    assert await _usd(ledger, TENANT) == (350, 0)


async def an_abandoned_reservation_is_charged_at_its_estimate(ledger: Ledger) -> None:
    """Check that a settlement after the lease's end corrects the charge."""
    await ledger.transact([], reserve("live", (100, 10)))
    await ledger.transact([], reserve("a", (600, 100), ttl_s=LEASE_S))
    assert await _expire(ledger) == 1
    assert await _usd(ledger, TENANT) == (600, 100)
    answer = await _settle(ledger, "a", 200, 20)
    assert answer.charges[0] == (TENANT.key, (200, 20), (-400, -80))
    assert await _usd(ledger, TENANT) == (200, 100)


async def a_reservation_after_its_lease_is_made_again(ledger: Ledger) -> None:
    """Check that a repetition takes back the charge of its expired predecessor."""
    late = reserve("late", (600, 10), (1, 1), ttl_s=LEASE_S)
    assert await _reserve(ledger, late) == (600, 10)
    await _expire(ledger)
    assert await _usd(ledger, TENANT) == (600, 0)
    assert await _reserve(ledger, late._replace(ttl_s=60.0)) == (600, 10)
    assert await _usd(ledger, TENANT) == (0, 600)
    await _settle(ledger, "late", 200, 5)
    assert await _usd(ledger, TENANT) == (200, 0)


async def spending_without_a_reservation_is_reported_once(ledger: Ledger) -> None:
    """Check that reports add up by labels, also by empty ones, and keep to their hours."""
    spends = (
        Spend(LABELS, micro_usd=5),
        Spend(LABELS._replace(model="other model", user=""), unknown=1),
    )
    for _ in range(2):
        assert (await ledger.transact([Settlement("x", Amount(), spends)], None)).charges == ()
    await ledger.transact([Settlement("y", Amount(), spends[:1])], None)
    reported = [spend for _, spend in await ledger.report(0, time.time() + 1)]
    assert sorted(reported) == sorted([Spend(LABELS, calls=2, micro_usd=10), spends[1]])
    assert await ledger.report(0, 3600) == []


async def concurrent_operations_stay_within_the_budget(ledger: Ledger) -> None:
    """Check that 1,000 operations at once spend the budget and not more."""
    account = Account("tenant=a b/=c", 10_000, None)

    async def run(number: int) -> int:
        request = reserve(str(number), (30, 0), accounts=(account,))
        while True:
            answer = await ledger.transact([], request)
            if answer.granted is not None:
                break
            assert answer.refusal is not None
            if answer.refusal.reserved.micro_usd == 0:  # no settlement will free anything
                return 0
            await asyncio.sleep(0)
        await _settle(ledger, str(number), 25)
        return 25

    spent = sum(await asyncio.gather(*(run(number) for number in range(1000))))
    assert await _usd(ledger, account) == (spent, 0)
    assert 10_000 - 30 < spent <= 10_000


async def sync_and_async_callers_see_the_same(ledger: Ledger) -> None:
    """Check that `run` gives what `await` gives."""
    await ledger.transact([], reserve("a", (600, 100)))
    balances = await asyncio.to_thread(lambda: ledger.balances().run())
    assert balances == await ledger.balances()
    assert balances[TENANT.key].held_micro_usd == 600


async def it_answers_as_the_one_in_memory(ledger: Ledger) -> None:
    """Check that 40 random histories get the answers of MemoryLedger."""
    reference = MemoryLedger()
    for seed in range(40):
        draw = random.Random(seed)  # noqa: S311 - the same histories each time
        tenant = TENANT._replace(key=f"tenant=t{seed}/total")
        total = GLOBAL._replace(key=f"global/{seed}")
        account_sets = [(tenant, total), (total,), (tenant,)]
        for _ in range(12):
            operation_id = f"{seed}:{draw.randrange(6)}"
            usd = draw.randint(100, 700)
            tokens = draw.randint(50, 300)
            settlements: list[Settlement] = []
            request = None
            if draw.random() < 1 / 3:
                spend = Spend(LABELS, micro_usd=usd)
                settlements = [Settlement(operation_id, Amount(usd, tokens), (spend,))]
            else:
                minimum = (usd // 2, tokens // 2)
                accounts = draw.choice(account_sets)
                request = reserve(operation_id, (usd, tokens), minimum, accounts=accounts)
            expected = await reference.transact(settlements, request)
            assert await ledger.transact(settlements, request) == expected
    assert await ledger.balances() == dict(sorted((await reference.balances()).items()))
    far = time.time() * 2
    assert await ledger.report(0, far) == await reference.report(0, far)


LEDGER_CHECKS: tuple[LedgerCheck, ...] = (
    a_reservation_counts_on_every_account_or_on_none,
    a_reservation_takes_the_rest_if_that_is_enough,
    a_settlement_replaces_the_reservation,
    a_settlement_at_an_estimate_is_raised_once,
    a_reservation_after_its_settlement_is_refused,
    every_operation_may_be_repeated,
    an_idempotent_operation_is_charged_once,
    an_abandoned_reservation_is_charged_at_its_estimate,
    a_reservation_after_its_lease_is_made_again,
    spending_without_a_reservation_is_reported_once,
    concurrent_operations_stay_within_the_budget,
    sync_and_async_callers_see_the_same,
    it_answers_as_the_one_in_memory,
)
"""All checks."""


async def run_ledger_check(check: LedgerCheck, open_ledger: Callable[[], Ledger]) -> None:
    """Run one check on a new ledger."""
    await run_store_check(check, open_ledger)
