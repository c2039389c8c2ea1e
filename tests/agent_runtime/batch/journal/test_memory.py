"""The journal in memory conforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.testing.conformance.journal import JOURNAL_CHECKS, run_journal_check


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any]) -> None:
    await run_journal_check(check, MemoryJournal)
