"""Leases by one model: of turns, of executions and of consumers' groups, on every store."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runtime.batch.journal import Execution, open_journal
from agent_runtime.errors import ExecutionBusy, ExecutionLost
from agent_runtime.event_bus.brokers import LeasedBroker, open_broker
from agent_runtime.sessions.opening import open_checkpointer
from agent_runtime.storage import process_identity as module
from agent_runtime.storage.process_identity import (
    boot_s,
    is_lease_held,
    is_process_dead,
    lease_owner,
    process_identity,
)

LONG_S = 60.0
SHORT_S = 0.02
OWNERS = ("a", "b")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.sampled_from(OWNERS), st.booleans()),
        st.tuples(st.just("renew"), st.sampled_from(OWNERS), st.booleans()),
        st.tuples(st.just("release"), st.sampled_from(OWNERS), st.booleans()),
        st.tuples(st.just("revoke"), st.just(""), st.just(False)),
        st.tuples(st.just("set the wall clock"), st.just(""), st.booleans()),
    ),
    max_size=14,
)
ONE_STORE = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Model:
    """One lease: its owner, its token, whether it ends soon, and whether it ended in order."""

    owner: str = ""
    token: int = 0
    is_short: bool = False
    clean: bool = True


async def run_turns(backend: Any, steps: Any) -> None:
    """Each owner keeps the last lease it got, as a turn does, also when it has been lost."""
    thread = f"acme:{uuid.uuid4().hex}"
    model = Model()
    leases: dict[str, Any] = {}
    for step, owner, flag in steps:
        lease = leases.get(owner)
        is_holder = lease is not None and model.token == lease.token and model.owner == owner
        if step == "acquire":
            acquired = await backend.acquire_lease(thread, owner, SHORT_S if flag else LONG_S)
            assert (acquired is None) == bool(model.owner)
            if acquired is not None:
                assert acquired.token > model.token
                assert acquired.clean_shutdown == model.clean
                leases[owner] = acquired
                model = Model(owner, acquired.token, flag, clean=False)
        elif step == "renew" and lease is not None and is_holder:
            assert await backend.renew_lease(lease, SHORT_S if flag else LONG_S)
            model.is_short = flag
        elif step == "release" and lease is not None:
            await backend.release_lease(leases.pop(owner), flag)
            if lease.token == model.token:  # also one whose time was over, if nobody took it
                model = Model("", model.token, clean=flag)
        elif step == "revoke":
            await backend.revoke_lease(thread)
            model = Model("", model.token, clean=model.clean)
            leases = {}  # their tokens are outdated, whatever the next one is
        if model.is_short and model.owner:  # it ends now, before the next step
            await asyncio.sleep(2 * SHORT_S)
            model = Model("", model.token, clean=False)


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the wall clock of this process; leases must not follow it."""
    offset = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    def jump(seconds: float) -> None:
        offset[0] += seconds

    return jump


async def run_executions(journal: Any, steps: Any) -> None:
    name = uuid.uuid4().hex
    assert await journal.create(Execution(name))
    model = Model()
    tokens: dict[str, int] = {}
    for step, owner, flag in steps:
        is_holder = bool(model.owner) and tokens.get(owner) == model.token
        if step == "acquire":
            try:
                token = await journal.lease(name, owner, SHORT_S if flag else LONG_S)
            except ExecutionBusy:
                assert model.owner
            else:
                assert not model.owner
                assert token == model.token + 1
                tokens[owner] = token
                model = Model(owner, token, flag)
        elif step == "renew" and owner in tokens:
            renewing = journal.heartbeat(name, tokens[owner], SHORT_S if flag else LONG_S, "{}")
            if is_holder:
                await renewing
                model.is_short = flag
            elif tokens[owner] != model.token:
                with pytest.raises(ExecutionLost):
                    await renewing
        elif step == "release" and is_holder:
            execution = await journal.get(name)
            await journal.save(execution, release=True)
            model = Model("", model.token)
            tokens.pop(owner)
        if model.is_short and model.owner:
            await asyncio.sleep(2 * SHORT_S)
            model = Model("", model.token)
            tokens.clear()  # a late heartbeat would take the lease back while nobody else has it


async def run_groups(broker: LeasedBroker, steps: Any) -> None:
    group = f"g{uuid.uuid4().hex}"
    model = Model()
    for step, owner, flag in steps:
        if step in ("acquire", "renew"):  # claiming again renews
            claimed = await broker.claim(group, owner, "earliest", SHORT_S if flag else LONG_S)
            assert claimed == (model.owner in ("", owner))
            if claimed:
                model = Model(owner, is_short=flag)
        elif step == "release":
            await broker.release(group, owner)
            if model.owner == owner:
                model = Model()
        if model.is_short and model.owner:
            await asyncio.sleep(2 * SHORT_S)
            model = Model()


def open_backend(url: str) -> Any:
    return open_checkpointer(url).backend


LEASES: dict[str, tuple[Callable[..., Any], Callable[[Any, Any], Awaitable[None]], str]] = {
    "turns": (open_backend, run_turns, "prefix"),
    "executions": (open_journal, run_executions, "prefix"),
    "groups": (open_broker, run_groups, "name"),
}


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@pytest.mark.parametrize("leases", LEASES)
def test_leases_follow_the_model(
    leases: str,
    kind: str,
    tmp_path: Path,
    wall_clock: Callable[[float], None],
    request: pytest.FixtureRequest,
) -> None:
    open_store, run, option = LEASES[leases]
    server = request.getfixturevalue("redis_url") if kind == "redis" else ""
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path / 'leases.db'}"}

    @ONE_STORE
    @given(STEPS)
    def check(steps: Any) -> None:
        async def run_on_a_store() -> None:
            store = open_store(urls.get(kind, f"{server}?{option}={uuid.uuid4().hex}"))
            await run(store, steps)
            await store.aclose()

        for step, _, forwards in steps:
            if step == "set the wall clock":
                wall_clock(3600.0 if forwards else -3600.0)
        asyncio.run(run_on_a_store())

    check()


# -- names of processes


def test_a_lease_of_a_living_process_is_held_until_its_time() -> None:
    owner = lease_owner("turn")
    assert owner.startswith(process_identity())
    assert is_lease_held(owner, boot_s() + 60)
    assert not is_lease_held(owner, boot_s() - 1)
    assert not is_lease_held("", boot_s() + 60)


def test_a_process_that_has_ended_holds_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    identity = module._identity_of(pid)
    os.waitpid(pid, 0)
    assert is_process_dead(identity)
    assert not is_lease_held(f"{identity}#turn", boot_s() + 60)


def test_a_reused_pid_is_another_process() -> None:
    machine, pid, _ = module._parse_identity(process_identity())
    assert is_process_dead(f"{machine}:{pid}:1")
    assert not is_process_dead(process_identity())


def test_nothing_is_known_of_another_machine_and_another_boot_holds_nothing() -> None:
    machine, pid, started = module._parse_identity(process_identity())
    elsewhere = f"elsewhere/{machine.partition('/')[2]}:{pid}:1"
    assert not is_process_dead(elsewhere)
    assert not is_process_dead("no identity")
    host, boot, namespace = machine.split("/")
    earlier_boot = f"{host}/{boot[::-1]}x/{namespace}:{pid}:{started}"
    assert not is_lease_held(earlier_boot, boot_s() + 60)


def test_a_lease_of_the_first_release_is_by_the_wall_clock() -> None:
    assert is_lease_held("owner", time.time() + 60)
    assert not is_lease_held("owner", time.time() - 60)
