"""The ledger's rules, once, over whatever keeps its pages; Redis has them as a script."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

from agent_runtime.budgets.ledger.ledger import (
    NOTHING,
    Account,
    Amount,
    Answer,
    Balance,
    Charge,
    Ending,
    Refusal,
    Reservation,
    Spend,
)

SWEEP = 100
"""How many abandoned holds one operation charges at most, on its way."""
FORGET_EVERY_S = 60.0


class Operation(NamedTuple):
    """What is remembered of an operation.

    It holds an amount, was settled, or was charged when its lease ended.
    """

    state: Literal["held", "settled", "expired"]
    amount: Amount
    accounts: tuple[str, ...]


class Pages(Protocol):
    """Storage of the rules: one operation at a time, stored whole or not at all."""

    def balance(self, key: str) -> Balance | None:
        """An account."""

    def put_balance(self, key: str, balance: Balance) -> None:
        """Keep an account."""

    def operation(self, operation_id: str) -> Operation | None:
        """An operation."""

    def put_operation(self, operation_id: str, operation: Operation, at: float) -> None:
        """Keep an operation until `at`.

        The end of its lease while it is held, of its memory afterwards.
        """

    def overdue(self, now: float, limit: int) -> list[str]:
        """Operations that are held and whose lease has ended."""

    def add_spends(self, hour: int, spends: Iterable[Spend]) -> None:
        """Add to the spending of an hour."""

    def forget(self, now: float) -> None:
        """Drop what is older than it has to be kept."""


class Book:
    """Reserves and settles on pages."""

    def __init__(self, pages: Pages, kept_s: float, clock: Callable[[], float] = time.time) -> None:
        self._pages = pages
        self._kept_s = kept_s
        self._clock = clock
        self._forget_at = 0.0

    def transact(self, endings: Iterable[Ending], reservation: Reservation | None) -> Answer:
        """First the endings, then the reservation."""
        now = self._clock()
        self.sweep(now)
        charges: list[Charge] = []
        for ending in endings:
            self._end(ending, now, charges)
        if reservation is None:
            return Answer(None, None, tuple(charges))
        granted, refusal = self._reserve(reservation, now)
        return Answer(granted, refusal, tuple(charges))

    def sweep(self, now: float | None = None) -> int:
        """Charge abandoned holds at their estimate: the provider may have billed them."""
        now = self._clock() if now is None else now
        if now >= self._forget_at:
            self._pages.forget(now)
            self._forget_at = now + FORGET_EVERY_S
        overdue = self._pages.overdue(now, SWEEP)
        for operation_id in overdue:
            held = self._pages.operation(operation_id)
            if held is not None and held.state == "held":
                self._charge(held, held.amount, held.amount, [])
                expired = held._replace(state="expired")
                self._pages.put_operation(operation_id, expired, now + self._kept_s)
        return len(overdue)

    def _reserve(self, asked: Reservation, now: float) -> tuple[Amount | None, Refusal | None]:
        if (known := self._pages.operation(asked.operation_id)) is not None:
            if known.state == "held":
                return known.amount, None  # the answer was lost: the same again
            if (
                known.state == "settled" and not asked.keyed
            ):  # it came after its own end: nothing is held for it
                return None, self._refusal(asked.accounts[0].key)
            if known.state == "settled" and known.amount != NOTHING:
                return asked.wanted, None
        # Its lease ended before it was asked for again: nothing was sent for it, or what was has
        # its name.
        expired = known if known is not None and known.state == "expired" else None
        usd, tokens = asked.wanted
        for account in asked.accounts:
            balance = self._pages.balance(account.key) or Balance()
            left_usd, left_tokens = balance.left(account)
            if expired is not None and account.key in expired.accounts:
                left_usd = None if left_usd is None else left_usd + expired.amount.micro_usd
                left_tokens = None if left_tokens is None else left_tokens + expired.amount.tokens
            usd = usd if left_usd is None else min(usd, left_usd)
            tokens = tokens if left_tokens is None else min(tokens, left_tokens)
            if usd < asked.least.micro_usd or tokens < asked.least.tokens:
                return None, self._refusal(account.key)
        if expired is not None:
            self._charge(
                expired, Amount(-expired.amount.micro_usd, -expired.amount.tokens), NOTHING, []
            )
        granted = Amount(usd, tokens)
        for account in asked.accounts:
            self._hold(account, granted)
        held = Operation("held", granted, tuple(account.key for account in asked.accounts))
        self._pages.put_operation(asked.operation_id, held, now + asked.ttl_s)
        return granted, None

    def _hold(self, account: Account, granted: Amount) -> None:
        balance = self._pages.balance(account.key) or Balance()
        balance.limit_micro_usd = account.limit_micro_usd
        balance.limit_tokens = account.limit_tokens
        balance.ends_at = account.ends_at
        balance.held_micro_usd += granted.micro_usd
        balance.held_tokens += granted.tokens
        self._pages.put_balance(account.key, balance)

    def _refusal(self, key: str) -> Refusal:
        b = self._pages.balance(key) or Balance()
        return Refusal(
            key, Amount(b.spent_micro_usd, b.spent_tokens), Amount(b.held_micro_usd, b.held_tokens)
        )

    def _end(self, ending: Ending, now: float, charges: list[Charge]) -> None:
        known = self._pages.operation(ending.operation_id)
        if known is not None and known.state == "settled":
            self._top_up(known, ending, now, charges)
            return
        if known is not None:
            released = known.amount if known.state == "held" else NOTHING
            charged_before = known.amount if known.state == "expired" else NOTHING
            added = Amount(
                ending.amount.micro_usd - charged_before.micro_usd,
                ending.amount.tokens - charged_before.tokens,
            )
            self._charge(known, added, released, charges)
        accounts = () if known is None else known.accounts
        settled = Operation("settled", ending.amount, accounts)
        self._pages.put_operation(ending.operation_id, settled, now + self._kept_s)
        if ending.spends:
            self._pages.add_spends(int(now // 3600), ending.spends)

    def _top_up(self, known: Operation, ending: Ending, now: float, charges: list[Charge]) -> None:
        """What was settled at an estimate and has cost more costs more.

        The same again changes nothing.
        """
        most = Amount(*map(max, ending.amount, known.amount))
        if most != known.amount:
            added = Amount(
                most.micro_usd - known.amount.micro_usd, most.tokens - known.amount.tokens
            )
            self._charge(known, added, NOTHING, charges)
            self._pages.put_operation(
                ending.operation_id, known._replace(amount=most), now + self._kept_s
            )

    def _charge(
        self, operation: Operation, added: Amount, released: Amount, charges: list[Charge]
    ) -> None:
        for key in operation.accounts:
            balance = self._pages.balance(key) or Balance()
            balance.spent_micro_usd += added.micro_usd
            balance.spent_tokens += added.tokens
            balance.held_micro_usd -= released.micro_usd
            balance.held_tokens -= released.tokens
            self._pages.put_balance(key, balance)
            charges.append(
                Charge(key, Amount(balance.spent_micro_usd, balance.spent_tokens), added)
            )
