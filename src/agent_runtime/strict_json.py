"""Parse JSON strictly: duplicate names are refused, because parsers differ on which one counts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


class DuplicateName(ValueError):
    """An object has one name twice."""


def loads_unique(data: str | bytes | bytearray) -> Any:
    """Parse JSON.

    Raises DuplicateName for an object with a name twice, ValueError for text that is no JSON.
    """
    return json.loads(data, object_pairs_hook=_reject_duplicates)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        (double, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise DuplicateName(f"the name {double[:40]!r} appears twice in an object")
    return value
