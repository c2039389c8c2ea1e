"""The ledger in Redis conforms."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.budgets.ledger.redis import RedisLedger
from agent_runtime.testing.conformance.ledger import LEDGER_CHECKS, run_ledger_check


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any], redis_url: str) -> None:
    await run_ledger_check(check, lambda: RedisLedger(redis_url, prefix=uuid.uuid4().hex))
