"""The stores of concurrency limits conform."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.limits.concurrency import MemoryConcurrencyStore, RedisConcurrencyStore
from agent_runtime.testing.conformance.limits import CONCURRENCY_CHECKS, run_concurrency_check

checks = pytest.mark.parametrize("check", CONCURRENCY_CHECKS, ids=lambda check: check.__name__)


@checks
async def test_memory_conforms(check: Callable[..., Any]) -> None:
    await run_concurrency_check(check, MemoryConcurrencyStore)


@checks
async def test_redis_conforms(check: Callable[..., Any], redis_url: str) -> None:
    await run_concurrency_check(
        check, lambda: RedisConcurrencyStore(redis_url, prefix=uuid.uuid4().hex, durable=False)
    )
