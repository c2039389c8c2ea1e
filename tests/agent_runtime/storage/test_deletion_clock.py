"""A wall clock that is wrong for a while ends no lease, deletes nothing, and hands no event to two
consumers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import AgentContext, Event, EventConsumer, SessionManager, SessionMiddleware
from agent_runtime.auth.key_stores import MemoryKeyStore, SqliteKeyStore
from agent_runtime.batch import open_journal
from agent_runtime.batch.journal.records import Execution
from agent_runtime.budgets.ledger.ledger import (
    Account,
    Amount,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.budgets.ledger.sqlite import SqliteLedger
from agent_runtime.errors import ExecutionBusy, SessionGone
from agent_runtime.event_bus.brokers import SqliteBroker
from agent_runtime.event_bus.deduplication import SqliteDeduplicationStore
from agent_runtime.storage import deletion_clock, process_identity
from agent_runtime.storage.deletion_clock import CONFIRM_S, ClockState
from agent_runtime.storage.process_identity import is_lease_held, is_process_dead, lease_owner

HOUR = 3600.0


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`shift(seconds)` sets the wall clock of this process; the boot clock goes on."""
    real = time.time
    offset = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    def to(seconds: float) -> None:
        offset[0] = seconds

    return to


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`pass_time(seconds)` lets both clocks go on."""
    real_wall = time.time
    real_boot = process_identity.boot_s
    passed = [0.0]
    monkeypatch.setattr(time, "time", lambda: real_wall() + passed[0])
    for module in (process_identity, deletion_clock):
        monkeypatch.setattr(module, "boot_s", lambda: real_boot() + passed[0])

    def on(seconds: float) -> None:
        passed[0] += seconds

    return on


async def test_a_turn_under_way_keeps_its_session_when_the_clock_jumps(
    tmp_path: Path, shift: Callable[[float], None], make_agent: Any
) -> None:
    url = f"sqlite:{tmp_path / 's.db'}"
    began = asyncio.Event()
    go_on = asyncio.Event()

    async def slow() -> str:
        """Work."""
        began.set()
        await go_on.wait()
        return "done"

    from langchain_core.tools import tool

    from agent_runtime.testing import say

    first = SessionManager.from_url(url)
    second = SessionManager.from_url(url)
    script = [say("", ("slow", {})), say("ready"), say("next")]
    agent, _ = make_agent(
        script,
        [tool(slow)],
        graph={"checkpointer": first.checkpointer},
        pipeline=[SessionMiddleware(first)],
    )
    running = asyncio.create_task(agent.execute(AgentContext("go", session_id="s")))
    await began.wait()
    shift(HOUR)
    waiting = asyncio.create_task(enter(second))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    go_on.set()
    assert (await running).output == "ready"
    assert await waiting == "s"
    await first.aclose()
    await second.aclose()


async def enter(manager: SessionManager) -> str:
    async with manager.turn("s") as turn:
        return turn.session.id


async def test_two_consumers_of_a_group_share_no_event_when_the_clock_jumps(
    tmp_path: Path, shift: Callable[[float], None]
) -> None:
    path = str(tmp_path / "events.db")
    one = SqliteBroker(path)
    two = SqliteBroker(path)
    await one.publish([Event("custom.made", {"n": n}, own_id=f"event-{n}") for n in range(60)])
    handled: list[str] = []

    async def handle(event: Event) -> None:
        handled.append(event.id)
        await asyncio.sleep(0.002)

    async with EventConsumer(one, "group", handle):
        async with asyncio.timeout(20):
            while len(handled) < 10:
                await asyncio.sleep(0.01)
        shift(HOUR)
        async with EventConsumer(two, "group", handle), asyncio.timeout(20):
            while len(handled) < 60:
                await asyncio.sleep(0.01)
    assert sorted(handled) == sorted(f"event-{n}" for n in range(60))
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_expired_sessions_are_deleted_only_by_a_clock_that_stands_by_its_time(
    kind: str, tmp_path: Path, request: Any, shift: Callable[[float], None]
) -> None:
    if kind == "redis":
        url = f"{request.getfixturevalue('redis_url')}/0?prefix={uuid.uuid4().hex}"
    else:
        url = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 's.db'}"
    manager = SessionManager.from_url(url)
    await manager.create_session("ada", session_id="alive", ttl_s=HOUR / 2)
    await manager.create_session("ada", session_id="over", ttl_s=0.01)
    await asyncio.sleep(0.05)
    shift(HOUR)
    with pytest.raises(SessionGone):  # what the clock says is refused, not deleted
        await manager.get_session("alive")
    assert await manager.cleanup_expired() == 1
    shift(0)
    assert (await manager.get_session("alive")).id == "alive"
    with pytest.raises(SessionGone):
        await manager.get_session("over")
    await manager.aclose()


async def test_a_jump_that_lasts_is_believed_after_an_hour(
    tmp_path: Path, pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    manager = SessionManager.from_url(f"sqlite:{path}")
    await manager.create_session("ada", session_id="s", ttl_s=10)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 86_400)
    assert await manager.cleanup_expired() == 0
    await manager.aclose()
    again = SessionManager.from_url(f"sqlite:{path}")  # another process looks
    assert await again.cleanup_expired() == 0
    pass_time(CONFIRM_S + 1)
    assert await again.cleanup_expired() == 1
    await again.aclose()


def test_a_clock_that_is_set_back_is_believed_at_once_and_ahead_by_a_little_too() -> None:
    now = time.time()
    state = ClockState.for_new_store(now)
    assert state.observe(now - 500).deletion_time(now - 500) == pytest.approx(now - 500, abs=1)
    assert state.observe(now + 30).deletion_time(now + 30) == pytest.approx(now + 30, abs=1)
    ahead = state.observe(now + 7200)
    assert ahead.deletion_time(now + 7200) == pytest.approx(now, abs=1)
    assert ClockState.from_json(ahead.to_json()) == ahead
    known = ClockState.for_existing_store(
        now
    )  # nothing is known of the clock that the contents were written by
    assert known.deletion_time(now) == 0


def test_after_a_restart_of_the_machine_what_was_over_before_may_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()
    state = ClockState.for_new_store(now).observe(now)
    monkeypatch.setattr(deletion_clock, "boot_id", lambda: "another")
    after = state.observe(now + 100_000)
    assert after.deletion_time(now + 100_000) == pytest.approx(now, abs=1)


async def test_no_store_forgets_on_one_look_at_a_wrong_clock(
    tmp_path: Path, shift: Callable[[float], None]
) -> None:
    account = Account("tenant=a/day=x", 10**6, None, ends_at=time.time() + 60)
    labels = SpendLabels("a", "u", "t", "m")
    ledgers: list[Any] = [MemoryLedger(), SqliteLedger(tmp_path / "l.db")]
    keys: list[Any] = [MemoryKeyStore(), SqliteKeyStore(tmp_path / "k.db")]
    seen = SqliteDeduplicationStore(str(tmp_path / "i.db"))
    for ledger in ledgers:
        ledger.transact(
            [], ReservationRequest("a", (account,), Amount(), Amount(50, 0), 900.0)
        ).run()
        ledger.transact([Settlement("a", Amount(50), (Spend(labels, micro_usd=50),))], None).run()
    for store in keys:
        store.revoke_token("stolen", time.time() + 600).run()
    await seen.add("group", "event-1")
    year = 500 * 86_400
    shift(year)
    for ledger in ledgers:
        ledger._rules._next_cleanup_at = 0.0
        ledger.expire_holds().run()
    for store in keys:
        store.revoke_token("other", time.time() + 600).run()
    await seen.add("group", "event-2")
    shift(0)
    for ledger in ledgers:
        assert ledger.balances().run()[account.key].spent_micro_usd == 50
        assert len(ledger.report(time.time() - HOUR, time.time() + HOUR).run()) == 1
    for store in keys:
        assert store.is_token_revoked("stolen").run()
    assert await seen.contains("group", "event-1")


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_a_batch_under_way_is_not_taken_over_when_the_clock_jumps(
    kind: str, tmp_path: Path, request: Any, shift: Callable[[float], None]
) -> None:
    if kind == "redis":
        url = f"{request.getfixturevalue('redis_url')}/0?prefix={uuid.uuid4().hex}"
    else:
        url = "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'b.db'}"
    journal = open_journal(url)
    await journal.create(Execution("e"))
    await journal.lease("e", lease_owner("one"), 60)
    for seconds in (HOUR, -HOUR):
        shift(seconds)
        assert (await journal.get("e")).is_leased
        with pytest.raises(ExecutionBusy):
            await journal.lease("e", "other", 60)
    await journal.aclose()


def test_a_lease_ends_with_its_time_its_process_or_its_boot(
    pass_time: Callable[[float], None],
) -> None:
    now = process_identity.boot_s()
    own = lease_owner("x")
    assert is_lease_held(own, now + 10)
    assert not is_lease_held(own, now - 1)
    assert not is_lease_held("", now + 10)
    machine, pid, _ = process_identity._parse_identity(own)
    assert not is_lease_held(f"{machine}:4194305:1#x", now + 10)  # no process has that number
    assert not is_lease_held(f"{machine}:{pid}:1#x", now + 10)  # another process had it
    host, boot, namespace = machine.split("/")
    assert not is_lease_held(
        f"{host}/{'f' * len(boot)}/{namespace}:{pid}:1#x", now + 10
    )  # before a restart
    assert is_lease_held(
        f"{host}/{boot}/0000:{pid}:1#x", now + 10
    )  # another container: nothing is known of it
    assert is_lease_held("an owner of another form", now + 10)
    pass_time(11)
    assert not is_lease_held(own, now + 10)


def test_a_lease_that_an_earlier_version_writes_beside_us_ends_by_its_wall_clock() -> None:
    owner = f"{socket.gethostname()}:{os.getpid()}:1"  # the form of version 1
    assert is_lease_held(owner, time.time() + 10)
    assert not is_lease_held(owner, time.time() - 1)


async def test_a_killed_process_leaves_no_lease_behind(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    program = (
        "import asyncio, sys\nfrom agent_runtime import SessionManager\n"
        "async def main():\n"
        f"    manager = SessionManager.from_url('sqlite:{path}', lease_s=600)\n"
        "    await manager.create_session('ada', session_id='s')\n"
        "    async with manager.turn('s'):\n"
        "        print('held', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    manager = SessionManager.from_url(f"sqlite:{path}")
    waiting = asyncio.create_task(enter(manager))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    process.kill()
    process.wait()
    process.stdout.close()
    async with asyncio.timeout(10):  # its lease has ten minutes to go
        assert await waiting == "s"
    await manager.aclose()


def test_a_child_is_another_process() -> None:
    own = process_identity.process_identity()
    if (pid := os.fork()) == 0:
        os._exit(
            0 if process_identity.process_identity() != own and not is_process_dead(own) else 1
        )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
