"""Define budgets, and the accounts that a call draws on because of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal, TypeAlias

from agent_runtime.auth.caller_names import Caller, part_name
from agent_runtime.budgets.ledger.ledger import MICROS_PER_USD, Account
from agent_runtime.errors import ConfigurationError

Scope: TypeAlias = Literal["run", "session", "user", "tenant", "template", "global"]
Period: TypeAlias = Literal["hour", "day", "month", "total"]
SCOPES: tuple[Scope, ...] = ("run", "session", "user", "tenant", "template", "global")
PERIODS: tuple[Period, ...] = ("hour", "day", "month", "total")

MAX_TOKENS = 10**15
"""A store counts in 64 bits."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limit the spending of one scope in one period, in USD, tokens (input plus output), or both.

    Names are those of the application, unquoted. Of the budgets of one scope and period the one
    with the most names applies: a user's before that of the tenant's users, and that before one for
    all.

    Args:
        scope: `run` (one call with everything inside it), `session`, `user`, `tenant`, `template`
            or `global`. Each user, tenant, ... has an account of its own.
        usd: above 0 and finite; exact to a millionth.
        tokens: at least 1.
        per: `hour`, `day` or `month` (UTC), or `total`; a run has no period.
        only: the one template, or the one tenant, that this budget is for.
        tenant: the one tenant whose calls it is for; for the scopes `tenant`, `user` and `session`.
        user: the one user of `tenant` that it is for; for the scope `user`.
        warn_at: shares of the budget at which a `budget.warning` event is published.

    Raises ConfigurationError for an invalid budget.
    """

    scope: Scope
    usd: Decimal | float | str | None = None
    tokens: int | None = None
    per: Period = "total"
    only: str | None = None
    warn_at: tuple[float, ...] = (0.8,)
    tenant: str | None = None
    user: str | None = None

    def __post_init__(self) -> None:
        if self.scope not in SCOPES or self.per not in PERIODS:
            raise ConfigurationError(f"a budget is for one of {SCOPES} per one of {PERIODS}")
        if self.usd is None and self.tokens is None:
            raise ConfigurationError(f"the budget of a {self.scope} says neither usd nor tokens")
        if self.usd is not None:
            _validate_usd(self.usd)
        if self.tokens is not None and (
            isinstance(self.tokens, bool) or not 1 <= self.tokens <= MAX_TOKENS
        ):
            raise ConfigurationError(
                f"a budget in tokens is at least 1 and at most {MAX_TOKENS}, not {self.tokens}"
            )
        if not all(0 < share <= 1 for share in self.warn_at):
            raise ConfigurationError(f"warn_at has shares above 0 and up to 1, not {self.warn_at}")
        if self.scope == "run" and self.per != "total":
            raise ConfigurationError("the budget of a run has no period")
        if (fault := fault_of_names(self.scope, self.only, self.tenant, self.user)) is not None:
            raise ConfigurationError(fault)

    @property
    def micro_usd(self) -> int | None:
        """Return the limit in whole micro-USD."""
        return None if self.usd is None else int(_validate_usd(self.usd) * MICROS_PER_USD)

    @property
    def names(self) -> int:
        """Return how many names the budget has.

        The most specific one of a scope and period applies.
        """
        return sum(name is not None for name in (self.only, self.tenant, self.user))

    def is_for(self, caller: Caller) -> bool:
        """Tell whether the calls of `caller` draw on this budget."""
        scope_name = caller.tenant if self.scope == "tenant" else caller.template
        return (
            self.only in (None, scope_name)
            and self.tenant in (None, caller.tenant)
            and self.user in (None, caller.user)
        )


def fault_of_names(
    scope: Scope, only: str | None, tenant: str | None, user: str | None
) -> str | None:
    """Return why no call could ever match a budget with these names, or None.

    A budget without a match would limit nothing, silently.
    """
    if any(name is not None and not name.strip() for name in (only, tenant, user)):
        return "a budget's name must not be blank"
    if only is not None and scope == "user":
        return (
            "the budget of one user says `tenant` and `user`, not `only`: tenant: ..., "
            f"user: {only}"
        )
    if only is not None and scope not in ("tenant", "template"):
        return f"`only` names a tenant or a template; the budget of a {scope} cannot have it"
    if only is not None and tenant is not None:
        return "`only` of a tenant's budget is its `tenant`: say one of them"
    if tenant is not None and scope not in ("tenant", "user", "session"):
        return f"the budget of a {scope} is for all tenants: leave `tenant` out"
    if user is not None and scope != "user":
        return f"the budget of a {scope} is for all users: leave `user` out"
    if user is not None and tenant is None:
        return (
            f"a user is one of a tenant: say `tenant` beside `user: {user}` ('default' "
            "without tenants)"
        )
    return None


def _validate_usd(value: Decimal | float | str) -> Decimal:
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        usd = Decimal("nan")
    if (
        isinstance(value, bool)
        or not usd.is_finite()
        or not Decimal(1) / MICROS_PER_USD <= usd <= 1_000_000_000
    ):
        raise ConfigurationError(f"a budget in USD is a number of at least 0.000001, not {value!r}")
    return usd


def accounts_of(budgets: Iterable[Budget], caller: Caller, now_s: float) -> tuple[Account, ...]:
    """Return the accounts that a call draws on, without those of runs.

    Of two budgets of one account the smaller applies.
    """
    accounts: dict[str, Account] = {}
    matching_budgets = [
        budget for budget in budgets if budget.scope != "run" and budget.is_for(caller)
    ]
    max_name_counts: dict[tuple[Scope, Period], int] = {}
    for budget in matching_budgets:
        scope_and_period = budget.scope, budget.per
        max_name_counts[scope_and_period] = max(
            budget.names, max_name_counts.get(scope_and_period, 0)
        )
    for budget in matching_budgets:
        if budget.scope == "run" or budget.names < max_name_counts[budget.scope, budget.per]:
            continue
        name = part_name(budget.scope, caller)
        if name is None:  # a call without a session
            continue
        bucket, ends_at = _current_period(budget.per, now_s)
        key = f"{budget.scope}={name}/{bucket}" if name else f"{budget.scope}/{bucket}"
        old = accounts.get(key, Account(key, None, None, ends_at))
        usd = _lower_limit(old.limit_micro_usd, budget.micro_usd)
        tokens = _lower_limit(old.limit_tokens, budget.tokens)
        accounts[key] = Account(key, usd, tokens, ends_at)
    return tuple(accounts.values())


def merge_accounts(sources: Iterable[tuple[Account, ...]]) -> tuple[Account, ...]:
    """Return the accounts of several sources of budgets, each with its smallest limits."""
    accounts: dict[str, Account] = {}
    for source_account in (account for source in sources for account in source):
        old = accounts.get(source_account.key, source_account)
        usd = _lower_limit(old.limit_micro_usd, source_account.limit_micro_usd)
        accounts[source_account.key] = source_account._replace(
            limit_micro_usd=usd,
            limit_tokens=_lower_limit(old.limit_tokens, source_account.limit_tokens),
        )
    return tuple(accounts.values())


def run_limits(budgets: Iterable[Budget]) -> tuple[int | None, int | None]:
    """Return the limits of one run: micro-USD and tokens."""
    usd = tokens = None
    for budget in budgets:
        if budget.scope == "run":
            usd = _lower_limit(usd, budget.micro_usd)
            tokens = _lower_limit(tokens, budget.tokens)
    return usd, tokens


def _lower_limit(a: int | None, b: int | None) -> int | None:
    return min((limit for limit in (a, b) if limit is not None), default=None)


def _current_period(per: Period, now_s: float) -> tuple[str, float | None]:
    """Return the period that contains `now_s`, and its end in Unix seconds."""
    if per == "total":
        return "total", None
    now = datetime.fromtimestamp(now_s, UTC).replace(minute=0, second=0, microsecond=0)
    if per == "hour":
        return f"hour={now:%Y-%m-%dT%H}", (now + timedelta(hours=1)).timestamp()
    day = now.replace(hour=0)
    if per == "day":
        return f"day={day:%Y-%m-%d}", (day + timedelta(days=1)).timestamp()
    first = day.replace(day=1)
    return f"month={first:%Y-%m}", (first + timedelta(days=32)).replace(day=1).timestamp()
