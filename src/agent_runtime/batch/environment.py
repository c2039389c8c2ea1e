"""Hold the shared resources of a process's executions, and define their budget accounts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent_runtime.batch.settings import BatchSettings
from agent_runtime.budgets.ledger.ledger import MICROS_PER_USD, Account

if TYPE_CHECKING:
    from agent_runtime.batch.journal.journal import Journal
    from agent_runtime.batch.journal.records import Execution
    from agent_runtime.batch.load_balancer import LoadBalancer
    from agent_runtime.event_bus.dead_letter import DeadLetters
    from agent_runtime.factory import AgentFactory
    from agent_runtime.types import Principal


@dataclass(slots=True)
class BatchEnvironment:
    """Hold what all executions of a process share."""

    factory: AgentFactory
    journal: Journal
    load_balancer: LoadBalancer
    dead_letters: DeadLetters
    owner: str
    principal: Principal | None = None
    credentials: Any = None
    result_counts: Counter[str] = field(default_factory=Counter)
    """Results of all executions stored here, by status.

    `retries` counts attempts after a failed one.
    """


def budget_account(execution: Execution, settings: BatchSettings) -> Account | None:
    """Return the ledger account of an execution with a budget.

    Spending before there was a budget is on no account, so it lowers the limit.
    """
    if settings.max_cost_usd is None:
        return None
    limit_usd = settings.max_cost_usd - float(execution.source.get("unbudgeted_usd", 0))
    return Account(f"batch={execution.id}/total", max(1, round(limit_usd * MICROS_PER_USD)), None)
