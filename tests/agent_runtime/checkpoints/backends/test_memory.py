"""The checkpoint backend in memory conforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_runtime.checkpoints.backends.memory import MemoryCheckpointBackend
from agent_runtime.testing.conformance.checkpoints import CHECKPOINT_CHECKS, run_checkpoint_check


@pytest.mark.parametrize("check", CHECKPOINT_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any]) -> None:
    await run_checkpoint_check(check, MemoryCheckpointBackend)
