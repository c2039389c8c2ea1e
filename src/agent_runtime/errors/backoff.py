"""Compute the pauses between attempts at something that fails."""

from __future__ import annotations

import random
from dataclasses import dataclass

_MAX_DOUBLINGS = 64
"""Beyond it no pause grows; 2 ** 1024 is no float any more."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Double the pause with each failure, from `initial_s` up to `max_s` seconds.

    `jitter` is the share of each pause that is drawn at random, so that many callers do not return
    at once: 0 draws none, 1 the whole pause ("full jitter", AWS Architecture Blog, "Exponential
    Backoff And Jitter").
    """

    initial_s: float
    max_s: float
    jitter: float = 0.0

    def pause_s(self, failures: int) -> float:
        """Return the seconds to wait after `failures` in a row, at least 1."""
        longest_s = min(self.initial_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), self.max_s)
        return longest_s * (1 - self.jitter * random.random())  # noqa: S311 - no secret
