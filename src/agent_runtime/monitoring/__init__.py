"""What calls cost and what is counted of them: prices, budgets, the ledger, reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runtime.monitoring.budgets import Budget
    from agent_runtime.monitoring.ledger import Account, Amount, Balance, Ledger, Spend
    from agent_runtime.monitoring.ledgers import open_ledger
    from agent_runtime.monitoring.memory_ledger import MemoryLedger
    from agent_runtime.monitoring.prices import PriceTable
    from agent_runtime.monitoring.redis_ledger import RedisLedger
    from agent_runtime.monitoring.sqlite_ledger import SqliteLedger

# Loaded at first use: a program without Redis does not pay for its client.
_HOME = {
    "Account": "ledger",
    "Amount": "ledger",
    "Balance": "ledger",
    "Budget": "budgets",
    "Ledger": "ledger",
    "MemoryLedger": "memory_ledger",
    "PriceTable": "prices",
    "RedisLedger": "redis_ledger",
    "Spend": "ledger",
    "SqliteLedger": "sqlite_ledger",
    "open_ledger": "ledgers",
}

__all__ = [
    "Account",
    "Amount",
    "Balance",
    "Budget",
    "Ledger",
    "MemoryLedger",
    "PriceTable",
    "RedisLedger",
    "Spend",
    "SqliteLedger",
    "open_ledger",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent_runtime.monitoring' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"agent_runtime.monitoring.{_HOME[name]}"), name)
    globals()[name] = value
    return value
