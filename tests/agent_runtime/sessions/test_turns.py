"""Several processes on one session, and processes that are killed."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.support.crash_checks import ENV, HERE, check_crashes
from tests.support.sessions import open_manager

from agent_runtime import SessionBusy, StaleWriter
from agent_runtime.checkpoints.backends.backend import FencingToken
from agent_runtime.storage import RedisConnection, redis_connection
from agent_runtime.storage.operations import Steps

# Tests of many processes run on one store in the suite, and on the other by `make integration`.
on_each_store = pytest.mark.parametrize(
    "shared_url", ["redis", pytest.param("sqlite", marks=pytest.mark.integration)], indirect=True
)


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that processes share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'sessions.db'}"
    return f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"


async def turns_from_processes(url: str, locked: str, count: int) -> list[str]:
    command = [sys.executable, str(HERE / "turns_worker.py"), url, locked, str(count)]
    workers = [await asyncio.create_subprocess_exec(*command, name, env=ENV) for name in "abcd"]
    async with asyncio.timeout(90):
        assert [await w.wait() for w in workers] == [0, 0, 0, 0]
    async with open_manager(url) as manager:
        found = await manager.checkpointer.aget_tuple(
            {"configurable": {"thread_id": "default:shared"}}
        )
        assert found is not None
        return [str(m.text) for m in found.checkpoint["channel_values"]["messages"]]


@pytest.mark.integration
async def test_a_hundred_turns_from_four_processes_are_all_there_in_one_order(
    shared_url: str,
) -> None:
    texts = await turns_from_processes(shared_url, "yes", 25)
    questions = texts[::2]
    answers = texts[1::2]
    assert sorted(questions) == sorted(f"{name}-{n}" for name in "abcd" for n in range(25))
    assert answers == [f"answer to {q}" for q in questions]


@pytest.mark.integration
async def test_without_the_session_layer_turns_are_lost(redis_url: str) -> None:
    texts = await turns_from_processes(f"{redis_url}?prefix={uuid.uuid4().hex}", "no", 25)
    assert len(texts) < 200


@on_each_store
@pytest.mark.timeout(150)  # some forty processes, one after another
@pytest.mark.parametrize(
    "mode", ["message", pytest.param("continue", marks=pytest.mark.integration)]
)
def test_a_turn_that_is_killed_anywhere_leaves_a_sound_conversation(
    shared_url: str, mode: str, tmp_path: Path
) -> None:
    # Every fourth boundary here; `make soak` takes each.
    check_crashes(shared_url, mode, tmp_path, stride=4)


async def test_a_process_that_stands_still_loses_its_session_and_cannot_write(
    shared_url: str,
) -> None:
    async with (
        open_manager(shared_url, lease_s=0.2) as slow,
        open_manager(shared_url, lease_s=5) as quick,
    ):
        lease = await slow.checkpointer.backend.acquire_lease("default:s", "slow", 0.2)
        assert lease is not None
        with pytest.raises(SessionBusy):
            async with quick.turn("s", strategy="reject"):
                pass
        await asyncio.sleep(0.3)
        async with quick.turn("s") as turn:
            assert turn.unfinished  # the one before was not given back
            assert turn.fencing_token.value > lease.token
            for guard in (FencingToken(lease.token), None):
                with pytest.raises(StaleWriter):
                    await slow.checkpointer.backend.save_writes(
                        "default:s", "", "1", [], guard, None
                    )
            assert not await slow.checkpointer.backend.renew_lease(lease, 1.0)


def no_steps() -> Steps[None]:
    yield from ()


async def test_a_cancellation_that_a_client_loses_is_not_lost(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = RedisConnection(redis_url)

    async def losing(steps: Any, client: Any) -> Any:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            # as `asyncio.wait_for` does on Python 3.11 when it is cancelled just as it ends
            return b"sent"

    monkeypatch.setattr(redis_connection, "arun_steps", losing)
    asking = asyncio.create_task(connection.arun(no_steps()))
    await asyncio.sleep(0.2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.arun(no_steps())
    await connection.aclose()


async def test_cancelled_redis_calls_end(redis_url: str) -> None:
    async with open_manager(f"{redis_url}?prefix={uuid.uuid4().hex}") as manager:
        records = manager.checkpointer.backend
        lease = await records.acquire_lease("default:s", "me", 60)
        assert lease is not None

        async def renew() -> None:
            while True:
                await records.renew_lease(lease, 60)

        for number in range(300):
            renewing = asyncio.create_task(renew())
            await asyncio.sleep(0.0005 + number % 7 * 0.0001)
            renewing.cancel()
            done, _ = await asyncio.wait({renewing}, timeout=5)
            assert done, f"cancelled in vain at {number}"


async def test_a_turn_whose_lease_is_lost_is_stopped(shared_url: str) -> None:
    async with open_manager(shared_url, lease_s=0.15) as manager:

        async def hold() -> None:
            async with manager.turn("s") as turn:
                await manager.checkpointer.backend.release_lease(turn.lease, True)
                await manager.checkpointer.backend.acquire_lease(turn.thread, "thief", 5)
                await asyncio.sleep(30)

        started = asyncio.get_running_loop().time()
        with pytest.raises(StaleWriter, match="lost"):
            await hold()
        assert asyncio.get_running_loop().time() - started < 5


async def test_cancelling_a_wait_leaves_no_lease_behind(shared_url: str) -> None:
    async with open_manager(shared_url) as manager:
        for delay_s in (0.0, 0.001, 0.002, 0.004, 0.008):

            async def enter() -> None:
                async with manager.turn("s"):
                    await asyncio.sleep(0.001)

            task = asyncio.create_task(enter())
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.wait([task])
        async with asyncio.timeout(2), manager.turn("s") as turn:
            assert turn.lease.token


async def test_a_fork_from_an_older_head_is_refused_to_a_stale_turn(shared_url: str) -> None:
    from tests.support.checkpoints import METADATA, checkpoint

    from agent_runtime.checkpoints.operations import FENCING_TOKEN_KEY

    async with open_manager(shared_url) as manager, manager.turn("s") as turn:
        config: Any = {
            "configurable": {
                "thread_id": turn.thread,
                "checkpoint_ns": "",
                FENCING_TOKEN_KEY: turn.fencing_token,
            }
        }
        first = await manager.checkpointer.aput(config, checkpoint(["a"]), METADATA, {})
        first["configurable"][FENCING_TOKEN_KEY] = turn.fencing_token
        await manager.checkpointer.aput(first, checkpoint(["a", "b"], 2), METADATA, {})
        with pytest.raises(StaleWriter, match="head"):
            await manager.checkpointer.aput(first, checkpoint(["a", "c"], 2), METADATA, {})


def test_the_session_store_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    open_manager(f"sqlite:{folder / 's.db'}")
    assert (folder.stat().st_mode & 0o777, (folder / "s.db").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
