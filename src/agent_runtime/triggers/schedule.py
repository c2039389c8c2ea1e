"""Schedules: a `schedule.due` event at each moment that a rule's cron expression names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Self
from zoneinfo import ZoneInfo

from agent_runtime.event_bus import Event, EventBus
from agent_runtime.triggers.rules import TriggerRule

MAX_SLEEP_S = 30.0  # reads the clock again, after a change or a suspension of the machine


def now() -> datetime:
    """Return the time for schedules."""
    return datetime.now(UTC)


class Schedules:
    """Publishes `schedule.due` for each rule with a schedule, from now on.

    A moment that passed while nothing ran is not made up for; of several that passed at once (the
    machine slept) only the last is due. The event's id is made of the rule and the moment: where
    several processes run the same rules on one broker, it is the same event.
    """

    def __init__(
        self, bus: EventBus, rules: Sequence[TriggerRule], clock: Callable[[], datetime] = now
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._rules = [rule for rule in rules if rule.schedule is not None]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._run_schedule(rule), name=f"schedule {rule.name}")
            for rule in self._rules
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run_schedule(self, rule: TriggerRule) -> None:
        moments = due_moments(rule, self._clock())
        due = next(moments, None)
        while due is not None:
            remaining_s = (due - self._clock()).total_seconds()
            if remaining_s > 0:
                await asyncio.sleep(min(remaining_s, MAX_SLEEP_S))
                continue
            following = next(moments, None)
            while following is not None and following <= self._clock():
                due = following
                following = next(moments, None)
            self.publish(rule, due)
            due = following

    def publish(self, rule: TriggerRule, due: datetime) -> None:
        """Say that the rule's moment has come."""
        due_s = due.timestamp()
        data = {"schedule": rule.name, "due_s": due_s, "due": due.isoformat()}
        self._bus.publish(
            Event(
                "schedule.due", data, tenant=rule.tenant, own_id=f"schedule:{rule.name}:{due_s:.0f}"
            )
        )


def due_moments(rule: TriggerRule, after: datetime) -> Any:
    """Yield the times of a rule's schedule after `after`, in its time zone."""
    from cronsim import CronSim

    return CronSim(rule.schedule or "", after.astimezone(ZoneInfo(rule.timezone)))
