"""Read an account's remaining limits from the headers of answers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime

_LIMIT_HEADERS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
)
"""Headers with the remaining amount, and the time of its reset."""


def pause_s(headers: Mapping[str, str], in_flight: int = 0) -> float | None:
    """Return the seconds until an exhausted limit resets, or None.

    `in_flight` calls will use up remaining requests.
    """
    pauses = [
        _reset_s(headers.get(reset))
        for remaining, reset in _LIMIT_HEADERS
        if (remaining_count := headers.get(remaining, "").strip()).isdecimal()
        and int(remaining_count[:12]) <= (in_flight if "requests" in remaining else 0)
    ]
    return max((wait_s for wait_s in pauses if wait_s is not None), default=None)


def _reset_s(text: str | None) -> float | None:
    """Return seconds from now: `6m0s`, `20ms`, `1.5` or a time (RFC 3339)."""
    if not text:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    if re.fullmatch(r"(\d+(\.\d+)?(ms|[dhms]))+", text):
        return sum(
            float(n) * units[unit] for n, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|[dhms])", text)
        )
    try:
        return max(
            0.0, datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() - time.time()
        )
    except (ValueError, TypeError):
        return None
