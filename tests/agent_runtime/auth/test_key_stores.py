"""The stores of API keys conform."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.auth.key_stores import MemoryKeyStore, RedisKeyStore, SqliteKeyStore, open_keys
from agent_runtime.testing.conformance.key_store import KEY_STORE_CHECKS, run_key_store_check

PEPPER = b"a-pepper-of-32-bytes-for-a-test-"
checks = pytest.mark.parametrize("check", KEY_STORE_CHECKS, ids=lambda check: check.__name__)


@checks
async def test_memory_conforms(check: Callable[..., Any]) -> None:
    await run_key_store_check(check, MemoryKeyStore)


@checks
async def test_sqlite_conforms(check: Callable[..., Any], tmp_path: Path) -> None:
    await run_key_store_check(check, lambda: SqliteKeyStore(tmp_path / "keys.db"))


@checks
async def test_redis_conforms(check: Callable[..., Any], redis_url: str) -> None:
    await run_key_store_check(check, lambda: RedisKeyStore(redis_url, prefix=uuid.uuid4().hex))


async def test_an_address_opens_its_store(tmp_path: Path, redis_url: str) -> None:
    for url, kind in (
        ("memory:", MemoryKeyStore),
        (f"sqlite:{tmp_path / 'keys.db'}", SqliteKeyStore),
        (redis_url, RedisKeyStore),
    ):
        keys = open_keys(url, PEPPER)
        assert type(keys.store) is kind
        await keys.aclose()
