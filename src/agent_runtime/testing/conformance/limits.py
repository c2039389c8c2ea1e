"""Check that the stores of rate and concurrency limits conform, in any test suite.

    @pytest.mark.parametrize("check", WINDOW_CHECKS)
    async def test_my_windows(check):
        await run_window_check(check, lambda: MyWindows(fresh_name))

    @pytest.mark.parametrize("check", CONCURRENCY_CHECKS)
    async def test_my_permits(check):
        await run_concurrency_check(check, lambda: MyPermits(fresh_name))

`open_store` opens an empty store, once. A check raises AssertionError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agent_runtime.limits.concurrency import ConcurrencyStore, Permit
from agent_runtime.limits.rate_limits import Window
from agent_runtime.limits.windows import SlidingWindowStore
from agent_runtime.testing.conformance.checks import run_store_check

WindowCheck = Callable[[SlidingWindowStore], Awaitable[None]]
ConcurrencyCheck = Callable[[ConcurrencyStore], Awaitable[None]]


def window(key: str, amount: int = 2, window_s: int = 60) -> Window:
    """Return a window of a rate limit."""
    return Window(key, amount, window_s, f"{amount}/{window_s} seconds")


def permit(key: str, amount: int = 2) -> Permit:
    """Return a permit of a concurrency limit."""
    return Permit(key, amount, f"{amount} at once")


async def a_window_admits_its_amount(store: SlidingWindowStore) -> None:
    """Check that the next call is refused, and told when there will be room."""
    first = await store.acquire([window("a")])
    second = await store.acquire([window("a")])
    assert (first.refused, second.refused) == (None, None)
    assert second.decided_at >= first.decided_at
    third = await store.acquire([window("a")])
    assert third.refused == window("a")
    assert 55 < third.retry_after_s <= 60
    assert (await store.acquire([window("b")])).refused is None


async def a_refused_call_counts_in_no_window(store: SlidingWindowStore) -> None:
    """Check that several windows admit a call together or not at all."""
    small = window("small", 1)
    large = window("large", 3)
    assert (await store.acquire([small, large])).refused is None
    for _ in range(5):
        assert (await store.acquire([large, small])).refused == small
    assert (await store.acquire([large])).refused is None
    assert (await store.acquire([large])).refused is None
    assert (await store.acquire([large])).refused == large


async def a_window_slides(store: SlidingWindowStore) -> None:
    """Check that a call is admitted as soon as the oldest one is a window's length ago."""
    short = window("short", 1, 1)
    assert (await store.acquire([short])).refused is None
    refused = await store.acquire([short])
    assert refused.refused == short
    await asyncio.sleep(refused.retry_after_s + 0.02)
    assert (await store.acquire([short])).refused is None


async def the_same_key_of_another_length_is_another_window(store: SlidingWindowStore) -> None:
    """Check that a limit per minute and one per hour of the same caller both hold."""
    minute = window("user=a/minute", 1, 60)
    hour = window("user=a/hour", 2, 3600)
    assert (await store.acquire([minute, hour])).refused is None
    assert (await store.acquire([minute, hour])).refused == minute
    assert (await store.acquire([hour])).refused is None
    assert (await store.acquire([hour])).refused == hour


async def concurrent_calls_stay_within_a_window(store: SlidingWindowStore) -> None:
    """Check that of 100 calls at once the amount is admitted."""
    seven = window("seven", 7)
    admissions = await asyncio.gather(*(store.acquire([seven]) for _ in range(100)))
    assert sum(admission.refused is None for admission in admissions) == 7


async def permits_are_exhausted_and_released(store: ConcurrencyStore) -> None:
    """Check that a holder takes one permit of its key, which returns when it is released."""
    assert await store.acquire([permit("a")], "one") is None
    assert await store.acquire([permit("a")], "two") is None
    assert await store.acquire([permit("a")], "three") == permit("a")
    assert await store.acquire([permit("b")], "three") is None
    await store.release([permit("a")], "one")
    assert await store.acquire([permit("a")], "three") is None
    assert await store.acquire([permit("a")], "four") == permit("a")


async def a_holder_has_all_of_its_permits_or_none(store: ConcurrencyStore) -> None:
    """Check that an exhausted key leaves the others as they were."""
    small = permit("small", 1)
    large = permit("large", 2)
    assert await store.acquire([small, large], "one") is None
    for number in range(5):
        assert await store.acquire([large, small], f"refused {number}") == small
    assert await store.acquire([large], "two") is None
    assert await store.acquire([large], "three") == large


async def permits_outlast_their_renewals(store: ConcurrencyStore) -> None:
    """Check that renewing keeps a permit, and takes no further one."""
    two = permit("renewed")
    assert await store.acquire([two], "one") is None
    for _ in range(3):
        await store.renew([two], "one")
    assert await store.acquire([two], "two") is None
    assert await store.acquire([two], "three") == two


async def concurrent_holders_stay_within_the_amount(store: ConcurrencyStore) -> None:
    """Check that of 100 holders at once the amount gets a permit."""
    five = permit("five", 5)
    exhausted = await asyncio.gather(*(store.acquire([five], str(n)) for n in range(100)))
    assert sum(refusal is None for refusal in exhausted) == 5


WINDOW_CHECKS: tuple[WindowCheck, ...] = (
    a_window_admits_its_amount,
    a_refused_call_counts_in_no_window,
    a_window_slides,
    the_same_key_of_another_length_is_another_window,
    concurrent_calls_stay_within_a_window,
)
"""All checks of a SlidingWindowStore."""
CONCURRENCY_CHECKS: tuple[ConcurrencyCheck, ...] = (
    permits_are_exhausted_and_released,
    a_holder_has_all_of_its_permits_or_none,
    permits_outlast_their_renewals,
    concurrent_holders_stay_within_the_amount,
)
"""All checks of a ConcurrencyStore."""


async def run_window_check(
    check: WindowCheck, open_store: Callable[[], SlidingWindowStore]
) -> None:
    """Run one check on a new store of windows."""
    await run_store_check(check, open_store)


async def run_concurrency_check(
    check: ConcurrencyCheck, open_store: Callable[[], ConcurrencyStore]
) -> None:
    """Run one check on a new store of permits."""
    await run_store_check(check, open_store)
