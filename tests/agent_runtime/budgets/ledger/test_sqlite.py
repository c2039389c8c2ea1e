"""The ledger in SQLite conforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.budgets.ledger.sqlite import SqliteLedger
from agent_runtime.testing.conformance.ledger import LEDGER_CHECKS, run_ledger_check


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any], tmp_path: Path) -> None:
    await run_ledger_check(check, lambda: SqliteLedger(tmp_path / "store.db"))
