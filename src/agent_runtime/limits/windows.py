"""Count calls in sliding windows: the times of the last admissions, in memory or on Redis.

One operation checks all windows of a call, so that a call refused by one of them counts in none.
The times come from one clock, the server's on Redis.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from agent_runtime.limits.rate_limits import Window
from agent_runtime.storage import RedisConnection
from agent_runtime.storage.operations import Steps, steps_operation


class Admission(NamedTuple):
    """Report an admission.

    `refused` is the first full window, None when the call is counted in all of them.
    `retry_after_s` is when that one has room again; `at` the time of the decision, by the store's
    clock.
    """

    refused: Window | None
    retry_after_s: float
    decided_at: float


class SlidingWindowStore(Protocol):
    """Store admissions. `acquire` counts a call in all windows or, if one is full, in none."""

    def acquire(self, windows: Sequence[Window]) -> Awaitable[Admission]:
        """Count one call; raises StoreError."""

    async def aclose(self) -> None:
        """Close the store."""


class MemorySlidingWindowStore:
    """Count in this process; admissions outside of every window are dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By length of window: within one the least recently used key is the first to be empty.
        self._times: dict[int, OrderedDict[str, deque[float]]] = {}

    async def acquire(self, windows: Sequence[Window]) -> Admission:
        """Count one call."""
        with self._lock:
            now = self._clock()
            times_per_window = [self._live_times(window, now) for window in windows]
            for window, times in zip(windows, times_per_window, strict=True):
                if len(times) >= window.amount:
                    return Admission(window, times[0] + window.window_s - now, now)
            for window, times in zip(windows, times_per_window, strict=True):
                times.append(now)
                self._times[window.window_s][window.key] = times
                self._times[window.window_s].move_to_end(window.key)
            return Admission(None, 0.0, now)

    def _live_times(self, window: Window, now: float) -> deque[float]:
        times_by_key = self._times.setdefault(window.window_s, OrderedDict())
        cutoff = now - window.window_s
        for _ in range(2):  # two for each admission, so that all empty ones are dropped in time
            oldest = next(iter(times_by_key.values()), None)
            if oldest is None or (
                oldest and oldest[-1] > cutoff
            ):  # one may be empty: its last call was refused
                break
            times_by_key.popitem(last=False)
        times = times_by_key.get(window.key) or deque()
        while times and times[0] <= cutoff:
            times.popleft()
        return times

    @property
    def key_count(self) -> int:
        """Return how many keys are stored."""
        return sum(len(times_by_key) for times_by_key in self._times.values())

    async def aclose(self) -> None:
        """Do nothing: there is no resource to close."""


_ACQUIRE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function int(n) return string.format('%.0f', n) end
for n, key in ipairs(KEYS) do
  local last = redis.call('LINDEX', key, ARGV[2 * n - 1] - 1)
  local free = last and tonumber(last) + ARGV[2 * n] * 1000000 or 0
  if free > now then return {n, int(free - now), int(now)} end
end
for n, key in ipairs(KEYS) do
  redis.call('LPUSH', key, int(now))
  redis.call('LTRIM', key, 0, ARGV[2 * n - 1] - 1)
  redis.call('EXPIRE', key, ARGV[2 * n] + 1)
end
return {0, '0', int(now)}
"""


class RedisSlidingWindowStore(RedisConnection):
    """Share windows across processes, by the server's clock; one round trip for any number of them.

    Their keys share a slot, since one script decides over all. The arguments are RedisConnection's.
    """

    @steps_operation
    def acquire(self, windows: Sequence[Window]) -> Steps[Admission]:
        """Count one call; raises StoreError."""
        keys = [f"{self.prefix}:{{limits}}:{window.key}" for window in windows]
        number, wait_us, now_us = yield (
            _ACQUIRE,
            keys,
            [script_argument for w in windows for script_argument in (w.amount, w.window_s)],
        )
        refused = windows[number - 1] if number else None
        return Admission(refused, int(wait_us) / 1e6, int(now_us) / 1e6)
