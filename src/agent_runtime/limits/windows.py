"""Moving windows: the times of the last admissions, in memory or on Redis.

The `limits` library gives the notation. Its own moving windows ask one limit at a time (a call that
the second limit refuses has used up the first), take each process's clock, keep a list for every
key for ever in memory, and start a timer thread for a call; so the windows themselves are ours.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from agent_runtime.limits.rate_limits import Window
from agent_runtime.storage import RedisConnection


class Admission(NamedTuple):
    """`refused` is the first window that is full, None when the call is counted in all of them.

    `retry_after_s` is when that one has room again; `at` the time of the decision, by the store's
    clock.
    """

    refused: Window | None
    retry_after_s: float
    at: float


class Windows(Protocol):
    """Where admissions are remembered.

    `acquire` counts a call in all windows or, if one is full, in none.
    """

    async def acquire(self, windows: Sequence[Window]) -> Admission:
        """Count one call; raises StoreError."""

    async def aclose(self) -> None:
        """Close what was opened."""


class MemoryWindows:
    """Windows of one process. What no window contains any more is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By length of window: within one the least recently used key is the first to be empty.
        self._times: dict[int, OrderedDict[str, deque[float]]] = {}

    async def acquire(self, windows: Sequence[Window]) -> Admission:
        """Count one call."""
        with self._lock:
            now = self._clock()
            found = [self._of(window, now) for window in windows]
            for window, times in zip(windows, found, strict=True):
                if len(times) >= window.amount:
                    return Admission(window, times[0] + window.window_s - now, now)
            for window, times in zip(windows, found, strict=True):
                times.append(now)
                self._times[window.window_s][window.key] = times
                self._times[window.window_s].move_to_end(window.key)
            return Admission(None, 0.0, now)

    def _of(self, window: Window, now: float) -> deque[float]:
        kept = self._times.setdefault(window.window_s, OrderedDict())
        gone = now - window.window_s
        for _ in range(2):  # two for each that may come: all empty ones go in time
            oldest = next(iter(kept.values()), None)
            if oldest is None or (
                oldest and oldest[-1] > gone
            ):  # one may be empty: its last call was refused
                break
            kept.popitem(last=False)
        times = kept.get(window.key) or deque()
        while times and times[0] <= gone:
            times.popleft()
        return times

    @property
    def keys(self) -> int:
        """How many are remembered."""
        return sum(len(kept) for kept in self._times.values())

    async def aclose(self) -> None:
        """Nothing to close."""


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


class RedisWindows(RedisConnection):
    """Windows that processes share, by the server's clock; one round trip for any number of them.

    Their keys share a slot, since one step decides over all. See RedisConnection for the arguments.
    """

    async def acquire(self, windows: Sequence[Window]) -> Admission:
        """Count one call; raises StoreError."""
        found: Admission = await self.acall("acquire", windows)
        return found

    def _acquire(self, windows: Sequence[Window]) -> Any:
        keys = [f"{self.prefix}:{{limits}}:{window.key}" for window in windows]
        number, wait, now = yield (
            _ACQUIRE,
            keys,
            [each for w in windows for each in (w.amount, w.window_s)],
        )
        refused = windows[number - 1] if number else None
        return Admission(refused, int(wait) / 1e6, int(now) / 1e6)
