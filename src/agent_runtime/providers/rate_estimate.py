"""How many calls a second an account allows, learned from the answers of its provider."""

from __future__ import annotations

from agent_runtime.providers.errors import status_of

EVIDENCE = 10
"""So many calls have to have been answered before a refusal tells a pace."""
BELOW = 0.97
"""Of the pace at which a refusal came."""
FIRST_STEP = 0.01
LARGEST_STEP = 0.25
"""What the first clean window after a refusal adds; each further one adds twice as much."""
STEP_CALLS = 50
"""A window is at least so many calls long: a slow account is not probed more often than a fast one.
"""
IDLE_S = 15.0
"""After so long without a call, what was answered before says nothing of the pace."""
STEP_S = 60.0
FASTEST = 10_000.0
"""A pace above it bounds nothing."""
BURST = 3
"""Calls that were late may be made up for, but not more of them at once."""


class Pace:
    """A bound on how often calls begin, for accounts that allow so many in a time.

    How many calls are in flight does not steer such an account: a fast model exceeds it one call at
    a time. A 429 that says when to come again tells the pace: what was answered since the last
    pause, over the time until then. Calls then begin a little slower, and faster again after each
    window without a refusal: by little near the limit, and by more and more when nobody says no.
    `rate` is None while nothing is known.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._step = FIRST_STEP
        self._began_s: float | None = None
        self._answered = self._in_window = 0
        self._next_s = self._raised_s = self._last_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long the next call has to wait, 0 for not at all."""
        return 0.0 if self.rate is None else max(0.0, self._next_s - now_s)

    def begun(self, now_s: float) -> None:
        """A call begins."""
        if self._began_s is None or now_s - self._last_s > IDLE_S:
            self._began_s = now_s
            self._answered = 0
        self._last_s = now_s
        if self.rate is not None:
            self._next_s = max(self._next_s, now_s - BURST / self.rate) + 1 / self.rate

    def answered(self, now_s: float, window_s: float) -> None:
        """A call was answered; after a clean window the pace rises."""
        self._answered += 1
        self._in_window += 1
        window_s = max(window_s, STEP_S) if self._in_window < STEP_CALLS else window_s
        if self.rate is not None and now_s - self._raised_s >= window_s:
            self.rate = None if self.rate > FASTEST else self.rate * (1 + self._step)
            self._step = min(2 * self._step, LARGEST_STEP)
            self._raised_s = now_s
            self._in_window = 0

    def refused(self, error: BaseException, now_s: float, retry_after_s: float | None) -> bool:
        """A call was refused: whether that told a pace.

        One that says no time, or comes too early, tells none.
        """
        if status_of(error) != 429 or not retry_after_s or self._began_s is None:
            return False
        answered = self._answered
        elapsed_s = now_s - self._began_s + retry_after_s
        if answered >= EVIDENCE:
            self.rate = BELOW * answered / elapsed_s
        elif self.rate is None:
            return False
        elif answered:  # too few to be measured: it was too fast all the same
            self.rate *= BELOW
        self._began_s = None
        self._answered = 0
        self._in_window = 0
        self._step = FIRST_STEP
        self._raised_s = now_s + retry_after_s
        self._next_s = now_s + retry_after_s
        return True
