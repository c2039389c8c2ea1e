"""Hold budgets in money and tokens: prices, reservations and the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.budgets.budget import Budget
    from agent_runtime.budgets.ledger.ledger import Account, Amount, Balance, Ledger, Spend
    from agent_runtime.budgets.ledger.memory import MemoryLedger
    from agent_runtime.budgets.ledger.opening import open_ledger
    from agent_runtime.budgets.ledger.redis import RedisLedger
    from agent_runtime.budgets.ledger.rules import LedgerRules, LedgerStore
    from agent_runtime.budgets.ledger.sqlite import SqliteLedger
    from agent_runtime.budgets.prices import PriceTable
    from agent_runtime.budgets.spending_policy import SpendingPolicy

# Loaded at first use: a program without Redis does not pay for its client.
_HOME = {
    "LedgerStore": "agent_runtime.budgets.ledger.rules",
    "LedgerRules": "agent_runtime.budgets.ledger.rules",
    "Account": "agent_runtime.budgets.ledger.ledger",
    "Amount": "agent_runtime.budgets.ledger.ledger",
    "Balance": "agent_runtime.budgets.ledger.ledger",
    "Budget": "agent_runtime.budgets.budget",
    "Ledger": "agent_runtime.budgets.ledger.ledger",
    "MemoryLedger": "agent_runtime.budgets.ledger.memory",
    "PriceTable": "agent_runtime.budgets.prices",
    "RedisLedger": "agent_runtime.budgets.ledger.redis",
    "Spend": "agent_runtime.budgets.ledger.ledger",
    "SpendingPolicy": "agent_runtime.budgets.spending_policy",
    "SqliteLedger": "agent_runtime.budgets.ledger.sqlite",
    "open_ledger": "agent_runtime.budgets.ledger.opening",
}

__all__ = [
    "Account",
    "Amount",
    "Balance",
    "Budget",
    "Ledger",
    "LedgerRules",
    "LedgerStore",
    "MemoryLedger",
    "PriceTable",
    "RedisLedger",
    "Spend",
    "SpendingPolicy",
    "SqliteLedger",
    "open_ledger",
]

__getattr__ = lazy_exports(__name__, _HOME)
