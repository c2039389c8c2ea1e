"""What calls cost, how often they are made, and what is seen of them: ledger, limits, logs, metrics, traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.monitoring.budgets import Budget
    from agent_runtime.monitoring.ledger import Account, Amount, Balance, Ledger, Spend
    from agent_runtime.monitoring.ledgers import open_ledger
    from agent_runtime.monitoring.limit_store import LimitStore, open_limits
    from agent_runtime.monitoring.logs import JsonFormatter, LogSink, configure_logging, redact
    from agent_runtime.monitoring.memory_ledger import MemoryLedger
    from agent_runtime.monitoring.metrics import RuntimeMetrics
    from agent_runtime.monitoring.prices import PriceTable
    from agent_runtime.monitoring.rate_limits import RateLimit
    from agent_runtime.monitoring.redis_ledger import RedisLedger
    from agent_runtime.monitoring.slots import ConcurrencyLimit
    from agent_runtime.monitoring.spending import Spending
    from agent_runtime.monitoring.sqlite_ledger import SqliteLedger
    from agent_runtime.monitoring.tracing import RuntimeTracing

# Loaded at first use: a program without Redis or Prometheus does not pay for their clients.
_HOME = {
    "Account": "ledger",
    "Amount": "ledger",
    "Balance": "ledger",
    "Budget": "budgets",
    "ConcurrencyLimit": "slots",
    "JsonFormatter": "logs",
    "Ledger": "ledger",
    "LimitStore": "limit_store",
    "LogSink": "logs",
    "MemoryLedger": "memory_ledger",
    "PriceTable": "prices",
    "RateLimit": "rate_limits",
    "RedisLedger": "redis_ledger",
    "RuntimeMetrics": "metrics",
    "RuntimeTracing": "tracing",
    "Spend": "ledger",
    "Spending": "spending",
    "SqliteLedger": "sqlite_ledger",
    "configure_logging": "logs",
    "open_ledger": "ledgers",
    "open_limits": "limit_store",
    "redact": "logs",
}

__all__ = [
    "Account",
    "Amount",
    "Balance",
    "Budget",
    "ConcurrencyLimit",
    "JsonFormatter",
    "Ledger",
    "LimitStore",
    "LogSink",
    "MemoryLedger",
    "PriceTable",
    "RateLimit",
    "RedisLedger",
    "RuntimeMetrics",
    "RuntimeTracing",
    "Spend",
    "Spending",
    "SqliteLedger",
    "configure_logging",
    "open_ledger",
    "open_limits",
    "redact",
]


__getattr__ = imported_late(__name__, _HOME)
