"""The checkpoint backend in SQLite conforms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.checkpoints.backends.sqlite import SqliteCheckpointBackend
from agent_runtime.testing.conformance.checkpoints import CHECKPOINT_CHECKS, run_checkpoint_check


@pytest.mark.parametrize("check", CHECKPOINT_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any], tmp_path: Path) -> None:
    await run_checkpoint_check(check, lambda: SqliteCheckpointBackend(tmp_path / "store.db"))
