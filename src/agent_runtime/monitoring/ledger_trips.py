"""The way to a ledger and back, again when it fails, for sync and async callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias

from agent_runtime.errors import StoreError
from agent_runtime.monitoring.ledger import Answer, Ending, Ledger, Reservation

RETRIES_S = (0.02, 0.1, 0.4)
"""How long to wait before asking a ledger again that failed."""


class Trip(NamedTuple):
    """What the ledger is asked, after waiting for `after_s` seconds."""

    endings: list[Ending]
    reservation: Reservation | None
    after_s: float = 0.0


Steps: TypeAlias = Generator[Trip, Any, Any]


def asked(ledger: Ledger, steps: Steps) -> Any:
    """What `steps` return, which yield trips and are sent answers or errors; blocks."""
    answer: Any = None
    while True:
        try:
            trip = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        if trip.after_s:
            time.sleep(trip.after_s)
        try:
            answer = ledger.call("transact", trip.endings, trip.reservation)
        except StoreError as error:
            answer = error


async def aasked(ledger: Ledger, steps: Steps) -> Any:
    """`asked` for async callers."""
    answer: Any = None
    while True:
        try:
            trip = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        if trip.after_s:
            await asyncio.sleep(trip.after_s)
        try:
            answer = await ledger.acall("transact", trip.endings, trip.reservation)
        except StoreError as error:
            answer = error


def asking(endings: list[Ending], reservation: Reservation | None) -> Generator[Trip, Any, Answer]:
    """Ask the ledger, again when it fails: by its ids the same again is harmless."""
    for after_s in (0.0, *RETRIES_S):
        answer = yield Trip(endings, reservation, after_s)
        if not isinstance(answer, StoreError):
            return answer  # type: ignore[no-any-return]
    raise answer


async def flush(ledger: Ledger) -> None:
    """Write what could not be written before; raises StoreError, and the ledger keeps it then."""
    while endings := ledger.unwritten():
        try:
            await aasked(ledger, asking(endings, None))
        except BaseException:
            ledger.keep(endings)
            raise
