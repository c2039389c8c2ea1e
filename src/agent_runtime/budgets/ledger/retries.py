"""Retry ledger operations; their ids make repetitions harmless."""

from __future__ import annotations

import asyncio
import time

from agent_runtime.budgets.ledger.ledger import Answer, Ledger, ReservationRequest, Settlement
from agent_runtime.errors import StoreError

RETRY_DELAYS_S = (0.02, 0.1, 0.4)
"""Seconds before each further attempt at a failed operation."""
RETRY_DEADLINE_S = 5.0
"""Seconds after which an operation is not retried: a locked store costs one bounded wait."""


def transact_with_retry(
    ledger: Ledger, settlements: list[Settlement], reservation: ReservationRequest | None
) -> Answer:
    """Return the ledger's answer; blocks. Raises the last StoreError."""
    deadline = time.monotonic() + RETRY_DEADLINE_S
    for wait_s in RETRY_DELAYS_S:
        try:
            return ledger.transact(settlements, reservation).run()
        except StoreError:
            if time.monotonic() + wait_s > deadline:
                raise
            time.sleep(wait_s)
    return ledger.transact(settlements, reservation).run()


async def atransact_with_retry(
    ledger: Ledger, settlements: list[Settlement], reservation: ReservationRequest | None
) -> Answer:
    """Return the ledger's answer, as `transact_with_retry` does, to an async caller."""
    deadline = time.monotonic() + RETRY_DEADLINE_S
    for wait_s in RETRY_DELAYS_S:
        try:
            return await ledger.transact(settlements, reservation)
        except StoreError:
            if time.monotonic() + wait_s > deadline:
                raise
            await asyncio.sleep(wait_s)
    return await ledger.transact(settlements, reservation)


async def flush_deferred(ledger: Ledger) -> None:
    """Write deferred settlements; raises StoreError, after which the ledger stores them again."""
    while settlements := ledger.take_deferred():
        try:
            await atransact_with_retry(ledger, settlements, None)
        except BaseException:
            ledger.defer(settlements)
            raise
