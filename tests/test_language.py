"""The habits of language that the sources may not take up again."""

from __future__ import annotations

import pytest

from tests.language import all_counts, ceilings, counts_of


def test_no_file_has_more_of_a_habit_than_its_ceiling() -> None:
    allowed = ceilings()
    above = {key: count for key, count in all_counts().items() if count > allowed.get(key, 0)}
    assert above == {}, (
        "write it plainly: the field's word, one statement a line, at most 100 columns"
    )


def test_a_ceiling_falls_with_its_count() -> None:
    counts = all_counts()
    below = {key: count for key, count in ceilings().items() if counts.get(key, 0) < count}
    assert below == {}, "run `python -m tests.language --lower`"


@pytest.mark.parametrize(
    ("source", "habit"),
    [
        ("found = 1", "private_names"),
        ("for each in (): pass", "private_names"),
        ("def run(given): pass", "private_names"),
        ("[kept for kept in ()]", "private_names"),
        ("a, b = 1, 2", "parallel_assignments"),
        ("x = '" + "y" * 100 + "'", "wide_lines"),
        ('"""What is left of it."""', "noun_clause"),
        ('"""See Base."""', "see_docstring"),
        ("# nobody waits", "nobody"),
    ],
)
def test_each_habit_is_counted(source: str, habit: str) -> None:
    assert counts_of(source)[habit] == 1


def test_plain_code_has_no_habit() -> None:
    assert counts_of("first, rest = pair\nforecast = knowledge + 1  # seen from outside\n") == {}
