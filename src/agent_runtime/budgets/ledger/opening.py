"""Open the ledger at an address."""

from __future__ import annotations

from agent_runtime.budgets.ledger.ledger import Ledger
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.storage import StoreUrl
from agent_runtime.storage.store_plugins import open_plugin


def open_ledger(url: str) -> Ledger:
    """Open the ledger at an address (memory, SQLite, Redis, or of a package).

    Raises ConfigurationError, StoreError.
    """
    ledger: Ledger | None = open_plugin("ledger", url, Ledger)
    if ledger is not None:
        return ledger
    address = StoreUrl.parse(url, "the ledger")
    if address.kind == "memory":
        return MemoryLedger()
    if address.kind == "redis":
        from agent_runtime.budgets.ledger.redis import RedisLedger

        return RedisLedger(address)
    from agent_runtime.budgets.ledger.sqlite import SqliteLedger

    return SqliteLedger(address.target)
