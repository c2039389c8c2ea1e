"""Validate groups, positions and events for every broker."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.event_bus.event import Event

_GROUP = re.compile(r"[A-Za-z0-9_-]{1,128}")


def validate_group_name(group: str) -> str:
    """Return the name if every broker accepts it; raises ConfigurationError."""
    if not _GROUP.fullmatch(group):
        raise ConfigurationError(
            f"a group's name is 1 to 128 ASCII letters, digits, '_' and '-', not {group[:140]!r}"
        )
    return group


def parse_offset(position: str) -> int:
    """Return the number of a position; raises InputInvalid."""
    if not position.isdecimal() or len(position) > 18:
        raise InputInvalid(f"not a position of this log: {position[:40]!r}", "after")
    return int(position)


def validate_events(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events if each has a sequence number or an id, and valid names.

    Raises InputInvalid.
    """
    for event in events:
        if not event.seq and not event.own_id:
            message = (
                f"the event '{event.type}' has no place yet: publish it on an EventBus, or stamp it"
            )
            raise InputInvalid(message, "seq")
        try:
            f"{event.id}{event.stream}{event.run_id}{event.user_id}{event.agent}{event.type}".encode()
        except UnicodeEncodeError:
            raise InputInvalid("the names of an event are text, whole characters", "id") from None
    return events
