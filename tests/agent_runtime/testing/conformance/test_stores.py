"""The stores conform: in memory, in SQLite and on Redis."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.auth.key_stores import MemoryKeyStore, RedisKeyStore, SqliteKeyStore
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.batch.journal.redis import RedisJournal
from agent_runtime.batch.journal.sqlite import SqliteJournal
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.budgets.ledger.redis import RedisLedger
from agent_runtime.budgets.ledger.sqlite import SqliteLedger
from agent_runtime.checkpoints.backends.memory import MemoryCheckpointBackend
from agent_runtime.checkpoints.backends.redis import RedisCheckpointBackend
from agent_runtime.checkpoints.backends.sqlite import SqliteCheckpointBackend
from agent_runtime.limits.concurrency import MemoryConcurrencyStore, RedisConcurrencyStore
from agent_runtime.limits.windows import MemorySlidingWindowStore, RedisSlidingWindowStore
from agent_runtime.testing.conformance.checkpoints import CHECKPOINT_CHECKS, run_checkpoint_check
from agent_runtime.testing.conformance.journal import JOURNAL_CHECKS, run_journal_check
from agent_runtime.testing.conformance.key_store import KEY_STORE_CHECKS, run_key_store_check
from agent_runtime.testing.conformance.ledger import LEDGER_CHECKS, run_ledger_check
from agent_runtime.testing.conformance.limits import (
    CONCURRENCY_CHECKS,
    WINDOW_CHECKS,
    run_concurrency_check,
    run_window_check,
)

STORES: dict[str, tuple[Any, ...]] = {
    "ledger": (LEDGER_CHECKS, run_ledger_check, MemoryLedger, SqliteLedger, RedisLedger),
    "checkpoints": (
        CHECKPOINT_CHECKS,
        run_checkpoint_check,
        MemoryCheckpointBackend,
        SqliteCheckpointBackend,
        RedisCheckpointBackend,
    ),
    "journal": (JOURNAL_CHECKS, run_journal_check, MemoryJournal, SqliteJournal, RedisJournal),
    "keys": (KEY_STORE_CHECKS, run_key_store_check, MemoryKeyStore, SqliteKeyStore, RedisKeyStore),
    "windows": (
        WINDOW_CHECKS,
        run_window_check,
        MemorySlidingWindowStore,
        None,
        RedisSlidingWindowStore,
    ),
    "permits": (
        CONCURRENCY_CHECKS,
        run_concurrency_check,
        MemoryConcurrencyStore,
        None,
        RedisConcurrencyStore,
    ),
}
CASES = [
    pytest.param(kind, store, check, id=f"{kind}-{store}-{check.__name__}")
    for kind, (checks, _, *classes) in STORES.items()
    for store, cls in zip(("memory", "sqlite", "redis"), classes, strict=True)
    if cls is not None
    for check in checks
]


@pytest.mark.parametrize(("kind", "store", "check"), CASES)
async def test_a_store_conforms(
    kind: str,
    store: str,
    check: Callable[[Any], Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    _, run_check, memory, sqlite, redis = STORES[kind]

    def open_store() -> Any:
        if store == "memory":
            return memory()
        if store == "sqlite":
            return sqlite(tmp_path / "store.db")
        return redis(request.getfixturevalue("redis_url"), prefix=uuid.uuid4().hex)

    await run_check(check, open_store)
