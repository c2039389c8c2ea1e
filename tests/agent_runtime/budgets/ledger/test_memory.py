"""The ledger in memory conforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.testing.conformance.ledger import LEDGER_CHECKS, run_ledger_check


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any]) -> None:
    await run_ledger_check(check, MemoryLedger)
