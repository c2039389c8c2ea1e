"""Define the money ledger: accounts, reservations, settlements, in micro-USD and tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent_runtime.storage.operations import Operation

MICROS_PER_USD = 1_000_000
"""Micro-USD in a USD."""
OPERATION_RETENTION_S = 24 * 3600.0
"""Seconds an ended operation is remembered, during which a repetition changes nothing."""
ACCOUNT_RETENTION_S = 40 * 24 * 3600.0
"""Seconds an account is stored after its period."""
MAX_DEFERRED = 10_000
DEFERRED_BATCH_SIZE = 100
SPEND_RETENTION_S = 400 * 24 * 3600.0
"""Seconds spending is stored for reports."""


class Amount(NamedTuple):
    """Money and tokens."""

    micro_usd: int = 0
    tokens: int = 0


ZERO_AMOUNT = Amount()


class Account(NamedTuple):
    """A budget of one scope in one period: `tenant=acme/day=2026-11-21`.

    `ends_at` is when the period is over, in seconds since the epoch; None when it never is.
    """

    key: str
    limit_micro_usd: int | None
    limit_tokens: int | None
    ends_at: float | None = None


class SpendLabels(NamedTuple):
    """Label spending in reports."""

    tenant: str
    user: str
    template: str
    model: str


class Spend(NamedTuple):
    """One model call in reports; `estimated` and `unknown` count inexact costs."""

    labels: SpendLabels
    calls: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    micro_usd: int = 0
    estimated: int = 0
    unknown: int = 0


class Settlement(NamedTuple):
    """Settle an operation at its actual cost, with its entry in reports."""

    operation_id: str
    amount: Amount
    spends: tuple[Spend, ...] = ()


class ReservationRequest(NamedTuple):
    """Reserve from `minimum` up to `requested` on every account at once, for `ttl_s` seconds.

    `idempotent`: the id is an idempotency key that the provider honours: an operation that was paid
    is granted and not charged twice.
    """

    operation_id: str
    accounts: tuple[Account, ...]
    minimum: Amount
    requested: Amount
    ttl_s: float
    idempotent: bool = False


class Charge(NamedTuple):
    """Report a settlement's change of an account: `amount` was added, `spent` is the new sum."""

    key: str
    spent: Amount
    amount: Amount


class Refusal(NamedTuple):
    """The account that had too little left."""

    key: str
    spent: Amount
    reserved: Amount


class Answer(NamedTuple):
    """Answer a transaction; `granted` is None for a refused reservation, or without one."""

    granted: Amount | None
    refusal: Refusal | None
    charges: tuple[Charge, ...]


@dataclass(slots=True)
class Balance:
    """Describe an account; the limits are those of the last reservation."""

    spent_micro_usd: int = 0
    held_micro_usd: int = 0
    spent_tokens: int = 0
    held_tokens: int = 0
    limit_micro_usd: int | None = None
    limit_tokens: int | None = None
    ends_at: float | None = None

    def remaining(self, account: Account) -> tuple[int | None, int | None]:
        """Return the remaining amounts for reservations; None is unlimited."""
        usd = account.limit_micro_usd
        tokens = account.limit_tokens
        return (
            None if usd is None else usd - self.spent_micro_usd - self.held_micro_usd,
            None if tokens is None else tokens - self.spent_tokens - self.held_tokens,
        )


class Ledger(ABC):
    """Define the ledger: accounts, and the reservations on them.

    Every operation is atomic and, by its operation ids, safe to repeat. It raises StoreError when
    the store fails; whether such an operation took effect is unknown: repeat it with the same ids.
    `instant`: `run` waits for nothing, so that async callers may use it too.
    """

    instant = False

    @abstractmethod
    def transact(
        self, settlements: Sequence[Settlement], reservation: ReservationRequest | None
    ) -> Operation[Answer]:
        """Apply the settlements, then the reservation, in one step."""

    @abstractmethod
    def balances(self) -> Operation[dict[str, Balance]]:
        """Return all accounts, by their keys."""

    @abstractmethod
    def report(self, since: float, until: float) -> Operation[list[tuple[int, Spend]]]:
        """Return the spending of whole hours between two Unix times, each with its hour's start."""

    @abstractmethod
    def expire_holds(self) -> Operation[int]:
        """Charge abandoned reservations at their estimate, and return how many they were."""

    async def aclose(self) -> None:  # noqa: B027 - memory has nothing to close
        """Close the resources that were opened here."""

    def defer(self, settlements: list[Settlement]) -> None:
        """Store settlements that could not be written for the next operation.

        The newest 10,000 are stored.
        """
        self._deferred().extend(settlements)

    def take_deferred(self) -> list[Settlement]:
        """Return the deferred settlements and clear them."""
        deferred_batch: list[Settlement] = []
        if not (deferred := self._deferred()):
            return deferred_batch
        while deferred and len(deferred_batch) < DEFERRED_BATCH_SIZE:
            deferred_batch.append(deferred.popleft())
        return deferred_batch

    def _deferred(self) -> deque[Settlement]:
        deferred: deque[Settlement] | None = self.__dict__.get("_endings_kept")
        return (
            self.__dict__.setdefault("_endings_kept", deque(maxlen=MAX_DEFERRED))
            if deferred is None
            else deferred
        )
