"""The time that deletions go by.

A wall clock that was set wrong for a while must delete nothing for good.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Self

from agent_runtime.storage.process_identity import boot_id, boot_s

TOLERANCE_S = 60.0
"""A wall clock that moves ahead by less than this, against the boot clock, is only corrected."""
CONFIRM_S = 3600.0
"""Seconds by the boot clock after which a jump ahead of the wall clock is trusted."""


@dataclass(frozen=True, slots=True)
class ClockState:
    """Track a wall clock.

    `offset_s` is wall minus boot time, None while it is unknown for this boot. `candidate_s` is an
    offset first seen at `candidate_since_s` (boot time) and not confirmed yet. `latest_s` is the
    latest trusted wall time.
    """

    boot: str
    offset_s: float | None
    latest_s: float
    candidate_s: float | None = None
    candidate_since_s: float = 0.0

    @classmethod
    def for_new_store(cls, wall_s: float) -> Self:
        """Start with the present clock: an empty store has nothing to lose."""
        return cls(boot_id(), wall_s - boot_s(), wall_s)

    @classmethod
    def for_existing_store(cls, wall_s: float) -> Self:
        """Start with the clock as a candidate: the store's data may be newer than the clock."""
        return cls(boot_id(), None, 0.0, wall_s - boot_s(), boot_s())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the result of `to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return all fields as JSON."""
        return json.dumps(asdict(self))

    def observe(self, wall_s: float) -> Self:
        """Return the state after another reading of the clock."""
        boot_now_s = boot_s()
        offset_s = wall_s - boot_s()
        if self.boot != boot_id():
            return replace(
                self,
                boot=boot_id(),
                offset_s=None,
                candidate_s=offset_s,
                candidate_since_s=boot_now_s,
            )
        if self.offset_s is not None and offset_s <= self.offset_s + TOLERANCE_S:
            return replace(
                self, offset_s=offset_s, latest_s=max(self.latest_s, wall_s), candidate_s=None
            )
        if self.candidate_s is None or abs(offset_s - self.candidate_s) > TOLERANCE_S:
            return replace(self, candidate_s=offset_s, candidate_since_s=boot_now_s)
        if boot_now_s - self.candidate_since_s < CONFIRM_S:
            return self
        return replace(self, offset_s=offset_s, latest_s=wall_s, candidate_s=None)

    def deletion_time(self, wall_s: float) -> float:
        """Return the wall time, in Unix seconds, up to which expired data may be deleted."""
        if self.offset_s is None:
            return min(wall_s, self.latest_s)
        return min(wall_s, boot_s() + self.offset_s)


class ProcessClock:
    """Provide the deletion time of data in this process's memory."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._state = ClockState.for_new_store(clock())

    def deletion_time(self) -> float:
        """Look at the clock and return the time that deletions may rely on."""
        wall_s = self._clock()
        self._state = self._state.observe(wall_s)
        return self._state.deletion_time(wall_s)
