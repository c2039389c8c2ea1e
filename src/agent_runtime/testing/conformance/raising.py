"""Assert that operations fail."""

from __future__ import annotations

from collections.abc import Awaitable


async def assert_raises(error_type: type[Exception], operation: Awaitable[object]) -> None:
    """Raise AssertionError unless the operation raises this error."""
    try:
        await operation
    except error_type:
        return
    raise AssertionError(f"{error_type.__name__} was not raised")
