"""The journal in Redis conforms."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.batch.journal.redis import RedisJournal
from agent_runtime.testing.conformance.journal import JOURNAL_CHECKS, run_journal_check


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any], redis_url: str) -> None:
    await run_journal_check(check, lambda: RedisJournal(redis_url, prefix=uuid.uuid4().hex))
