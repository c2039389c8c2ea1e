"""Durations as templates write them: a number with a unit."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic.json_schema import WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(value: Any) -> float:
    """Return the seconds of a duration such as `500ms`, `20s`, `10m`, `1.5h` or `30d`.

    Raises ValueError for others.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError(
            "a duration is a number above 0 with a unit, such as 500ms, 20s, 10m, 2h or 30d, "
            f"not {value!r}"
        )
    return float(match[1]) * _SECONDS[match[2]]


Duration = Annotated[
    float,
    BeforeValidator(lambda v: v if isinstance(v, float) else parse_duration_s(v)),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^{_DURATION.pattern}$", "examples": ["20s", "10m"]}
    ),
]
