"""From a ledger's address to the ledger."""

from __future__ import annotations

from agent_runtime.budgets.ledger.ledger import Ledger
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.storage import StoreUrl


def open_ledger(url: str) -> Ledger:
    """Open the ledger at an address (`StoreUrl`: memory, SQLite, Redis).

    Raises ConfigurationError, StoreError.
    """
    address = StoreUrl.parse(url, "the ledger")
    if address.kind == "memory":
        return MemoryLedger()
    if address.kind == "redis":
        from agent_runtime.budgets.ledger.redis import RedisLedger

        return RedisLedger(address)
    from agent_runtime.budgets.ledger.sqlite import SqliteLedger

    return SqliteLedger(address.target)
