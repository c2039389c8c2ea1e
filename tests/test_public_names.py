"""The public names: one that changes is seen, and said in the changelog."""

from __future__ import annotations

from tests.public_names import RECORD, text


def test_the_public_names_are_those_on_record() -> None:
    assert text() == RECORD.read_text(), (
        "write the change into CHANGELOG.md, then run `python -m tests.public_names --write`"
    )
