"""Scripts of a Redis server that forgets them: it was restarted, or somebody flushed them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import redis

from agent_runtime.storage import RedisConnection

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture
def flushing(redis_url: str) -> Iterator[None]:
    """Flush the server's scripts all the time."""
    over = threading.Event()

    def flush() -> None:
        with redis.Redis.from_url(redis_url) as client:
            while not over.is_set():
                client.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    yield
    over.set()
    thread.join()


async def test_a_script_runs_once_whatever_the_server_forgets(
    redis_url: str, flushing: None
) -> None:
    connection = RedisConnection(redis_url)
    key = "test_redis_scripts"

    def add() -> Generator[Any, Any, Any]:
        return (yield (ADD, [key], [1]))

    for number in range(200):
        assert await connection.arun(add()) == 2 * number + 1
        assert await asyncio.to_thread(connection.run, add()) == 2 * number + 2
    with redis.Redis.from_url(redis_url) as client:
        client.delete(key)
    await connection.aclose()
