"""JSON that means one thing: a name that stands twice is refused, because readers differ on which one counts."""

from __future__ import annotations

import json
from typing import Any


def loads_unique(data: str | bytes) -> Any:
    """Parse JSON; raises ValueError for text that is none, and for an object with a name twice."""
    return json.loads(data, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return value
