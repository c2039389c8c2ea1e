"""Pauses between attempts: bounded, growing, and defined for any number of failures."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.errors.backoff import Backoff
from agent_runtime.pool.process.start_backoff import MAX_BACKOFF_S, StartLimiter

seconds = st.floats(0.001, 1000)


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0)
    assert [backoff.pause_s(n) for n in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(seconds, seconds, st.integers(1, 100_000))
def test_no_number_of_failures_overflows(initial_s: float, max_s: float, failures: int) -> None:
    pause_s = Backoff(initial_s, max_s).pause_s(failures)
    assert min(initial_s, max_s) <= pause_s <= max_s
    assert pause_s <= Backoff(initial_s, max_s).pause_s(failures + 1)


@given(st.floats(0, 1), st.integers(1, 50))
def test_jitter_shortens_a_pause_by_its_share_at_most(jitter: float, failures: int) -> None:
    longest_s = Backoff(0.5, 30.0).pause_s(failures)
    assert longest_s * (1 - jitter) <= Backoff(0.5, 30.0, jitter).pause_s(failures) <= longest_s


def test_jitter_spreads_callers() -> None:
    assert len({Backoff(1.0, 30.0, 1.0).pause_s(3) for _ in range(20)}) > 10


async def test_starts_that_fail_for_hours_keep_their_longest_pause() -> None:
    starts = StartLimiter(1)
    for _ in range(1100):
        starts.record_failure("agent", RuntimeError("no"))
    assert not starts.can_start("agent")
    until = time.monotonic() + MAX_BACKOFF_S
    assert starts._retry_monotonic["agent"] == pytest.approx(until, abs=5)
