"""The ledger in this process's memory: gone with it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence

from typing_extensions import override

from agent_runtime.budgets.ledger.ledger import (
    ACCOUNT_RETENTION_S,
    OPERATION_RETENTION_S,
    SPEND_RETENTION_S,
    Answer,
    Balance,
    Ledger,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.ledger.rules import LedgerRules, StoredOperation
from agent_runtime.storage.deletion_clock import ProcessClock
from agent_runtime.storage.operations import InlineStore, operation


class MemoryLedger(InlineStore, Ledger):
    """Keep the ledger in memory; its operations never wait."""

    instant = True

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._store = _MemoryLedgerStore(ProcessClock() if clock is time.time else None)
        self._rules = LedgerRules(self._store, OPERATION_RETENTION_S, clock)

    @override
    @operation
    def transact(
        self, settlements: Sequence[Settlement], reservation: ReservationRequest | None
    ) -> Answer:
        return self._rules.transact(settlements, reservation)

    @override
    @operation
    def expire_holds(self) -> int:
        return self._rules.expire_holds()

    @override
    @operation
    def balances(self) -> dict[str, Balance]:
        return {
            key: Balance(*(getattr(b, n) for n in b.__slots__))
            for key, b in self._store.accounts.items()
        }

    @override
    @operation
    def report(self, since: float, until: float) -> list[tuple[int, Spend]]:
        first = int(since // 3600)
        last = int(-(-until // 3600))
        return [
            (hour * 3600, Spend(labels, *counts))
            for (hour, labels), counts in sorted(self._store.spends.items())
            if first <= hour < last
        ]


class _MemoryLedgerStore:
    def __init__(self, clock: ProcessClock | None) -> None:
        self._clock = clock
        self.accounts: dict[str, Balance] = {}
        self.spends: dict[tuple[int, SpendLabels], list[int]] = {}
        self._operations: dict[str, tuple[StoredOperation, float]] = {}
        self._expiry_heap: list[
            tuple[float, str]
        ] = []  # a heap; an entry that was replaced is skipped when it comes up

    def get_balance(self, key: str) -> Balance | None:
        return self.accounts.get(key)

    def put_balance(self, key: str, balance: Balance) -> None:
        self.accounts[key] = balance

    def get_operation(self, operation_id: str) -> StoredOperation | None:
        entry = self._operations.get(operation_id)
        return None if entry is None else entry[0]

    def put_operation(
        self, operation_id: str, operation: StoredOperation, expires_at: float
    ) -> None:
        self._operations[operation_id] = operation, expires_at
        heapq.heappush(self._expiry_heap, (expires_at, operation_id))

    def expired_holds(self, now: float, limit: int) -> list[str]:
        expired_ids: list[str] = []
        while self._expiry_heap and self._expiry_heap[0][0] <= now and len(expired_ids) < limit:
            expires_at, operation_id = heapq.heappop(self._expiry_heap)
            operation, current_expires_at = self._operations.get(operation_id, (None, 0.0))
            if operation is None or current_expires_at != expires_at:
                continue
            if operation.state == "held":
                expired_ids.append(operation_id)
            else:
                del self._operations[operation_id]
        return expired_ids

    def add_spends(self, hour: int, spends: Iterable[Spend]) -> None:
        for spend in spends:
            counts = self.spends.setdefault((hour, spend.labels), [0] * (len(spend) - 1))
            for position, value in enumerate(spend[1:]):
                counts[position] += value

    def delete_expired(self, now: float) -> None:
        if self._clock is not None:
            now = min(now, self._clock.deletion_time())
        for key in [
            k
            for k, b in self.accounts.items()
            if b.ends_at is not None and b.ends_at + ACCOUNT_RETENTION_S < now
        ]:
            del self.accounts[key]
        oldest = int((now - SPEND_RETENTION_S) // 3600)
        for spend_key in [p for p in self.spends if p[0] < oldest]:
            del self.spends[spend_key]
