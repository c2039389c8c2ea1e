"""What a call may spend, and the record of what it spent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.models.run import current_run
from agent_runtime.monitoring.budgets import Budget, Caller, accounts_of, run_limits
from agent_runtime.monitoring.ledger import MICRO, Account, Charge, Ledger, SpendLabels
from agent_runtime.monitoring.memory_ledger import MemoryLedger
from agent_runtime.monitoring.purse import Purse
from agent_runtime.orchestration.middleware.base import Middleware

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext, AgentResult, Handler

LOG = logging.getLogger("agent_runtime.budgets")


@dataclass(frozen=True, slots=True)
class Spending:
    """How a call with budgets spends.

    Args:
        on_exhausted: `stop` raises BudgetExceeded; `pause` ends a call that has a session as interrupted: it goes on
            when it is resumed after the budget was raised.
        unknown_price: `refuse` a model whose price nobody knows when the call has a budget in USD, or `allow` it.
        max_output_tokens: reserved for, and sent as the limit of, a model call that does not say its own.
        min_output_tokens: a model call that cannot afford so much output is refused.
        slab_calls: how many model calls' worth is reserved in one trip.
        hold_ttl_s: after how long a hold that nobody ended is charged at its estimate: longer than a model call takes.
        input_bound: the most tokens that a request's messages and arguments can have; by default a third of its bytes.

    Raises ConfigurationError for a value that cannot be one.
    """

    on_exhausted: Literal["stop", "pause"] = "stop"
    unknown_price: Literal["refuse", "allow"] = "refuse"
    max_output_tokens: int = 8192
    min_output_tokens: int = 64
    slab_calls: int = 1
    hold_ttl_s: float = 900.0
    input_bound: Callable[[list[Any], Any], int] | None = None

    def __post_init__(self) -> None:
        if self.on_exhausted not in ("stop", "pause") or self.unknown_price not in ("refuse", "allow"):
            raise ConfigurationError("on_exhausted is stop or pause, unknown_price is refuse or allow")
        for name in ("max_output_tokens", "min_output_tokens", "slab_calls", "hold_ttl_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} is above 0, not {getattr(self, name)}")


class CostTrackingMiddleware(Middleware):
    """Reserves a call's model calls on the budgets it draws on, and records what it spent.

    Every model call reserves its worst case before it is sent, on all budgets in one step, and settles what it cost.
    Without budgets it only records. An agent that another one calls draws on the outer one's budgets too.

    Args:
        ledger: where accounts are kept; in memory by default.
        budgets: of all calls through this layer.
        spending: how to spend; see Spending.
        bus: where `budget.warning` events go.

    Its `process` raises BudgetExceeded, BudgetUnavailable and PriceUnknown, each before a model call is sent; what was
    spent is written also when the call fails or is cancelled.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        budgets: Sequence[Budget] = (),
        spending: Spending | None = None,
        *,
        bus: EventBus | None = None,
    ) -> None:
        self.ledger, self.budgets = ledger or MemoryLedger(), tuple(budgets)
        self.spending, self._bus = spending or Spending(), bus
        self._run_limits = run_limits(self.budgets)
        self._needs_accounts = any(budget.scope != "run" for budget in self.budgets)
        self._warn_at: dict[tuple[str, str], tuple[float, ...]] = {(b.scope, b.per): b.warn_at for b in self.budgets}

    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        """Await the call with a purse of its own."""
        caller = caller_of(context)
        accounts = accounts_of(self.budgets, caller, time.time()) if self._needs_accounts else ()
        purse = self._purse(context, caller, accounts)
        try:
            return await next_call(context.with_purse(purse))
        finally:
            await purse.close()

    def _purse(self, context: AgentContext, caller: Caller, accounts: tuple[Account, ...]) -> Purse:
        around, spending = current_run.get(), self.spending
        parent = None if around is None else around.purse
        if parent is not None and parent.ledger is not self.ledger and parent.accounts:
            raise ConfigurationError("an agent and the agents that it calls keep their budgets in one ledger")
        return Purse(
            self.ledger,
            accounts,
            SpendLabels(caller.tenant, caller.user, caller.template, ""),
            context.run_id,
            run_limits=self._run_limits,
            parent=parent,
            ttl_s=spending.hold_ttl_s,
            slab_calls=spending.slab_calls,
            pauses=spending.on_exhausted == "pause",
            allow_unknown_price=spending.unknown_price == "allow",
            max_output=spending.max_output_tokens,
            min_output=spending.min_output_tokens,
            input_bound=spending.input_bound,
            on_charge=lambda charges: self._warn(accounts, charges),
        )

    def _warn(self, accounts: tuple[Account, ...], charges: tuple[Charge, ...]) -> None:
        limits = {account.key: account for account in accounts}
        for charge in charges:
            if (account := limits.get(charge.key)) is None:
                continue
            for share in self._warn_at.get(_kind(charge.key), ()):
                pairs = (
                    (account.limit_micro_usd, charge.spent.micro_usd, charge.amount.micro_usd),
                    (account.limit_tokens, charge.spent.tokens, charge.amount.tokens),
                )
                if any(limit is not None and spent - added < share * limit <= spent for limit, spent, added in pairs):
                    self._tell(account, charge, share)

    def _tell(self, account: Account, charge: Charge, share: float) -> None:
        data = {
            "account": account.key,
            "share": share,
            "spent_usd": charge.spent.micro_usd / MICRO,
            "limit_usd": None if account.limit_micro_usd is None else account.limit_micro_usd / MICRO,
            "spent_tokens": charge.spent.tokens,
            "limit_tokens": account.limit_tokens,
        }
        LOG.warning("the budget %s is used to %.0f %%", account.key, share * 100)
        if self._bus is not None:
            self._bus.publish(Event("budget.warning", data))


def caller_of(context: AgentContext) -> Caller:
    """The names that budgets and reports know a call by."""
    principal = context.principal
    tenant, user = ("default", "") if principal is None else (principal.tenant, principal.id)
    return Caller(tenant, user, context.agent_name, context.session_id)


def _kind(key: str) -> tuple[str, str]:
    scope, bucket = key.split("/")
    return scope.partition("=")[0], bucket.partition("=")[0]
