"""The pace that an account allows.

Learned from refusals, kept just below, found again when it changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provider_accounts import Answered, account

from agent_runtime.providers import limiter as provider_limiter
from agent_runtime.providers.headers import pause_s
from agent_runtime.providers.rate_estimate import BACKOFF_FACTOR, RateEstimator

REFUSED = Answered(429, headers={"retry-after": "1"})


class Window:
    """A provider that admits so many calls in any window, in a time of its own."""

    def __init__(self, most: int, window_s: float) -> None:
        self.most = most
        self.window_s = window_s
        self.admitted: deque[float] = deque()
        self.answered = self.refused = 0

    def call(self, now_s: float) -> float | None:
        """None when it is answered, else after how long to come again."""
        while self.admitted and now_s - self.admitted[0] >= self.window_s:
            self.admitted.popleft()
        if len(self.admitted) >= self.most:
            self.refused += 1
            return self.admitted[0] + self.window_s - now_s
        self.admitted.append(now_s)
        self.answered += 1
        return None


def drive(
    pace: RateEstimator,
    provider: Window,
    until_s: float,
    now_s: float = 0.0,
    blocked_s: float = 0.0,
) -> float:
    """Callers that always want more, one call after another, each of 5 ms."""
    while now_s < until_s:
        now_s = max(now_s, blocked_s) + pace.wait_s(max(now_s, blocked_s))
        pace.on_start(now_s)
        wait_s = provider.call(now_s)
        now_s += 0.005
        if wait_s is None:
            pace.on_success(now_s, 10.0)
        else:
            pace.on_reject(REFUSED, now_s, max(wait_s, 0.001))
            blocked_s = now_s + wait_s
    return now_s


@pytest.mark.parametrize(
    ("most", "window_s"), [(600, 60.0), (60, 60.0), (3000, 60.0), (50, 1.0), (100, 10.0)]
)
def test_it_uses_nearly_all_and_is_hardly_ever_refused(most: int, window_s: float) -> None:
    pace = RateEstimator()
    provider = Window(most, window_s)
    warm_s = drive(pace, provider, 3 * window_s)
    provider.answered = provider.refused = 0
    for_s = 10 * max(window_s, 10.0)
    drive(pace, provider, warm_s + for_s, warm_s)
    assert provider.answered >= 0.9 * most * for_s / window_s
    assert provider.refused <= 0.01 * provider.answered


def test_it_finds_a_higher_and_a_lower_allowance() -> None:
    pace = RateEstimator()
    provider = Window(100, 10.0)
    now_s = drive(pace, provider, 60.0)
    assert pace.rate == pytest.approx(10, rel=0.1)
    provider.most = 50
    now_s = drive(pace, provider, now_s + 200, now_s)
    assert pace.rate == pytest.approx(5, rel=0.15)
    provider.most = 400
    drive(pace, provider, now_s + 200, now_s)
    assert pace.rate == pytest.approx(40, rel=0.15)


def test_a_refusal_that_says_nothing_of_the_pace_teaches_none() -> None:
    for error, retry_after_s, answered in (
        (Answered(503, headers={"retry-after": "1"}), 1.0, 50),
        (Answered(429), None, 50),
        (REFUSED, 1.0, 5),
    ):
        pace = RateEstimator()
        pace.on_start(0.0)
        for _ in range(answered):
            pace.on_success(0.5, 10.0)
        assert pace.on_reject(error, 1.0, retry_after_s) is False
        assert (pace.rate, pace.wait_s(1.0)) == (None, 0.0)


@given(st.integers(10, 1000), st.floats(0.1, 30), st.floats(0.1, 60))
def test_the_pace_is_what_was_answered_over_the_time_until_more_is_allowed(
    n: int, took_s: float, after_s: float
) -> None:
    pace = RateEstimator()
    pace.on_start(5.0)
    for _ in range(n):
        pace.on_success(5.0, 1e9)
    assert pace.on_reject(REFUSED, 5.0 + took_s, after_s)
    assert pace.rate == pytest.approx(BACKOFF_FACTOR * n / (took_s + after_s))
    assert pace.wait_s(5.0 + took_s) == pytest.approx(after_s)


async def test_an_account_keeps_its_pace_and_serves_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = account()
    began = asyncio.get_running_loop().time()
    served = list[int]()
    for _ in range(20):
        (await one.aacquire()).release()
    (await one.aacquire()).release(Answered(429, headers={"retry-after": "0.2"}))
    assert one.rate_estimator.rate is not None
    assert one.limit is None  # it is not steered by how many are in flight
    one.rate_estimator.rate = 100.0
    monkeypatch.setattr(provider_limiter, "RAISE_AFTER_S", 1e9)

    async def call(n: int) -> None:
        place = await one.aacquire()
        served.append(n)
        place.release()

    tasks = [asyncio.create_task(call(n)) for n in range(30)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [n for n in range(30) if n != 3]
    assert asyncio.get_running_loop().time() - began >= 0.2 + 24 / 100
    assert (one.in_flight, one.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("headers", "in_flight", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "2s"}, 3, 2),
        ({"x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "2s"}, 3, None),
        ({"x-ratelimit-remaining-tokens": "3", "x-ratelimit-reset-tokens": "2s"}, 3, None),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "2s"}, 3, None),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "2s"}, 3, None),
    ],
)
def test_what_is_left_is_for_those_in_flight(
    headers: Any, in_flight: int, seconds: float | None
) -> None:
    assert pause_s(headers, in_flight) == seconds
