"""Which chunks hold the values of a checkpoint, as one short string: `messages=0-41,57;todo=3`."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote

Refs = dict[str, list[int]]
"""Chunk numbers by channel, in the order in which their contents join."""


def format_refs(refs: Refs) -> str:
    """The string of `refs`; consecutive numbers become ranges, so that it does not grow with a conversation."""
    return ";".join(f"{quote(channel, safe='')}={_ranges(numbers)}" for channel, numbers in refs.items())


def _ranges(numbers: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def parse_refs(text: str) -> Refs:
    """The numbers by channel; raises ValueError for a string that `format_refs` does not make."""
    refs: Refs = {}
    for part in text.split(";") if text else ():
        channel, equals, ranges = part.partition("=")
        if not equals:
            raise ValueError(f"not chunk references: {part!r}")
        numbers: list[int] = []
        for each in ranges.split(",") if ranges else ():
            first, _, last = each.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
        refs[unquote(channel)] = numbers
    return refs
