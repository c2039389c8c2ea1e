"""Which chunks hold the values of a checkpoint, as one short string: `messages=0-41,57;todo=3`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias
from urllib.parse import quote, unquote

from agent_runtime.errors import CheckpointCorrupt

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Chunk numbers in the order in which their contents join, as (first, last).

Short however long a conversation is.
"""
MAX_CHUNKS = 1_000_000
"""Most chunks of one checkpoint; a step adds one for each changed list, and reading visits each."""
MAX_NUMBER = 2**63
Refs: TypeAlias = dict[str, Ranges]
"""Chunk numbers by channel."""


def with_number(ranges: Ranges, number: int) -> Ranges:
    """Return `ranges` extended by one number."""
    if ranges and ranges[-1][1] == number - 1:
        return (*ranges[:-1], (ranges[-1][0], number))
    return (*ranges, (number, number))


def first_numbers(ranges: Ranges, count: int) -> Ranges:
    """Return the ranges of the first `count` numbers."""
    leading_ranges: list[tuple[int, int]] = []
    for first, last in ranges:
        if count <= 0:
            break
        leading_ranges.append((first, min(last, first + count - 1)))
        count -= last - first + 1
    return tuple(leading_ranges)


def numbers_in(ranges: Ranges) -> Iterator[int]:
    """Yield every number, in order."""
    for first, last in ranges:
        yield from range(first, last + 1)


def next_number(ranges: Ranges) -> int:
    """Return a number above all of `ranges`."""
    return max((last + 1 for _, last in ranges), default=0)


def format_refs(refs: Refs) -> str:
    """Return `refs` as a string."""
    return ";".join(
        f"{quote(channel, safe='')}={','.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}"
        for channel, ranges in refs.items()
    )


def parse_refs(text: str) -> Refs:
    """Return the ranges by channel.

    Raises CheckpointCorrupt for a string that `format_refs` does not make.
    """
    try:
        return _parse(text)
    except (ValueError, AttributeError) as error:
        raise CheckpointCorrupt(
            "references", f"invalid chunk references: {error}", damaged=False
        ) from error


def _parse(text: str) -> Refs:
    refs: Refs = {}
    count = 0
    for part in text.split(";") if text else ():
        channel, equals, ranges_text = part.partition("=")
        if not equals:
            raise ValueError(f"not chunk references: {part!r}")
        bounds = (
            [range_text.partition("-") for range_text in ranges_text.split(",")]
            if ranges_text
            else []
        )
        channel_ranges = tuple((int(first), int(last or first)) for first, _, last in bounds)
        if any(not 0 <= first <= last < MAX_NUMBER for first, last in channel_ranges):
            raise ValueError("not a range of chunks")
        count += sum(last - first + 1 for first, last in channel_ranges)
        if count > MAX_CHUNKS:
            raise ValueError(f"more than {MAX_CHUNKS} chunks")
        refs[unquote(channel)] = channel_ranges
    return refs
