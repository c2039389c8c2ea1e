"""Budgets, and the accounts that a call draws on because of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from agent_runtime.errors import ConfigurationError
from agent_runtime.monitoring.ledger import MICRO, Account

Scope: TypeAlias = Literal["run", "session", "user", "tenant", "template", "global"]
Period: TypeAlias = Literal["hour", "day", "month", "total"]
SCOPES: tuple[Scope, ...] = ("run", "session", "user", "tenant", "template", "global")
PERIODS: tuple[Period, ...] = ("hour", "day", "month", "total")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one scope may spend in one period, in USD, in tokens (input plus output), or both.

    Args:
        scope: `run` (one call with everything inside it), `session`, `user`, `tenant`, `template` or `global`. Each
            user, tenant, ... has an account of its own.
        usd: above 0 and finite; exact to a millionth.
        tokens: at least 1.
        per: `hour`, `day` or `month` (UTC), or `total`; a run has no period.
        only: the one user, tenant, ... that this budget is for; it then goes before one for all.
        warn_at: shares of the budget at which a `budget.warning` event is published.

    Raises ConfigurationError for a budget that cannot be one.
    """

    scope: Scope
    usd: Decimal | float | str | None = None
    tokens: int | None = None
    per: Period = "total"
    only: str | None = None
    warn_at: tuple[float, ...] = (0.8,)

    def __post_init__(self) -> None:
        if self.scope not in SCOPES or self.per not in PERIODS:
            raise ConfigurationError(f"a budget is for one of {SCOPES} per one of {PERIODS}")
        if self.usd is None and self.tokens is None:
            raise ConfigurationError(f"the budget of a {self.scope} says neither usd nor tokens")
        if self.usd is not None:
            _checked_usd(self.usd)
        if self.tokens is not None and (isinstance(self.tokens, bool) or self.tokens < 1):
            raise ConfigurationError(f"a budget in tokens is at least 1, not {self.tokens}")
        if not all(0 < share <= 1 for share in self.warn_at):
            raise ConfigurationError(f"warn_at has shares above 0 and up to 1, not {self.warn_at}")
        if self.scope == "run" and (self.per != "total" or self.only is not None):
            raise ConfigurationError("the budget of a run has no period, and is for every run")

    @property
    def micro_usd(self) -> int | None:
        """The limit in whole micro-USD."""
        return None if self.usd is None else int(_checked_usd(self.usd) * MICRO)


def _checked_usd(value: Decimal | float | str) -> Decimal:
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        usd = Decimal("nan")
    if isinstance(value, bool) or not usd.is_finite() or not Decimal(1) / MICRO <= usd <= 1_000_000_000:
        raise ConfigurationError(f"a budget in USD is a number of at least 0.000001, not {value!r}")
    return usd


class Caller(NamedTuple):
    """Who draws on budgets: the names that accounts and reports have."""

    tenant: str
    user: str
    template: str
    session: str | None


def accounts_of(budgets: Iterable[Budget], caller: Caller, now_s: float) -> tuple[Account, ...]:
    """The accounts that a call draws on; of two budgets of one account the smaller counts. Runs are not in it."""
    found: dict[str, Account] = {}
    chosen = [(b, name) for b in budgets if b.scope != "run" and (name := _name(b.scope, caller)) is not None]
    special = {(b.scope, b.per) for b, name in chosen if b.only == name}
    for budget, name in chosen:
        if budget.only not in (None, name) or (budget.only is None and (budget.scope, budget.per) in special):
            continue
        bucket, ends_at = _bucket(budget.per, now_s)
        key = f"{budget.scope}={name}/{bucket}" if name else f"{budget.scope}/{bucket}"
        old = found.get(key, Account(key, None, None, ends_at))
        usd, tokens = _least(old.limit_micro_usd, budget.micro_usd), _least(old.limit_tokens, budget.tokens)
        found[key] = Account(key, usd, tokens, ends_at)
    return tuple(found.values())


def run_limits(budgets: Iterable[Budget]) -> tuple[int | None, int | None]:
    """What one run may spend: micro-USD and tokens."""
    usd = tokens = None
    for budget in budgets:
        if budget.scope == "run":
            usd, tokens = _least(usd, budget.micro_usd), _least(tokens, budget.tokens)
    return usd, tokens


def _least(a: int | None, b: int | None) -> int | None:
    return min((each for each in (a, b) if each is not None), default=None)


def _name(scope: Scope, caller: Caller) -> str | None:
    tenant = quote(caller.tenant, safe="")
    if scope == "session":
        return None if caller.session is None else f"{tenant}:{quote(caller.session, safe='')}"
    names = {"tenant": tenant, "user": f"{tenant}:{quote(caller.user, safe='')}", "template": caller.template}
    return names.get(scope, "")


def _bucket(per: Period, now_s: float) -> tuple[str, float | None]:
    """The period that `now_s` is in, and when it ends, in seconds since the epoch."""
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
