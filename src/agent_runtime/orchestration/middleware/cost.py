"""Enforce budgets and record spending."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent_runtime.auth.caller_names import Caller, caller_of
from agent_runtime.budgets.budget import Budget, accounts_of, merge_accounts, run_limits
from agent_runtime.budgets.call_budget import CallBudget
from agent_runtime.budgets.ledger.ledger import MICROS_PER_USD, Account, Charge, Ledger, SpendLabels
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.budgets.spending_policy import SpendingPolicy
from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.run.state import current_run

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext, AgentResult, Handler

LOG = logging.getLogger("agent_runtime.budgets")
MAX_CACHED_CALLERS = 10_000


WatchedAccount: TypeAlias = tuple[Account, tuple[float, ...]]


class _CallerAccounts(NamedTuple):
    """A caller's accounts, when they change, and each one's share for warnings."""

    accounts: tuple[Account, ...]
    expires_at: float
    watched_accounts: Mapping[str, WatchedAccount]


NO_ACCOUNTS = _CallerAccounts((), float("inf"), {})


class CostTrackingMiddleware(Middleware):
    """Reserve a call's model calls on its budgets, and record their cost.

    Every model call reserves its worst case before it is sent, on all budgets in one step, and
    settles its actual cost. Without budgets it only records. An agent called by another one draws
    on the outer call's budgets, too.

    Args:
        ledger: stores accounts; in memory by default.
        budgets: of all calls through this layer.
        more_budgets: a template's own, in addition to those, never instead. Where both have a
            budget of one account, the smaller counts.
        spending: the spending policy.
        bus: receives `budget.warning` events.
        on_charge: called with charges to an account of the call: `RuntimeMetrics.on_charge`.

    Its `process` raises BudgetExceeded, BudgetUnavailable and PriceUnknown, each before a model
    call is sent; spending is written also when the call fails or is cancelled.
    """

    name = "cost"

    def __init__(
        self,
        ledger: Ledger | None = None,
        budgets: Sequence[Budget] = (),
        spending: SpendingPolicy | None = None,
        *,
        more_budgets: Sequence[Budget] = (),
        bus: EventBus | None = None,
        on_charge: Callable[[Account, Charge], None] | None = None,
    ) -> None:
        self.ledger = ledger or MemoryLedger()
        self.budgets = (*budgets, *more_budgets)
        self._sources = (tuple(budgets), tuple(more_budgets))
        self.spending = spending or SpendingPolicy()
        self._bus = bus
        self._on_charge = on_charge
        self._run_limits = run_limits(self.budgets)
        self._needs_accounts = any(budget.scope != "run" for budget in self.budgets)
        self._by_session = any(budget.scope == "session" for budget in self.budgets)
        self._accounts_cache: dict[Caller, _CallerAccounts] = {}
        self._warn_at: dict[tuple[str, str], tuple[float, ...]] = {
            (b.scope, b.per): b.warn_at for b in self.budgets
        }

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call with a budget of its own."""
        caller = caller_of(context)
        call_budget = self._build_call_budget(
            context, caller, self._cached_accounts(caller) if self._needs_accounts else NO_ACCOUNTS
        )
        try:
            return await next_call(context.with_call_budget(call_budget))
        finally:
            await call_budget.close()

    def _cached_accounts(self, caller: Caller) -> _CallerAccounts:
        now = time.time()
        caller = caller._replace(session=caller.session if self._by_session else None, key=None)
        caller_accounts = self._accounts_cache.get(caller)
        if caller_accounts is None or caller_accounts.expires_at <= now:  # a period has ended
            if len(self._accounts_cache) >= MAX_CACHED_CALLERS:
                self._accounts_cache.clear()
            accounts = merge_accounts(
                [accounts_of(budgets, caller, now) for budgets in self._sources]
            )
            expires_at = min(
                (a.ends_at for a in accounts if a.ends_at is not None), default=float("inf")
            )
            watched_accounts = {
                a.key: (a, self._warn_at.get(_scope_and_period(a.key), ())) for a in accounts
            }
            caller_accounts = self._accounts_cache[caller] = _CallerAccounts(
                accounts, expires_at, watched_accounts
            )
        return caller_accounts

    def _build_call_budget(
        self, context: AgentContext, caller: Caller, caller_accounts: _CallerAccounts
    ) -> CallBudget:
        parent_run = current_run.get()
        parent = None if parent_run is None else parent_run.call_budget
        if parent is not None and parent.ledger is not self.ledger and parent.accounts:
            raise ConfigurationError(
                "an agent and the agents that it calls keep their budgets in one ledger"
            )
        return CallBudget(
            self.ledger,
            (*caller_accounts.accounts, *context.accounts),
            SpendLabels(caller.tenant, caller.user, caller.template, ""),
            self.spending,
            run_limits=self._run_limits,
            parent=parent,
            on_charge=partial(self._handle_charges, caller_accounts.watched_accounts),
        )

    def _handle_charges(
        self, watched_accounts: Mapping[str, WatchedAccount], charges: tuple[Charge, ...]
    ) -> None:
        for charge in charges:
            if charge.key not in watched_accounts:
                continue
            account, shares = watched_accounts[charge.key]
            if self._on_charge is not None:
                self._on_charge(account, charge)
            for share in shares:
                pairs = (
                    (account.limit_micro_usd, charge.spent.micro_usd, charge.amount.micro_usd),
                    (account.limit_tokens, charge.spent.tokens, charge.amount.tokens),
                )
                if any(
                    limit is not None and spent - added < share * limit <= spent
                    for limit, spent, added in pairs
                ):
                    self._publish_warning(account, charge, share)

    def _publish_warning(self, account: Account, charge: Charge, share: float) -> None:
        data = {
            "account": account.key,
            "share": share,
            "spent_usd": charge.spent.micro_usd / MICROS_PER_USD,
            "limit_usd": None
            if account.limit_micro_usd is None
            else account.limit_micro_usd / MICROS_PER_USD,
            "spent_tokens": charge.spent.tokens,
            "limit_tokens": account.limit_tokens,
        }
        LOG.warning("the budget %s is used to %.0f %%", account.key, share * 100)
        if self._bus is not None:
            self._bus.publish(Event("budget.warning", data))


def _scope_and_period(key: str) -> tuple[str, str]:
    scope, bucket = key.split("/")
    return scope.partition("=")[0], bucket.partition("=")[0]
