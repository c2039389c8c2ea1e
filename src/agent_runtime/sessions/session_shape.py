"""Shape of a stored session: sealed bytes may hold any value, by fault or forgery."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent_runtime.sessions.session import Session

MAX_UNIX_TIME = 253_402_300_800
"""The end of the year 9999, behind which no date can be written."""
_TEXT = (str,)
_MAP = (dict,)
_TIME = (int, float)
_TIME_OR_NONE = (int, float, type(None))
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "id": _TEXT,
    "tenant": _TEXT,
    "user_id": (str, type(None)),
    "agent": _MAP,
    "title": _TEXT,
    "metadata": _MAP,
    "status": _TEXT,
    "created_at": _TIME,
    "updated_at": _TIME,
    "expires_at": _TIME_OR_NONE,
    "ttl_s": _TIME_OR_NONE,
}
_REQUIRED = {field.name for field in dataclasses.fields(Session)[:3]}


def is_session(value: Any) -> bool:
    """Return whether a value is a session's record."""
    return (
        isinstance(value, dict)
        and value.keys() >= _REQUIRED
        and all(
            name in _FIELD_TYPES and isinstance(field_value, _FIELD_TYPES[name])
            for name, field_value in value.items()
        )
        and all(0 <= value.get(name, 0) < MAX_UNIX_TIME for name in ("created_at", "updated_at"))
    )
