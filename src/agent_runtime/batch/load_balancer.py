"""Which of several backends gets the next task."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent_runtime.batch.backends import Backend
from agent_runtime.errors import ConfigurationError

Strategy: TypeAlias = Literal["least_busy", "round_robin", "weighted"]


@dataclass(slots=True)
class Seat:
    """A backend and its running tasks; `credit` belongs to the weighted strategy."""

    backend: Backend
    busy: int = 0
    credit: float = 0.0

    @property
    def free(self) -> bool:
        """Whether it takes another task."""
        return self.backend.slots is None or self.busy < self.backend.slots

    @property
    def load(self) -> float:
        """How busy it is, for its size; one without a size counts by its weight."""
        return self.busy / (self.backend.slots or self.backend.weight)


class Scheduler:
    """Hands out seats.

    `least_busy`: the one with the smallest share of its slots in use; `round_robin`: in turn;
    `weighted`: each by its weight, evenly spread (nginx's smooth weighted round robin). A backend
    whose slots are all in use is passed over.

    Raises ConfigurationError for no backend, or a weight that is not above 0.
    """

    def __init__(self, backends: Sequence[Backend], strategy: Strategy = "least_busy") -> None:
        if not backends or any(not each.weight > 0 for each in backends):
            raise ConfigurationError(
                "a batch needs at least one backend, each with a weight above 0"
            )
        self.seats = [Seat(backend) for backend in backends]
        self._strategy = strategy
        self._turn = 0
        self._waiting: deque[asyncio.Future[Seat]] = deque()

    @property
    def slots(self) -> int | None:
        """How many tasks all backends take at once; None when one of them has no bound."""
        slots = [seat.backend.slots for seat in self.seats]
        return None if None in slots else sum(each for each in slots if each is not None)

    def take(self) -> Seat | None:
        """The seat for the next task, or None when all are full; give it back by `leave`.

        Nobody gets past those who wait: a seat that gets free is theirs before it can be taken.
        """
        free = (
            self.seats
            if len(self.seats) == 1 and self.seats[0].free
            else [s for s in self.seats if s.free]
        )
        if not free:
            return None
        seat = free[0] if len(free) == 1 else self._chosen(free)
        seat.busy += 1
        return seat

    def _chosen(self, free: list[Seat]) -> Seat:
        if self._strategy == "least_busy":
            return min(free, key=lambda seat: seat.load)
        if self._strategy == "round_robin":
            while not self.seats[self._turn % len(self.seats)].free:
                self._turn += 1
            self._turn += 1
            return self.seats[(self._turn - 1) % len(self.seats)]
        for seat in free:
            seat.credit += seat.backend.weight
        best = max(free, key=lambda seat: seat.credit)
        best.credit -= sum(seat.backend.weight for seat in free)
        return best

    async def acquire(self) -> Seat:
        """`take`, after a wait if need be.

        Several executions share the backends, and are served in turn.
        """
        if (seat := self.take()) is not None:
            return seat
        given: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.leave(given.result())
            raise

    def leave(self, seat: Seat) -> None:
        """The task has ended: its place goes to who has waited longest."""
        while self._waiting:
            if not (given := self._waiting.popleft()).done():
                given.set_result(seat)
                return
        seat.busy -= 1
