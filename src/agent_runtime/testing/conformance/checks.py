"""Run checks on new stores, and assert that operations fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar


class ClosableStore(Protocol):
    """Close a store, as all of them are."""

    async def aclose(self) -> None:
        """Close it."""


StoreT = TypeVar("StoreT", bound=ClosableStore)
WITHIN_S = 30.0
"""Seconds a check may take."""


async def run_store_check(
    check: Callable[[StoreT], Awaitable[None]], open_store: Callable[[], StoreT]
) -> None:
    """Run one check on a new store, and close it. Raises AssertionError, TimeoutError."""
    store = open_store()
    try:
        async with asyncio.timeout(WITHIN_S):
            await check(store)
    finally:
        await store.aclose()


async def assert_raises(error_type: type[Exception], operation: Awaitable[object]) -> None:
    """Raise AssertionError unless the operation raises this error."""
    try:
        await operation
    except error_type:
        return
    raise AssertionError(f"{error_type.__name__} was not raised")
