"""The way to a ledger and back, again when it fails: by its ids the same again is harmless."""

from __future__ import annotations

import asyncio
import time

from agent_runtime.budgets.ledger.ledger import Answer, Ending, Ledger, Reservation
from agent_runtime.errors import StoreError

RETRIES_S = (0.02, 0.1, 0.4)
"""How long to wait before asking a ledger again that failed."""
WITHIN_S = 5.0
"""After so long it is not asked again: one locked store costs one wait."""


def asked(ledger: Ledger, endings: list[Ending], reservation: Reservation | None) -> Answer:
    """Return the ledger's answer; blocks. Raises the last StoreError."""
    until_s = time.monotonic() + WITHIN_S
    for wait_s in RETRIES_S:
        try:
            return ledger.call("transact", endings, reservation)  # type: ignore[no-any-return]
        except StoreError:
            if time.monotonic() + wait_s > until_s:
                raise
            time.sleep(wait_s)
    return ledger.call("transact", endings, reservation)  # type: ignore[no-any-return]


async def aasked(ledger: Ledger, endings: list[Ending], reservation: Reservation | None) -> Answer:
    """Return the ledger's answer, as `asked` does, to an async caller."""
    until_s = time.monotonic() + WITHIN_S
    for wait_s in RETRIES_S:
        try:
            return await ledger.acall("transact", endings, reservation)  # type: ignore[no-any-return]
        except StoreError:
            if time.monotonic() + wait_s > until_s:
                raise
            await asyncio.sleep(wait_s)
    return await ledger.acall("transact", endings, reservation)  # type: ignore[no-any-return]


async def flush(ledger: Ledger) -> None:
    """Write what could not be written before; raises StoreError, and the ledger keeps it then."""
    while endings := ledger.unwritten():
        try:
            await aasked(ledger, endings, None)
        except BaseException:
            ledger.keep(endings)
            raise
