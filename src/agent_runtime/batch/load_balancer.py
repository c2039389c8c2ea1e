"""Which of several backends gets the next task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent_runtime.batch.backends import Backend
from agent_runtime.errors import ConfigurationError
from agent_runtime.storage.fair_waiters import FairWaiters

Strategy: TypeAlias = Literal["least_busy", "round_robin", "weighted"]


@dataclass(slots=True)
class BackendSlot:
    """A backend and its running tasks; `current_weight` belongs to the weighted strategy."""

    backend: Backend
    running_tasks: int = 0
    current_weight: float = 0.0

    @property
    def has_capacity(self) -> bool:
        """Return whether it can run another task."""
        return self.backend.slots is None or self.running_tasks < self.backend.slots

    @property
    def load(self) -> float:
        """Return its load relative to its size; one without a size counts by its weight."""
        return self.running_tasks / (self.backend.slots or self.backend.weight)


class LoadBalancer:
    """Assign tasks to backends.

    `least_busy`: the one with the smallest share of its slots in use; `round_robin`: in turn;
    `weighted`: by weight, evenly spread (nginx's smooth weighted round robin). Full backends are
    skipped. Raises ConfigurationError for an empty list, or a weight that is not above 0.
    """

    def __init__(self, backends: Sequence[Backend], strategy: Strategy = "least_busy") -> None:
        if not backends or any(not candidate.weight > 0 for candidate in backends):
            raise ConfigurationError(
                "a batch needs at least one backend, each with a weight above 0"
            )
        self.backend_slots = [BackendSlot(backend) for backend in backends]
        self._strategy = strategy
        self._next_index = 0
        self._waiters: FairWaiters[BackendSlot] = FairWaiters(self.release)

    @property
    def capacity(self) -> int | None:
        """Return how many tasks all backends run at once; None when one of them is unlimited."""
        slots = [slot.backend.slots for slot in self.backend_slots]
        return (
            None
            if None in slots
            else sum(slot_count for slot_count in slots if slot_count is not None)
        )

    def acquire_nowait(self) -> BackendSlot | None:
        """Return a slot for the next task, or None when all are full; `release` gives it back.

        Waiters go first: a free slot is theirs before a newcomer can take it.
        """
        available = (
            self.backend_slots
            if len(self.backend_slots) == 1 and self.backend_slots[0].has_capacity
            else [s for s in self.backend_slots if s.has_capacity]
        )
        if not available:
            return None
        slot = available[0] if len(available) == 1 else self._select(available)
        slot.running_tasks += 1
        return slot

    def _select(self, available: list[BackendSlot]) -> BackendSlot:
        if self._strategy == "least_busy":
            return min(available, key=lambda slot: slot.load)
        if self._strategy == "round_robin":
            while not self.backend_slots[self._next_index % len(self.backend_slots)].has_capacity:
                self._next_index += 1
            self._next_index += 1
            return self.backend_slots[(self._next_index - 1) % len(self.backend_slots)]
        for slot in available:
            slot.current_weight += slot.backend.weight
        best = max(available, key=lambda slot: slot.current_weight)
        best.current_weight -= sum(slot.backend.weight for slot in available)
        return best

    async def acquire(self) -> BackendSlot:
        """Return a slot, after a wait if all are full.

        Several executions share the backends, and are served in turn.
        """
        if (slot := self.acquire_nowait()) is not None:
            return slot
        return await self._waiters.wait()

    def release(self, slot: BackendSlot) -> None:
        """Release a task's slot to the longest waiter."""
        if not self._waiters.hand_over(slot):
            slot.running_tasks -= 1
