"""Implement the ledger's rules once, over any LedgerStore; Redis has them as a script."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from agent_runtime.budgets.ledger.ledger import (
    OPERATION_RETENTION_S,
    ZERO_AMOUNT,
    Account,
    Amount,
    Answer,
    Balance,
    Charge,
    Refusal,
    ReservationRequest,
    Settlement,
    Spend,
)

MAX_EXPIRED_HOLDS = 100
"""Most expired reservations that one operation charges."""
CLEANUP_INTERVAL_S = 60.0


class StoredOperation(NamedTuple):
    """Describe a stored operation: reserved, settled, or charged at the end of its lease."""

    state: Literal["held", "settled", "expired"]
    amount: Amount
    accounts: tuple[str, ...]


class LedgerStore(Protocol):
    """Storage of the rules: one operation at a time, stored whole or not at all."""

    def get_balance(self, key: str) -> Balance | None:
        """Return an account, or None."""

    def put_balance(self, key: str, balance: Balance) -> None:
        """Store an account."""

    def get_operation(self, operation_id: str) -> StoredOperation | None:
        """Return an operation, or None."""

    def put_operation(
        self, operation_id: str, operation: StoredOperation, expires_at: float
    ) -> None:
        """Store an operation until `expires_at`.

        That is the end of its lease while it is held, and of its retention afterwards.
        """

    def expired_holds(self, now: float, limit: int) -> list[str]:
        """Return the ids of held operations that expired at `now`, at most `limit`."""

    def add_spends(self, hour: int, spends: Iterable[Spend]) -> None:
        """Add to the spending of an hour, counted from the epoch, by labels."""

    def delete_expired(self, now: float) -> None:
        """Delete ended operations that expired at `now`, and old accounts and spending."""


class LedgerRules:
    """Reserve, settle and expire, in the records of a store.

    Each method is one operation: run it in one transaction of the store.

    Args:
        store: reads and writes the records.
        retention_s: how long an ended operation is remembered.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: LedgerStore,
        retention_s: float = OPERATION_RETENTION_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._retention_s = retention_s
        self._clock = clock
        self._next_cleanup_at = 0.0

    def transact(
        self, settlements: Sequence[Settlement], reservation: ReservationRequest | None
    ) -> Answer:
        """Apply the settlements, then the reservation."""
        now = self._clock()
        self.expire_holds(now)
        charges: list[Charge] = []
        for settlement in settlements:
            self._settle(settlement, now, charges)
        if reservation is None:
            return Answer(None, None, tuple(charges))
        granted, refusal = self._reserve(reservation, now)
        return Answer(granted, refusal, tuple(charges))

    def expire_holds(self, now: float | None = None) -> int:
        """Charge abandoned holds at their estimate: the provider may have billed them."""
        now = self._clock() if now is None else now
        if now >= self._next_cleanup_at:
            self._store.delete_expired(now)
            self._next_cleanup_at = now + CLEANUP_INTERVAL_S
        expired_ids = self._store.expired_holds(now, MAX_EXPIRED_HOLDS)
        for operation_id in expired_ids:
            operation = self._store.get_operation(operation_id)
            if operation is not None and operation.state == "held":
                self._charge(operation, operation.amount, operation.amount, [])
                expired = operation._replace(state="expired")
                self._store.put_operation(operation_id, expired, now + self._retention_s)
        return len(expired_ids)

    def _reserve(
        self, request: ReservationRequest, now: float
    ) -> tuple[Amount | None, Refusal | None]:
        if (existing := self._store.get_operation(request.operation_id)) is not None:
            if existing.state == "held":
                return existing.amount, None  # the reply was lost: return the same grant
            if (
                existing.state == "settled" and not request.idempotent
            ):  # it came after its own end: nothing is held for it
                return None, self._refusal(request.accounts[0].key)
            if existing.state == "settled" and existing.amount != ZERO_AMOUNT:
                return request.requested, None
        # Its lease ended before this repetition: no request was sent for it, or the one that was
        # has its id.
        expired = existing if existing is not None and existing.state == "expired" else None
        usd, tokens = request.requested
        for account in request.accounts:
            balance = self._store.get_balance(account.key) or Balance()
            remaining_usd, remaining_tokens = balance.remaining(account)
            if expired is not None and account.key in expired.accounts:
                remaining_usd = (
                    None if remaining_usd is None else remaining_usd + expired.amount.micro_usd
                )
                remaining_tokens = (
                    None if remaining_tokens is None else remaining_tokens + expired.amount.tokens
                )
            usd = usd if remaining_usd is None else min(usd, remaining_usd)
            tokens = tokens if remaining_tokens is None else min(tokens, remaining_tokens)
            if usd < request.minimum.micro_usd or tokens < request.minimum.tokens:
                return None, self._refusal(account.key)
        if expired is not None:
            self._charge(
                expired, Amount(-expired.amount.micro_usd, -expired.amount.tokens), ZERO_AMOUNT, []
            )
        granted = Amount(usd, tokens)
        for account in request.accounts:
            self._reserve_on_account(account, granted)
        reservation = StoredOperation(
            "held", granted, tuple(account.key for account in request.accounts)
        )
        self._store.put_operation(request.operation_id, reservation, now + request.ttl_s)
        return granted, None

    def _reserve_on_account(self, account: Account, granted: Amount) -> None:
        balance = self._store.get_balance(account.key) or Balance()
        balance.limit_micro_usd = account.limit_micro_usd
        balance.limit_tokens = account.limit_tokens
        balance.ends_at = account.ends_at
        balance.held_micro_usd += granted.micro_usd
        balance.held_tokens += granted.tokens
        self._store.put_balance(account.key, balance)

    def _refusal(self, key: str) -> Refusal:
        b = self._store.get_balance(key) or Balance()
        return Refusal(
            key, Amount(b.spent_micro_usd, b.spent_tokens), Amount(b.held_micro_usd, b.held_tokens)
        )

    def _settle(self, settlement: Settlement, now: float, charges: list[Charge]) -> None:
        existing = self._store.get_operation(settlement.operation_id)
        if existing is not None and existing.state == "settled":
            self._top_up(existing, settlement, now, charges)
            return
        if existing is not None:
            released = existing.amount if existing.state == "held" else ZERO_AMOUNT
            charged_before = existing.amount if existing.state == "expired" else ZERO_AMOUNT
            added = Amount(
                settlement.amount.micro_usd - charged_before.micro_usd,
                settlement.amount.tokens - charged_before.tokens,
            )
            self._charge(existing, added, released, charges)
        accounts = () if existing is None else existing.accounts
        settled = StoredOperation("settled", settlement.amount, accounts)
        self._store.put_operation(settlement.operation_id, settled, now + self._retention_s)
        if settlement.spends:
            self._store.add_spends(int(now // 3600), settlement.spends)

    def _top_up(
        self, operation: StoredOperation, settlement: Settlement, now: float, charges: list[Charge]
    ) -> None:
        """Charge the difference when an operation that was settled at an estimate has cost more.

        A repetition changes nothing.
        """
        highest = Amount(*map(max, settlement.amount, operation.amount))
        if highest != operation.amount:
            added = Amount(
                highest.micro_usd - operation.amount.micro_usd,
                highest.tokens - operation.amount.tokens,
            )
            self._charge(operation, added, ZERO_AMOUNT, charges)
            self._store.put_operation(
                settlement.operation_id, operation._replace(amount=highest), now + self._retention_s
            )

    def _charge(
        self, operation: StoredOperation, added: Amount, released: Amount, charges: list[Charge]
    ) -> None:
        for key in operation.accounts:
            balance = self._store.get_balance(key) or Balance()
            balance.spent_micro_usd += added.micro_usd
            balance.spent_tokens += added.tokens
            balance.held_micro_usd -= released.micro_usd
            balance.held_tokens -= released.tokens
            self._store.put_balance(key, balance)
            charges.append(
                Charge(key, Amount(balance.spent_micro_usd, balance.spent_tokens), added)
            )
