"""What one call may spend: holds on the accounts that it draws on, and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

from agent_runtime.budgets.ledger.ledger import (
    MICRO,
    NOTHING,
    Account,
    Amount,
    Answer,
    Charge,
    Ending,
    Ledger,
    Refusal,
    Reservation,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.ledger.retries import aasked, asked
from agent_runtime.budgets.reservations import Draw, Hold, RunBudget, minus, plus
from agent_runtime.budgets.spending_policy import Spending
from agent_runtime.errors import BudgetExceeded, BudgetUnavailable, StoreError

LOG = logging.getLogger("agent_runtime.budgets")
LOG.addHandler(logging.NullHandler())


class Trip(NamedTuple):
    """What the ledger is asked."""

    endings: list[Ending]
    reservation: Reservation | None


class Purse:
    """The money of one call. Nested agents' purses draw on the one around them as well.

    Args:
        ledger: where the accounts are; `accounts` those that the call draws on.
        labels: of the spending in reports; the model's name is put in.
        spending: how to spend.
        run_limits: micro-USD and tokens that the run itself may spend, None for no limit.
        parent: the purse of the run around this one.
        on_charge: hears what endings changed on the accounts.
    """

    def __init__(
        self,
        ledger: Ledger,
        accounts: tuple[Account, ...],
        labels: SpendLabels,
        spending: Spending,
        *,
        run_limits: tuple[int | None, int | None] = (None, None),
        parent: Purse | None = None,
        on_charge: Callable[[tuple[Charge, ...]], None] | None = None,
    ) -> None:
        self.labels = labels
        self.spending = spending
        self.ledger = ledger
        self.own_accounts = self.accounts = accounts
        self.own_run_budgets = () if run_limits == (None, None) else (RunBudget(*run_limits),)
        self.run_budgets: tuple[RunBudget, ...] = self.own_run_budgets
        if parent is not None:
            own = {a.key for a in accounts}
            self.accounts = (*accounts, *(a for a in parent.accounts if a.key not in own))
            self.run_budgets = (*self.own_run_budgets, *parent.run_budgets)
        # Random: a name that a caller chooses, as its run id, would let two calls share one
        # reservation.
        self._operation_id = secrets.token_hex(16)
        self._on_charge = on_charge
        self._lock: threading.Lock = threading.Lock() if parent is None else parent._lock
        self._holds: dict[str, Hold] = {}
        self._number = 0
        self._to_end: list[Ending] = ledger.unwritten()  # not known to have arrived yet
        self._unheld: list[Spend] = []

    @property
    def limited(self) -> bool:
        """Whether anything limits the spending."""
        return bool(self.accounts or self.run_budgets)

    @property
    def limits_usd(self) -> bool:
        """Whether there is a limit in USD."""
        accounts = any(a.limit_micro_usd is not None for a in self.accounts)
        return accounts or any(b.limit_micro_usd is not None for b in self.run_budgets)

    def owns(self, account: str) -> bool:
        """Whether a refusal's account is this purse's own, and not one of those around it."""
        return any(a.key == account for a in self.own_accounts) or (
            account == "run" and bool(self.own_run_budgets)
        )

    # -- drawing
    # -------------------------------------------------------------------------------------------

    def draw(self, least: Amount, wanted: Amount, key: str | None = None) -> Draw:
        """Reserve for one model call; blocks for the ledger.

        Raises BudgetExceeded, BudgetUnavailable.

        `key` names the call for its provider, too: one of the same name was paid, or will be, with
        this one.
        """
        granted, hold, trip = self._planned(least, wanted, key)
        if trip is None:
            return Draw(granted, hold)
        with self._undone_if_lost(trip, granted):
            answer = asked(self.ledger, *trip)
        return self._drawn(trip, granted, answer)

    async def adraw(self, least: Amount, wanted: Amount, key: str | None = None) -> Draw:
        """`draw` for async callers.

        Cancelled while it waits it holds nothing for longer than until the call's end.
        """
        if self.ledger.instant:
            return self.draw(least, wanted, key)
        granted, hold, trip = self._planned(least, wanted, key)
        if trip is None:
            return Draw(granted, hold)
        with self._undone_if_lost(trip, granted):
            answer = await aasked(self.ledger, *trip)
        return self._drawn(trip, granted, answer)

    def _planned(
        self, least: Amount, wanted: Amount, key: str | None
    ) -> tuple[Amount, Hold | None, Trip | None]:
        """Return what the run's budgets grant, and a reservation or a request to the ledger."""
        with self._lock:
            granted = self._from_run_budgets(least, wanted) if self.run_budgets else wanted
            if not self.accounts:
                return granted, None, None
            for hold in self._holds.values() if key is None else ():
                if not hold.keyed and hold.has(granted):
                    hold.calls += 1
                    hold.drawn = plus(hold.drawn, granted)
                    return granted, hold, None
            self._number += 1
            for idle in [h for h in self._holds.values() if not h.calls]:
                self._retire(idle)
            calls = self.spending.slab_calls if key is None else 1
            slab = Amount(granted.micro_usd * calls, granted.tokens * calls)
            name = key or f"{self._operation_id}:{self._number}"
            reservation = Reservation(
                name, self.accounts, least, slab, self.spending.hold_ttl_s, key is not None
            )
            return granted, None, Trip(self._to_end.copy(), reservation)

    def _from_run_budgets(self, least: Amount, wanted: Amount) -> Amount:
        granted = wanted
        for budget in self.run_budgets:
            found = budget.grant(least, granted)
            if found is None:
                raise self._exceeded_run(budget)
            granted = found
        for budget in self.run_budgets:
            budget.held = plus(budget.held, granted)
        return granted

    @contextmanager
    def _undone_if_lost(self, trip: Trip, granted: Amount) -> Iterator[None]:
        """When the answer does not come, what it may hold is given back with the next trip."""
        try:
            yield
        except BaseException as error:
            assert trip.reservation is not None  # noqa: S101 - only those are asked here
            with self._lock:
                self._to_end.append(Ending(trip.reservation.operation_id, NOTHING))
            self._release(granted)
            if isinstance(error, StoreError):
                raise BudgetUnavailable(f"the ledger cannot be asked: {error}") from error
            raise

    def _drawn(self, trip: Trip, granted: Amount, answer: Answer) -> Draw:
        if trip.endings:
            with self._lock:
                self._to_end = [e for e in self._to_end if e not in trip.endings]
        self._charged(answer.charges)
        if answer.granted is None:
            self._release(granted)
            assert answer.refusal is not None  # noqa: S101 - the ledger's contract
            raise self._exceeded(answer.refusal)
        assert trip.reservation is not None  # noqa: S101 - it was asked for
        hold = Hold(
            trip.reservation.operation_id, answer.granted, calls=1, keyed=trip.reservation.keyed
        )
        with self._lock:
            self._holds[hold.operation_id] = hold
        return Draw(self._within(hold, granted), hold)

    def _within(self, hold: Hold, wanted: Amount) -> Amount:
        granted = Amount(
            min(wanted.micro_usd, hold.granted.micro_usd), min(wanted.tokens, hold.granted.tokens)
        )
        with self._lock:
            hold.drawn = granted
            for budget in self.run_budgets:
                budget.held = plus(minus(budget.held, wanted), granted)
        return granted

    def end(self, draw: Draw | None, actual: Amount, spend: Spend | None) -> None:
        """Say what a model call cost in the end.

        It is written with the next trip, or when the purse is closed.
        """
        with self._lock:
            if spend is not None and (draw is None or draw.hold is None):
                self._unheld.append(spend)
            if draw is None or draw.ended:
                return
            draw.ended = True
            for budget in self.run_budgets:
                budget.held = minus(budget.held, draw.granted)
                budget.spent = plus(budget.spent, actual)
            if (hold := draw.hold) is not None:
                hold.calls -= 1
                hold.drawn = minus(hold.drawn, draw.granted)
                hold.used = plus(hold.used, actual)
                hold.spends += [] if spend is None else [spend]

    def _release(self, granted: Amount) -> None:
        with self._lock:
            for budget in self.run_budgets:
                budget.held = minus(budget.held, granted)

    def _retire(self, hold: Hold) -> None:
        del self._holds[hold.operation_id]
        self._to_end.append(Ending(hold.operation_id, hold.used, tuple(hold.spends)))

    async def close(self) -> None:
        """Write what has not been written; shielded, so that a cancelled call settles too.

        What a failing store does not take is kept by the ledger for its next call; if none comes
        before the leases of the holds end, they are charged at their estimate until then.
        """
        with self._lock:
            for idle in [h for h in self._holds.values() if not h.calls]:
                self._retire(idle)
            if self._unheld:
                self._to_end.append(
                    Ending(f"{self._operation_id}:spent", NOTHING, tuple(self._unheld))
                )
                self._unheld = []
            endings = self._to_end
            self._to_end = []
        if not endings:
            return
        if self.ledger.instant:
            self._charged(self.ledger.call("transact", endings, None).charges)
            return
        writing = asyncio.ensure_future(self._write(endings))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            raise

    async def _write(self, endings: list[Ending]) -> None:
        try:
            answer: Answer = await aasked(self.ledger, endings, None)
        except StoreError as error:
            self.ledger.keep(endings)
            LOG.error("the spending of %s could not be written yet: %s", self._operation_id, error)
            return
        except BaseException:  # cancelled once more while it was written
            self.ledger.keep(endings)
            raise
        self._charged(answer.charges)

    def _charged(self, charges: tuple[Charge, ...]) -> None:
        if charges and self._on_charge is not None:
            self._on_charge(charges)

    def _exceeded(self, refusal: Refusal) -> BudgetExceeded:
        account = next(a for a in self.accounts if a.key == refusal.key)
        return self._error(
            refusal.key, refusal.spent, refusal.held, account.limit_micro_usd, account.limit_tokens
        )

    def _exceeded_run(self, budget: RunBudget) -> BudgetExceeded:
        return self._error(
            "run", budget.spent, budget.held, budget.limit_micro_usd, budget.limit_tokens
        )

    def _error(
        self, key: str, spent: Amount, held: Amount, usd: int | None, tokens: int | None
    ) -> BudgetExceeded:
        return BudgetExceeded(
            key,
            _usd(spent.micro_usd),
            _usd(held.micro_usd),
            None if usd is None else _usd(usd),
            spent.tokens,
            tokens,
            pauses=self.spending.on_exhausted == "pause",
        )


def _usd(micro_usd: int) -> Decimal:
    return Decimal(micro_usd) / MICRO
