"""How many calls a second an account allows, learned from the answers of its provider."""

from __future__ import annotations

from agent_runtime.providers.errors import status_of

MIN_SUCCESSES = 10
"""Successful calls before a refusal reveals a rate."""
BACKOFF_FACTOR = 0.97
"""Of the pace at which a refusal came."""
FIRST_STEP = 0.01
LARGEST_STEP = 0.25
"""Increase after the first clean window; each further one adds twice as much."""
MIN_WINDOW_CALLS = 50
"""Shortest window in calls: a slow account is not probed more often than a fast one."""
IDLE_S = 15.0
"""Seconds without a call after which earlier answers reveal nothing of the rate."""
MIN_WINDOW_S = 60.0
MAX_RATE = 10_000.0
"""A pace above it bounds nothing."""
MAX_BURST = 3
"""Most late calls that are made up for at once."""


class RateEstimator:
    """Estimate how often calls may start, for accounts with a limit per time.

    A limit of concurrent calls does not help such an account: a fast model exceeds it one call at a
    time. A 429 with a Retry-After reveals the rate: the answers since the last pause, over the time
    until then. Calls then start slightly slower, and faster again after each window without a
    refusal: slowly near the limit, and increasingly without refusals. `rate` is None while it is
    unknown.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._step = FIRST_STEP
        self._measuring_since: float | None = None
        self._success_count = self._window_success_count = 0
        self._next_start = self._last_raise = self._last_start = 0.0

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the next call may start."""
        return 0.0 if self.rate is None else max(0.0, self._next_start - now_s)

    def on_start(self, now_s: float) -> None:
        """Record the start of a call."""
        if self._measuring_since is None or now_s - self._last_start > IDLE_S:
            self._measuring_since = now_s
            self._success_count = 0
        self._last_start = now_s
        if self.rate is not None:
            self._next_start = max(self._next_start, now_s - MAX_BURST / self.rate) + 1 / self.rate

    def on_success(self, now_s: float, window_s: float) -> None:
        """Record a success; the rate rises after a clean window."""
        self._success_count += 1
        self._window_success_count += 1
        window_s = (
            max(window_s, MIN_WINDOW_S)
            if self._window_success_count < MIN_WINDOW_CALLS
            else window_s
        )
        if self.rate is not None and now_s - self._last_raise >= window_s:
            self.rate = None if self.rate > MAX_RATE else self.rate * (1 + self._step)
            self._step = min(2 * self._step, LARGEST_STEP)
            self._last_raise = now_s
            self._window_success_count = 0

    def on_reject(self, error: BaseException, now_s: float, retry_after_s: float | None) -> bool:
        """Record a refusal.

        Return whether it revealed a rate, which needs a time and earlier answers.
        """
        if status_of(error) != 429 or not retry_after_s or self._measuring_since is None:
            return False
        success_count = self._success_count
        elapsed_s = now_s - self._measuring_since + retry_after_s
        if success_count >= MIN_SUCCESSES:
            self.rate = BACKOFF_FACTOR * success_count / elapsed_s
        elif self.rate is None:
            return False
        elif success_count:  # too few to be measured: it was too fast all the same
            self.rate *= BACKOFF_FACTOR
        self._measuring_since = None
        self._success_count = 0
        self._window_success_count = 0
        self._step = FIRST_STEP
        self._last_raise = now_s + retry_after_s
        self._next_start = now_s + retry_after_s
        return True
