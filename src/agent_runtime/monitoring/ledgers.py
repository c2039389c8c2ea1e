"""From a ledger's address to the ledger."""

from __future__ import annotations

from agent_runtime.monitoring.ledger import Ledger
from agent_runtime.monitoring.memory_ledger import MemoryLedger
from agent_runtime.stores import StoreUrl


def open_ledger(url: str) -> Ledger:
    """Open the ledger at an address (`StoreUrl`: memory, SQLite, Redis); raises ConfigurationError, StoreError."""
    address = StoreUrl.parse(url, "the ledger")
    if address.kind == "memory":
        return MemoryLedger()
    if address.kind == "redis":
        from agent_runtime.monitoring.redis_ledger import RedisLedger

        return RedisLedger(address)
    from agent_runtime.monitoring.sqlite_ledger import SqliteLedger

    return SqliteLedger(address.target)
