"""From a ledger's address to the ledger."""

from __future__ import annotations

from agent_runtime.errors import ConfigurationError
from agent_runtime.monitoring.ledger import Ledger
from agent_runtime.monitoring.memory_ledger import MemoryLedger


def open_ledger(url: str) -> Ledger:
    """The ledger at `memory:`, `redis://...`, `sqlite:FILE` or a file name; raises ConfigurationError, StoreError."""
    if url == "memory:":
        return MemoryLedger()
    if url.startswith(("redis://", "rediss://", "unix://")):
        from agent_runtime.monitoring.redis_ledger import RedisLedger

        return RedisLedger.from_url(url)
    if "://" in url:
        raise ConfigurationError(f"unknown ledger '{url}': memory:, sqlite:FILE, redis://, rediss:// or unix://")
    from agent_runtime.monitoring.sqlite_ledger import SqliteLedger

    return SqliteLedger(url.removeprefix("sqlite:"))
