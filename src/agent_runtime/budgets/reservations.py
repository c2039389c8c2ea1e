"""What a call holds of its budgets while its model calls run."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_runtime.budgets.ledger.ledger import NOTHING, Amount, Spend


@dataclass(slots=True)
class Hold:
    """A reservation on the ledger, from which one or several model calls draw."""

    operation_id: str
    granted: Amount
    used: Amount = NOTHING
    drawn: Amount = NOTHING  # by calls that have not ended
    calls: int = 0
    keyed: bool = False
    """It is of one call with a name, and for no other."""
    spends: list[Spend] = field(default_factory=list)

    def has(self, wanted: Amount) -> bool:
        """Whether so much of it is left."""
        left = minus(self.granted, plus(self.used, self.drawn))
        return left.micro_usd >= wanted.micro_usd and left.tokens >= wanted.tokens


@dataclass(slots=True)
class RunBudget:
    """The budget of one run, which is of one process: it needs no ledger."""

    limit_micro_usd: int | None
    limit_tokens: int | None
    spent: Amount = NOTHING
    held: Amount = NOTHING

    def grant(self, least: Amount, wanted: Amount) -> Amount | None:
        """What of `wanted` is left, or None when that is less than `least`."""
        usd, tokens = wanted
        if self.limit_micro_usd is not None:
            usd = min(usd, self.limit_micro_usd - self.spent.micro_usd - self.held.micro_usd)
        if self.limit_tokens is not None:
            tokens = min(tokens, self.limit_tokens - self.spent.tokens - self.held.tokens)
        return None if usd < least.micro_usd or tokens < least.tokens else Amount(usd, tokens)


@dataclass(slots=True)
class Draw:
    """What one model call was granted; `Purse.end` says what it took."""

    granted: Amount
    hold: Hold | None
    ended: bool = False


def plus(a: Amount, b: Amount) -> Amount:
    """The sum."""
    return Amount(a.micro_usd + b.micro_usd, a.tokens + b.tokens)


def minus(a: Amount, b: Amount) -> Amount:
    """The difference."""
    return Amount(a.micro_usd - b.micro_usd, a.tokens - b.tokens)
