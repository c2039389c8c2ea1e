"""The map of the folders in CONTRIBUTING.md is that of the folders."""

from __future__ import annotations

from tools.folder_map import PAGE, folder_map, with_map


def test_the_map_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert with_map(page) == page, "run `python -m tools.folder_map`"
    assert "| `batch/journal` |" in page


def test_each_folder_says_what_it_does() -> None:
    empty = [row for row in folder_map().splitlines() if row.endswith("|  |")]
    assert empty == []
