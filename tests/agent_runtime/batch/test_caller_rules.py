"""A batch, a dead letter and a recorded run are their owner's.

Nobody else sees, changes or hides them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from tests.support.batches import QUICK, workflow_template

from agent_runtime import (
    AgentCallbackHandler,
    AgentContext,
    AgentFactory,
    Event,
    EventBus,
    Principal,
)
from agent_runtime.auth import open_keys
from agent_runtime.batch import BatchSettings, ParallelAgentExecutor
from agent_runtime.batch.journal import open_journal
from agent_runtime.errors import (
    ConfigurationError,
    ExecutionNotFound,
    Forbidden,
    InputInvalid,
    InstanceFailed,
    NotRecorded,
    TaskPoisoned,
)
from agent_runtime.event_bus.brokers import SqliteBroker
from agent_runtime.event_bus.dead_letter import DeadLetter
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.event_bus.owned_dead_letters import OwnedDeadLetters
from agent_runtime.event_bus.relay import Relay
from agent_runtime.pool.process.poison_tasks import PoisonTaskTracker
from agent_runtime.pool.task import AgentTask
from agent_runtime.replay import read_recording, replay_run

ADA = Principal("ada", "a")
EVE = Principal("eve", "a")
OTHER_ADA = Principal("ada", "b")
OLGA = Principal("olga", "a", frozenset({"sessions:all"}))


def factory_of_echo() -> AgentFactory:
    factory = AgentFactory()
    factory.register_workflow("echo", RunnableLambda(lambda given: f"answer to {given}"))
    factory.register_template(workflow_template("echo"))
    return factory


async def test_a_batch_is_its_owner_s(journal_url: str) -> None:
    journal = open_journal(journal_url)
    settings = BatchSettings.parse(QUICK)
    async with factory_of_echo() as factory:

        def of(principal: Principal | None) -> ParallelAgentExecutor:
            return ParallelAgentExecutor(factory, settings, journal=journal, principal=principal)

        async with (
            of(ADA) as ada,
            of(EVE) as eve,
            of(OTHER_ADA) as other,
            of(OLGA) as olga,
            of(None) as application,
        ):
            own = await ada.submit_batch_tasks(["secret"], agent="echo", execution_id="x")
            same = await other.submit_batch_tasks(["theirs"], agent="echo", execution_id="x")
            await ada.wait(own)
            await other.wait(same)
            assert own != same
            for stranger, name in [(eve, own), (other, own), (ada, same), (olga, same)]:
                with pytest.raises(ExecutionNotFound):
                    await stranger.get_execution_results(name)
                with pytest.raises(ExecutionNotFound):
                    await stranger.get_execution_status(name)
                with pytest.raises(ExecutionNotFound):
                    await stranger.rerun_failed(name)
                with pytest.raises(ExecutionNotFound):
                    await stranger.resume_execution(name)
                with pytest.raises(ExecutionNotFound):
                    await stranger.cancel_execution(name)
                with pytest.raises(ExecutionNotFound):
                    await stranger.pause_execution(name)
                with pytest.raises(ExecutionNotFound):
                    await stranger.get_report(name)
                with pytest.raises(ExecutionNotFound):
                    _ = [each async for each in stranger.stream_results(name, follow=False)]
            names = {
                who: [each["execution_id"] for each in await executor.list_executions()]
                for who, executor in [("ada", ada), ("eve", eve), ("other", other), ("olga", olga)]
            }
            assert names == {"ada": [own], "eve": [], "other": [same], "olga": [own]}
            assert (await olga.get_execution_results(own))[0].output == "answer to secret"
            assert {each["execution_id"] for each in await application.list_executions()} == {
                own,
                same,
            }
    await journal.aclose()


async def test_dead_letters_are_their_owner_s() -> None:
    letters = MemoryDeadLetters()
    mine = DeadLetter.of("q", "my payload", ValueError("x"), 1, tenant="a", user="ada")
    theirs = DeadLetter.of("q", "their payload", ValueError("x"), 1, tenant="b", user="ada")
    for each in (mine, theirs):
        await letters.add(each)
    for principal, seen in [(ADA, [mine]), (EVE, []), (OTHER_ADA, [theirs]), (OLGA, [mine])]:
        own = OwnedDeadLetters(letters, principal)
        assert await own.list() == seen
        assert await own.count() == len(seen)
        assert [letter for letter in (mine, theirs) if await own.get(letter.id) is not None] == seen
    with pytest.raises(ConfigurationError, match="adds none"):
        await OwnedDeadLetters(letters, EVE).add(mine)
    assert await OwnedDeadLetters(letters, EVE).remove(mine.id) is False
    assert await OwnedDeadLetters(letters, ADA).remove(mine.id) is True
    assert [each.id for each in await letters.list()] == [theirs.id]


async def test_a_task_is_not_put_aside_for_another_caller_s_of_the_same_id() -> None:
    letters = MemoryDeadLetters()
    poison = PoisonTaskTracker(1, letters, lambda letter: None)
    with pytest.raises(TaskPoisoned):
        await poison.record_kill(
            AgentTask("worker", "x", id="t"), OTHER_ADA, InstanceFailed("gone")
        )
    for principal in (ADA, EVE, None):
        poison.check("t", principal)
    with pytest.raises(TaskPoisoned):
        poison.check("t", OTHER_ADA)
    assert [(each.tenant, each.user) for each in await letters.list()] == [("b", "ada")]


async def test_a_recorded_run_is_its_owner_s(tmp_path: Any) -> None:
    """Two tenants chose one run id."""
    log = SqliteBroker(str(tmp_path / "events.db"))
    for number, (tenant, user) in enumerate([("a", "ada"), ("b", "ada")]):
        of: dict[str, Any] = {
            "run_id": "R",
            "tenant": tenant,
            "user_id": user,
            "source": f"bus{number}",
        }
        start = Event("run.start", {"name": "n", "input": f"of {tenant}", "agent": {}}, seq=1, **of)
        end = Event(
            "run.end", {"name": "n", "status": "completed", "output": "x", "usage": {}}, seq=2, **of
        )
        await log.publish([start, end])
    assert (await read_recording(log, "R", principal=ADA)).input == "of a"
    assert (await read_recording(log, "R", principal=OTHER_ADA)).input == "of b"
    assert (await read_recording(log, "R", principal=OLGA)).input == "of a"
    assert (await read_recording(log, "R", tenant="b")).input == "of b"
    with pytest.raises(NotRecorded):
        await read_recording(log, "R", principal=EVE)
    with pytest.raises(NotRecorded, match="which tenant"):
        await read_recording(log, "R")
    with pytest.raises(ConfigurationError, match="fork"):
        await replay_run(log, "R", principal=ADA, from_step=1)
    await log.aclose()


async def test_the_application_replays_a_run_that_was_made_with_credentials(tmp_path: Any) -> None:
    """Its start was recorded before the caller was known."""
    keys = open_keys("memory:", b"a-dummy-pepper-of-32-bytes-......")
    key, _ = keys.create("ada", tenant="acme", scopes=["run:*"])
    log = SqliteBroker(str(tmp_path / "events.db"))
    bus = EventBus()
    handler = AgentCallbackHandler(bus=bus, content=True)
    factory = AgentFactory(event_bus=bus, callback_handler=handler, authenticators=[keys])
    async with factory, Relay(bus, log) as relay:
        call = AgentContext("How long is the warranty of lamps?", credentials=key)
        await factory.create_from_template("searcher").execute(call)
        await relay.flush()
    for tenant in (None, "acme"):
        recording = await read_recording(log, call.run_id, tenant=tenant)
        assert (recording.tenant, recording.status) == ("acme", "completed")
        assert recording.steps
    await log.aclose()


RUNS_ECHO = Principal("ada", "a", frozenset({"run:echo"}))


@pytest.mark.parametrize(
    ("tasks", "agent", "error", "said"),
    [
        ("/etc/passwd", "echo", InputInvalid, "a file is the application's"),
        (["x"], "/dev/zero", ConfigurationError, "registered agent"),
        (["x"], "./echo.yaml", ConfigurationError, "registered agent"),
        ([{"input": "x", "agent": "./echo.yaml"}], "echo", ConfigurationError, "registered agent"),
        (
            [{"input": "x", "agent": "nobody"}],
            "echo",
            ConfigurationError,
            "^no agent 'nobody' is registered$",
        ),
        (["x"], "admin", Forbidden, "run:admin"),
        ([{"input": "x", "agent": "admin"}], "echo", Forbidden, "run:admin"),
    ],
)
async def test_a_principal_names_neither_files_nor_agents_of_others(
    tasks: Any, agent: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AgentFactory(
        authenticators=[open_keys("memory:", b"dummy-pepper-of-more-than-32-characters")]
    ) as factory:
        factory.register_workflow("echo", RunnableLambda(lambda given: given))
        factory.register_template(workflow_template("echo"))
        factory.register_template(workflow_template("admin"))
        monkeypatch.setattr(
            factory,
            "create_agent",
            lambda *_: pytest.fail("nothing is built before the caller may"),
        )
        async with ParallelAgentExecutor(
            factory, BatchSettings.parse(QUICK), principal=RUNS_ECHO
        ) as executor:
            with pytest.raises(error, match=said):
                await executor.submit_batch_tasks(tasks, agent=agent)


async def test_a_path_among_a_principals_inputs_fails_its_task(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {"input": "x", "inputs": {"docs": str(tmp_path)}},
        {"input": "How long is the warranty of lamps?"},
    ]
    async with (
        AgentFactory() as factory,
        ParallelAgentExecutor(factory, BatchSettings.parse(QUICK), principal=RUNS_ECHO) as executor,
    ):
        name = await executor.submit_batch_tasks(tasks, agent="searcher")
        await executor.wait(name)
        results = await executor.get_execution_results(name)
    by_status = {each.status: each for each in results}
    assert set(by_status) == {"failed", "completed"}
    error = by_status["failed"].error
    assert error is not None
    assert "the application's to give" in error.message


def test_credentials_without_a_principal_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="give the principal, too"):
        ParallelAgentExecutor(factory_of_echo(), credentials="ar_key")
