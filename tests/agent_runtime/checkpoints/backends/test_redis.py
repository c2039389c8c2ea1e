"""The checkpoint backend in Redis conforms."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.checkpoints.backends.redis import RedisCheckpointBackend
from agent_runtime.testing.conformance.checkpoints import CHECKPOINT_CHECKS, run_checkpoint_check


@pytest.mark.parametrize("check", CHECKPOINT_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any], redis_url: str) -> None:
    await run_checkpoint_check(
        check, lambda: RedisCheckpointBackend(redis_url, prefix=uuid.uuid4().hex)
    )
