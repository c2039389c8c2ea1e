"""The shapes of what is stored: sealed bytes may hold any value, by a fault or by a forger's hand."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from agent_runtime.errors import CheckpointCorrupt
from agent_runtime.sessions.chunk_refs import parse_refs
from agent_runtime.sessions.session import Session

_CHECKPOINT = {"id": str, "channel_versions": dict, "versions_seen": dict}
_TEXT = (str,)
_MAP = (dict,)
_TIME = (int, float)
_TIME_OR_NONE = (int, float, type(None))
_SESSION: dict[str, tuple[type, ...]] = {
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


def is_row(value: Any) -> bool:
    """Whether it is a checkpoint's row: the checkpoint, its metadata, its references, its list channels, digests."""
    if not isinstance(value, list) or len(value) < 4:
        return False
    checkpoint, metadata, refs, lists, *digests = value
    return (
        isinstance(checkpoint, dict)
        and all(isinstance(checkpoint.get(name), kind) for name, kind in _CHECKPOINT.items())
        and isinstance(metadata, dict)
        and _are_refs(refs)
        and isinstance(lists, list)
        and all(isinstance(each, str) for each in lists)
        and all(isinstance(each, bytes) for each in digests)
    )


def _are_refs(value: Any) -> bool:
    try:
        parse_refs(value)
    except CheckpointCorrupt:
        return False
    return True


def is_write(value: Any) -> bool:
    """Whether it is what a task wrote: a channel and a value."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def is_session(value: Any) -> bool:
    """Whether it is a session's record."""
    return (
        isinstance(value, dict)
        and value.keys() >= _REQUIRED
        and all(name in _SESSION and isinstance(each, _SESSION[name]) for name, each in value.items())
    )


def is_item(value: Any) -> bool:
    """Whether it is an item of a memory: its value, when it was made and changed, its time to live."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and isinstance(value[0], dict)
        and all(isinstance(each, dt.datetime) for each in value[1:3])
        and (value[3] is None or isinstance(value[3], int | float))
    )
