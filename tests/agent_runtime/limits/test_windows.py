"""The stores of rate limits conform."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.limits.windows import MemorySlidingWindowStore, RedisSlidingWindowStore
from agent_runtime.testing.conformance.limits import WINDOW_CHECKS, run_window_check

checks = pytest.mark.parametrize("check", WINDOW_CHECKS, ids=lambda check: check.__name__)


@checks
async def test_memory_conforms(check: Callable[..., Any]) -> None:
    await run_window_check(check, MemorySlidingWindowStore)


@checks
async def test_redis_conforms(check: Callable[..., Any], redis_url: str) -> None:
    await run_window_check(
        check, lambda: RedisSlidingWindowStore(redis_url, prefix=uuid.uuid4().hex, durable=False)
    )
