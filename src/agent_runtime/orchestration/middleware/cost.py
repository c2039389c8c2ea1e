"""What a call may spend, and the record of what it spent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent_runtime.auth.caller_names import Caller, caller_of
from agent_runtime.budgets.budget import Budget, accounts_of, run_limits, united
from agent_runtime.budgets.call_budget import Purse
from agent_runtime.budgets.ledger.ledger import MICRO, Account, Charge, Ledger, SpendLabels
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.budgets.spending_policy import Spending
from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.orchestration.middleware.base import Middleware
from agent_runtime.run.state import current_run

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext, AgentResult, Handler

LOG = logging.getLogger("agent_runtime.budgets")
MAX_REMEMBERED = 10_000


Watched: TypeAlias = tuple[Account, tuple[float, ...]]


class _Known(NamedTuple):
    """A caller's accounts, when they change, and each one's share for warnings."""

    accounts: tuple[Account, ...]
    until: float
    watched: Mapping[str, Watched]


NO_ACCOUNTS = _Known((), float("inf"), {})


class CostTrackingMiddleware(Middleware):
    """Reserves a call's model calls on the budgets it draws on, and records what it spent.

    Every model call reserves its worst case before it is sent, on all budgets in one step, and
    settles what it cost. Without budgets it only records. An agent that another one calls draws on
    the outer one's budgets too.

    Args:
        ledger: where accounts are kept; in memory by default.
        budgets: of all calls through this layer.
        more_budgets: beside those, never instead of one: a template's own. Where both have a budget
            of one account, the smaller counts.
        spending: how to spend; see Spending.
        bus: where `budget.warning` events go.
        on_charge: told what was charged to an account of the call: `RuntimeMetrics.on_charge`.

    Its `process` raises BudgetExceeded, BudgetUnavailable and PriceUnknown, each before a model
    call is sent; what was spent is written also when the call fails or is cancelled.
    """

    name = "cost"

    def __init__(
        self,
        ledger: Ledger | None = None,
        budgets: Sequence[Budget] = (),
        spending: Spending | None = None,
        *,
        more_budgets: Sequence[Budget] = (),
        bus: EventBus | None = None,
        on_charge: Callable[[Account, Charge], None] | None = None,
    ) -> None:
        self.ledger = ledger or MemoryLedger()
        self.budgets = (*budgets, *more_budgets)
        self._sources = (tuple(budgets), tuple(more_budgets))
        self.spending = spending or Spending()
        self._bus = bus
        self._on_charge = on_charge
        self._run_limits = run_limits(self.budgets)
        self._needs_accounts = any(budget.scope != "run" for budget in self.budgets)
        self._by_session = any(budget.scope == "session" for budget in self.budgets)
        self._known: dict[Caller, _Known] = {}
        self._warn_at: dict[tuple[str, str], tuple[float, ...]] = {
            (b.scope, b.per): b.warn_at for b in self.budgets
        }

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call with a purse of its own."""
        caller = caller_of(context)
        purse = self._purse(
            context, caller, self._accounts_of(caller) if self._needs_accounts else NO_ACCOUNTS
        )
        try:
            return await next_call(context.with_purse(purse))
        finally:
            await purse.close()

    def _accounts_of(self, caller: Caller) -> _Known:
        now = time.time()
        caller = caller._replace(session=caller.session if self._by_session else None, key=None)
        known = self._known.get(caller)
        if known is None or known.until <= now:  # a period has ended
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            accounts = united([accounts_of(budgets, caller, now) for budgets in self._sources])
            until = min(
                (a.ends_at for a in accounts if a.ends_at is not None), default=float("inf")
            )
            watched = {a.key: (a, self._warn_at.get(_kind(a.key), ())) for a in accounts}
            known = self._known[caller] = _Known(accounts, until, watched)
        return known

    def _purse(self, context: AgentContext, caller: Caller, known: _Known) -> Purse:
        around = current_run.get()
        parent = None if around is None else around.purse
        if parent is not None and parent.ledger is not self.ledger and parent.accounts:
            raise ConfigurationError(
                "an agent and the agents that it calls keep their budgets in one ledger"
            )
        return Purse(
            self.ledger,
            (*known.accounts, *context.accounts),
            SpendLabels(caller.tenant, caller.user, caller.template, ""),
            self.spending,
            run_limits=self._run_limits,
            parent=parent,
            on_charge=partial(self._charged, known.watched),
        )

    def _charged(self, watched: Mapping[str, Watched], charges: tuple[Charge, ...]) -> None:
        for charge in charges:
            if charge.key not in watched:
                continue
            account, shares = watched[charge.key]
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
                    self._tell(account, charge, share)

    def _tell(self, account: Account, charge: Charge, share: float) -> None:
        data = {
            "account": account.key,
            "share": share,
            "spent_usd": charge.spent.micro_usd / MICRO,
            "limit_usd": None
            if account.limit_micro_usd is None
            else account.limit_micro_usd / MICRO,
            "spent_tokens": charge.spent.tokens,
            "limit_tokens": account.limit_tokens,
        }
        LOG.warning("the budget %s is used to %.0f %%", account.key, share * 100)
        if self._bus is not None:
            self._bus.publish(Event("budget.warning", data))


def _kind(key: str) -> tuple[str, str]:
    scope, bucket = key.split("/")
    return scope.partition("=")[0], bucket.partition("=")[0]
