"""Whether a secret is one: long enough, and not a pattern that a person typed."""

from __future__ import annotations

import itertools

MIN_SECRET_BYTES = 32
MIN_DISTINCT_BYTES = 8
"""Of 32 random bytes 30 differ, of 32 hexadecimal digits 14.

Fewer than eight are a word or a keyboard's row.
"""
_GENERATE_HINT = "make one with `openssl rand -base64 48`"


def weakness_of(secret: bytes, min_bytes: int = MIN_SECRET_BYTES) -> str | None:
    """Return why a secret could be guessed, or None; the reason quotes nothing of it.

    It is too short, is made of few different bytes, repeats a shorter one, or counts up or down.
    """
    if len(secret) < min_bytes:
        return f"it has at least {min_bytes} bytes, not {len(secret)}"
    if len(set(secret)) < MIN_DISTINCT_BYTES:
        return f"it is made of {len(set(secret))} different characters: {_GENERATE_HINT}"
    if any(secret.startswith(secret[period:]) for period in range(1, len(secret) // 2 + 1)):
        return f"it repeats itself: {_GENERATE_HINT}"
    steps = [after - before for before, after in itertools.pairwise(secret)]
    if sum(step in (1, -1, 0) for step in steps) > len(steps) // 2:
        return f"its characters follow one another in order: {_GENERATE_HINT}"
    return None
