"""Reserve and settle the spending of one call on its budgets."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

from agent_runtime.budgets.grants import (
    Grant,
    Reservation,
    RunBudget,
    add_amounts,
    subtract_amounts,
)
from agent_runtime.budgets.ledger.ledger import (
    MICROS_PER_USD,
    ZERO_AMOUNT,
    Account,
    Amount,
    Answer,
    Charge,
    Ledger,
    Refusal,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.ledger.retries import atransact_with_retry, transact_with_retry
from agent_runtime.budgets.spending_policy import SpendingPolicy
from agent_runtime.errors import BudgetExceeded, BudgetUnavailable, StoreError

LOG = logging.getLogger("agent_runtime.budgets")
LOG.addHandler(logging.NullHandler())


class LedgerRequest(NamedTuple):
    """Hold one request to the ledger."""

    settlements: list[Settlement]
    reservation: ReservationRequest | None


class CallBudget:
    """Manage the reservations of one call.

    Nested agents also draw on the budgets of the outer call.

    Args:
        ledger: the ledger; `accounts` are those that the call draws on.
        labels: labels of the spending in reports; the model's name is added.
        spending: the spending policy.
        run_limits: micro-USD and tokens that the run itself may spend, None for no limit.
        parent: the budget of the outer call.
        on_charge: called with what settlements changed on the accounts.
    """

    def __init__(
        self,
        ledger: Ledger,
        accounts: tuple[Account, ...],
        labels: SpendLabels,
        spending: SpendingPolicy,
        *,
        run_limits: tuple[int | None, int | None] = (None, None),
        parent: CallBudget | None = None,
        on_charge: Callable[[tuple[Charge, ...]], None] | None = None,
    ) -> None:
        self.labels = labels
        self.spending = spending
        self.ledger = ledger
        self.own_accounts = self.accounts = accounts
        self.own_run_budgets = () if run_limits == (None, None) else (RunBudget(*run_limits),)
        self.run_budgets: tuple[RunBudget, ...] = self.own_run_budgets
        if parent is not None:
            account_keys = {a.key for a in accounts}
            self.accounts = (*accounts, *(a for a in parent.accounts if a.key not in account_keys))
            self.run_budgets = (*self.own_run_budgets, *parent.run_budgets)
        # Random: a name that a caller chooses, as its run id, would let two calls share one
        # reservation.
        self._operation_id = secrets.token_hex(16)
        self._on_charge = on_charge
        self._lock: threading.Lock = threading.Lock() if parent is None else parent._lock
        self._reservations: dict[str, Reservation] = {}
        self._reservation_number = 0
        self._pending_settlements: list[Settlement] = (
            ledger.take_deferred()
        )  # not known to have arrived yet
        self._unreserved_spend: list[Spend] = []

    @property
    def is_limited(self) -> bool:
        """Return whether anything limits the spending."""
        return bool(self.accounts or self.run_budgets)

    @property
    def limits_usd(self) -> bool:
        """Return whether there is a limit in USD."""
        accounts = any(a.limit_micro_usd is not None for a in self.accounts)
        return accounts or any(b.limit_micro_usd is not None for b in self.run_budgets)

    def is_own_account(self, account: str) -> bool:
        """Return whether an account is this budget's own, and not one of an outer call."""
        return any(a.key == account for a in self.own_accounts) or (
            account == "run" and bool(self.own_run_budgets)
        )

    # -- drawing

    def reserve(self, minimum: Amount, requested: Amount, key: str | None = None) -> Grant:
        """Reserve for one model call; blocks for the ledger.

        Raises BudgetExceeded, BudgetUnavailable.

        `key` names the call for its provider, too: one of the same name was paid, or will be, with
        this one.
        """
        granted, reservation, request = self._plan_reservation(minimum, requested, key)
        if request is None:
            return Grant(granted, reservation)
        with self._release_on_failure(request, granted):
            answer = transact_with_retry(self.ledger, *request)
        return self._accept_answer(request, granted, answer)

    async def areserve(self, minimum: Amount, requested: Amount, key: str | None = None) -> Grant:
        """Reserve for async callers.

        When cancelled while waiting, it holds nothing after the call's end.
        """
        if self.ledger.instant:
            return self.reserve(minimum, requested, key)
        granted, reservation, request = self._plan_reservation(minimum, requested, key)
        if request is None:
            return Grant(granted, reservation)
        with self._release_on_failure(request, granted):
            answer = await atransact_with_retry(self.ledger, *request)
        return self._accept_answer(request, granted, answer)

    def _plan_reservation(
        self, minimum: Amount, requested: Amount, key: str | None
    ) -> tuple[Amount, Reservation | None, LedgerRequest | None]:
        """Return the grant of the run's budgets, and a reservation or a request to the ledger."""
        with self._lock:
            granted = (
                self._reserve_from_run_budgets(minimum, requested)
                if self.run_budgets
                else requested
            )
            if not self.accounts:
                return granted, None, None
            for open_reservation in self._reservations.values() if key is None else ():
                if not open_reservation.idempotent and open_reservation.has_remaining(granted):
                    open_reservation.open_calls += 1
                    open_reservation.in_use = add_amounts(open_reservation.in_use, granted)
                    return granted, open_reservation, None
            self._reservation_number += 1
            for idle_reservation in [h for h in self._reservations.values() if not h.open_calls]:
                self._settle_reservation(idle_reservation)
            calls = self.spending.slab_calls if key is None else 1
            requested_amount = Amount(granted.micro_usd * calls, granted.tokens * calls)
            operation_id = key or f"{self._operation_id}:{self._reservation_number}"
            request = ReservationRequest(
                operation_id,
                self.accounts,
                minimum,
                requested_amount,
                self.spending.hold_ttl_s,
                key is not None,
            )
            return granted, None, LedgerRequest(self._pending_settlements.copy(), request)

    def _reserve_from_run_budgets(self, minimum: Amount, requested: Amount) -> Amount:
        granted = requested
        for budget in self.run_budgets:
            run_grant = budget.grant(minimum, granted)
            if run_grant is None:
                raise self._run_exceeded_error(budget)
            granted = run_grant
        for budget in self.run_budgets:
            budget.reserved = add_amounts(budget.reserved, granted)
        return granted

    @contextmanager
    def _release_on_failure(self, request: LedgerRequest, granted: Amount) -> Iterator[None]:
        """When no answer arrives, release the possible reservation with the next transaction."""
        try:
            yield
        except BaseException as error:
            assert request.reservation is not None  # noqa: S101 - only those are asked here
            with self._lock:
                self._pending_settlements.append(
                    Settlement(request.reservation.operation_id, ZERO_AMOUNT)
                )
            self._release_run_budgets(granted)
            if isinstance(error, StoreError):
                raise BudgetUnavailable(f"the ledger failed: {error}") from error
            raise

    def _accept_answer(self, request: LedgerRequest, granted: Amount, answer: Answer) -> Grant:
        if request.settlements:
            with self._lock:
                self._pending_settlements = [
                    e for e in self._pending_settlements if e not in request.settlements
                ]
        self._notify_charges(answer.charges)
        if answer.granted is None:
            self._release_run_budgets(granted)
            assert answer.refusal is not None  # noqa: S101 - the ledger's contract
            raise self._account_exceeded_error(answer.refusal)
        assert request.reservation is not None  # noqa: S101 - it was asked for
        reservation = Reservation(
            request.reservation.operation_id,
            answer.granted,
            open_calls=1,
            idempotent=request.reservation.idempotent,
        )
        with self._lock:
            self._reservations[reservation.operation_id] = reservation
        return Grant(self._limit_to_reservation(reservation, granted), reservation)

    def _limit_to_reservation(self, reservation: Reservation, requested: Amount) -> Amount:
        granted = Amount(
            min(requested.micro_usd, reservation.granted.micro_usd),
            min(requested.tokens, reservation.granted.tokens),
        )
        with self._lock:
            reservation.in_use = granted
            for budget in self.run_budgets:
                budget.reserved = add_amounts(subtract_amounts(budget.reserved, requested), granted)
        return granted

    def settle(self, grant: Grant | None, actual: Amount, spend: Spend | None) -> None:
        """Settle a model call at its actual cost, with the next transaction or on `close`."""
        with self._lock:
            if spend is not None and (grant is None or grant.reservation is None):
                self._unreserved_spend.append(spend)
            if grant is None or grant.settled:
                return
            grant.settled = True
            for budget in self.run_budgets:
                budget.reserved = subtract_amounts(budget.reserved, grant.granted)
                budget.spent = add_amounts(budget.spent, actual)
            if (reservation := grant.reservation) is not None:
                reservation.open_calls -= 1
                reservation.in_use = subtract_amounts(reservation.in_use, grant.granted)
                reservation.used = add_amounts(reservation.used, actual)
                reservation.spends += [] if spend is None else [spend]

    def _release_run_budgets(self, granted: Amount) -> None:
        with self._lock:
            for budget in self.run_budgets:
                budget.reserved = subtract_amounts(budget.reserved, granted)

    def _settle_reservation(self, reservation: Reservation) -> None:
        del self._reservations[reservation.operation_id]
        self._pending_settlements.append(
            Settlement(reservation.operation_id, reservation.used, tuple(reservation.spends))
        )

    async def close(self) -> None:
        """Write all pending settlements; shielded, so that a cancelled call settles too.

        Settlements that a failing store refuses are deferred by the ledger to its next operation;
        without one before the reservations expire, these are charged at their estimate until then.
        """
        with self._lock:
            for idle_reservation in [h for h in self._reservations.values() if not h.open_calls]:
                self._settle_reservation(idle_reservation)
            if self._unreserved_spend:
                self._pending_settlements.append(
                    Settlement(
                        f"{self._operation_id}:spent", ZERO_AMOUNT, tuple(self._unreserved_spend)
                    )
                )
                self._unreserved_spend = []
            settlements = self._pending_settlements
            self._pending_settlements = []
        if not settlements:
            return
        if self.ledger.instant:
            self._notify_charges(self.ledger.transact(settlements, None).run().charges)
            return
        write_task = asyncio.ensure_future(self._write_settlements(settlements))
        try:
            await asyncio.shield(write_task)
        except asyncio.CancelledError:
            await write_task
            raise

    async def _write_settlements(self, settlements: list[Settlement]) -> None:
        try:
            answer: Answer = await atransact_with_retry(self.ledger, settlements, None)
        except StoreError as error:
            self.ledger.defer(settlements)
            LOG.error("the spending of %s could not be written yet: %s", self._operation_id, error)
            return
        except BaseException:  # cancelled once more while it was written
            self.ledger.defer(settlements)
            raise
        self._notify_charges(answer.charges)

    def _notify_charges(self, charges: tuple[Charge, ...]) -> None:
        if charges and self._on_charge is not None:
            self._on_charge(charges)

    def _account_exceeded_error(self, refusal: Refusal) -> BudgetExceeded:
        account = next(a for a in self.accounts if a.key == refusal.key)
        return self._budget_exceeded_error(
            refusal.key,
            refusal.spent,
            refusal.reserved,
            account.limit_micro_usd,
            account.limit_tokens,
        )

    def _run_exceeded_error(self, budget: RunBudget) -> BudgetExceeded:
        return self._budget_exceeded_error(
            "run", budget.spent, budget.reserved, budget.limit_micro_usd, budget.limit_tokens
        )

    def _budget_exceeded_error(
        self, key: str, spent: Amount, reserved: Amount, usd: int | None, tokens: int | None
    ) -> BudgetExceeded:
        return BudgetExceeded(
            key,
            _usd(spent.micro_usd),
            _usd(reserved.micro_usd),
            None if usd is None else _usd(usd),
            spent.tokens,
            tokens,
            pauses=self.spending.on_exhausted == "pause",
        )


def _usd(micro_usd: int) -> Decimal:
    return Decimal(micro_usd) / MICROS_PER_USD
