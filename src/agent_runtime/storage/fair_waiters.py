"""Hand values to waiting tasks in the order of their arrival, without losing one to a cancel."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairWaiters(Generic[T]):
    """Queue tasks of one event loop that wait for a value; the longest waiter gets the next one.

    Args:
        on_undelivered: called with the value of a waiter that was cancelled after `hand_over` had
            chosen it: pass it to the next waiter, or put it back.
    """

    def __init__(self, on_undelivered: Callable[[T], object]) -> None:
        self._on_undelivered = on_undelivered
        self._futures: deque[asyncio.Future[T]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self) -> T:
        """Return the value of a `hand_over`. Cancelling leaves the queue."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            return await receive(future, self._on_undelivered)
        finally:
            if future.cancelled():
                with contextlib.suppress(ValueError):  # `hand_over` may have dropped it
                    self._futures.remove(future)

    def hand_over(self, value: T) -> bool:
        """Give a value to the longest waiter; return False without one."""
        while self._futures and self._futures[0].done():
            _ = self._futures.popleft()
        if not self._futures:
            return False
        self._futures.popleft().set_result(value)
        return True

    def hand_over_to_all(self, value: T) -> None:
        """Give a value to every present waiter."""
        while self.hand_over(value):
            pass


async def receive(future: asyncio.Future[T], on_undelivered: Callable[[T], object]) -> T:
    """Return the value that another task sets on `future`.

    When the caller is cancelled after it was set, and before it was received, `on_undelivered` is
    called with the value. Raises the exception that was set.
    """
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            on_undelivered(future.result())
        raise
