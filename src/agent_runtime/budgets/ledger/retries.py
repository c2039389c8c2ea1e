"""The way to a ledger and back, again when it fails: by its ids the same again is harmless."""

from __future__ import annotations

import asyncio
import time

from agent_runtime.budgets.ledger.ledger import Answer, Ledger, ReservationRequest, Settlement
from agent_runtime.errors import StoreError

RETRY_DELAYS_S = (0.02, 0.1, 0.4)
"""How long to wait before asking a ledger again that failed."""
RETRY_DEADLINE_S = 5.0
"""After so long it is not asked again: one locked store costs one wait."""


def transact_with_retry(
    ledger: Ledger, settlements: list[Settlement], reservation: ReservationRequest | None
) -> Answer:
    """Return the ledger's answer; blocks. Raises the last StoreError."""
    deadline = time.monotonic() + RETRY_DEADLINE_S
    for wait_s in RETRY_DELAYS_S:
        try:
            return ledger.call("transact", settlements, reservation)  # type: ignore[no-any-return]
        except StoreError:
            if time.monotonic() + wait_s > deadline:
                raise
            time.sleep(wait_s)
    return ledger.call("transact", settlements, reservation)  # type: ignore[no-any-return]


async def atransact_with_retry(
    ledger: Ledger, settlements: list[Settlement], reservation: ReservationRequest | None
) -> Answer:
    """Return the ledger's answer, as `transact_with_retry` does, to an async caller."""
    deadline = time.monotonic() + RETRY_DEADLINE_S
    for wait_s in RETRY_DELAYS_S:
        try:
            return await ledger.acall("transact", settlements, reservation)  # type: ignore[no-any-return]
        except StoreError:
            if time.monotonic() + wait_s > deadline:
                raise
            await asyncio.sleep(wait_s)
    return await ledger.acall("transact", settlements, reservation)  # type: ignore[no-any-return]


async def flush_deferred(ledger: Ledger) -> None:
    """Write what could not be written before; raises StoreError, and the ledger keeps it then."""
    while settlements := ledger.take_deferred():
        try:
            await atransact_with_retry(ledger, settlements, None)
        except BaseException:
            ledger.defer(settlements)
            raise
