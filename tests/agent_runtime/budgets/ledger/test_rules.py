"""The rules of the ledger over each store: the same answers, and what is forgotten."""

from __future__ import annotations

import asyncio
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
