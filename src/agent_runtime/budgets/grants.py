"""Define the reservations of a call on its budgets."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_runtime.budgets.ledger.ledger import ZERO_AMOUNT, Amount, Spend


@dataclass(slots=True)
class Reservation:
    """A reservation on the ledger, from which one or several model calls draw."""

    operation_id: str
    granted: Amount
    used: Amount = ZERO_AMOUNT
    in_use: Amount = ZERO_AMOUNT  # by calls that have not ended
    open_calls: int = 0
    idempotent: bool = False
    """It is of one call with a name, and for no other."""
    spends: list[Spend] = field(default_factory=list)

    def has_remaining(self, requested: Amount) -> bool:
        """Return whether `requested` is still available."""
        remaining = subtract_amounts(self.granted, add_amounts(self.used, self.in_use))
        return remaining.micro_usd >= requested.micro_usd and remaining.tokens >= requested.tokens


@dataclass(slots=True)
class RunBudget:
    """The budget of one run, which is of one process: it needs no ledger."""

    limit_micro_usd: int | None
    limit_tokens: int | None
    spent: Amount = ZERO_AMOUNT
    reserved: Amount = ZERO_AMOUNT

    def grant(self, minimum: Amount, requested: Amount) -> Amount | None:
        """Return the available part of `requested`, or None when that is less than `minimum`."""
        usd, tokens = requested
        if self.limit_micro_usd is not None:
            usd = min(usd, self.limit_micro_usd - self.spent.micro_usd - self.reserved.micro_usd)
        if self.limit_tokens is not None:
            tokens = min(tokens, self.limit_tokens - self.spent.tokens - self.reserved.tokens)
        return None if usd < minimum.micro_usd or tokens < minimum.tokens else Amount(usd, tokens)


@dataclass(slots=True)
class Grant:
    """Describe the grant of one model call; `CallBudget.settle` ends it."""

    granted: Amount
    reservation: Reservation | None
    settled: bool = False


def add_amounts(a: Amount, b: Amount) -> Amount:
    """Return the sum."""
    return Amount(a.micro_usd + b.micro_usd, a.tokens + b.tokens)


def subtract_amounts(a: Amount, b: Amount) -> Amount:
    """Return the difference."""
    return Amount(a.micro_usd - b.micro_usd, a.tokens - b.tokens)
