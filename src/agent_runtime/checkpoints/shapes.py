"""Shapes of stored values: sealed bytes may hold any value, by fault or forgery."""

from __future__ import annotations

import datetime as dt
from typing import Any

_CHECKPOINT_FIELD_TYPES = {"id": str, "channel_versions": dict, "versions_seen": dict}


def is_checkpoint_row(value: Any) -> bool:
    """Return whether a value is a checkpoint's row.

    A row has the checkpoint, its metadata, its references, its list channels, digests.
    """
    if not isinstance(value, list) or len(value) < 4:
        return False
    checkpoint, metadata, refs, lists, *digests = value
    return (
        _is_checkpoint(checkpoint)
        and _is_metadata(metadata)
        and isinstance(refs, str)  # they are parsed, and refused, where they are used
        and isinstance(lists, list)
        and all(isinstance(channel, str) for channel in lists)
        and all(isinstance(digest, bytes) for digest in digests)
    )


def _is_checkpoint(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), kind) for name, kind in _CHECKPOINT_FIELD_TYPES.items())
        and len({type(version) for version in value["channel_versions"].values()}) <= 1
        and all(
            isinstance(version, int | float | str) for version in value["channel_versions"].values()
        )
        and all(isinstance(versions, dict) for versions in value["versions_seen"].values())
        and isinstance(value.get("updated_channels") or [], list)
    )


def _is_metadata(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("step") or 0, int)
        and all(
            isinstance(value.get(name) or {}, dict)
            for name in ("parents", "counters_since_delta_snapshot")
        )
    )


def is_write(value: Any) -> bool:
    """Return whether a value is a task's write: a channel and a value."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def is_item(value: Any) -> bool:
    """Tell whether it is a memory item: value, times of creation and change, expiry."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and isinstance(value[0], dict)
        and all(isinstance(timestamp, dt.datetime) for timestamp in value[1:3])
        and (value[3] is None or isinstance(value[3], int | float))
    )
