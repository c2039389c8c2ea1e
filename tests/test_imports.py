"""Tests share helpers by `tests/support` alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(path for path in TESTS.rglob("*.py") if "fixtures" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_nothing_is_imported_from_a_conftest_or_a_test(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tests."):
            continue
        names = [*node.module.split("."), *(alias.name for alias in node.names)]  # type: ignore[union-attr]
        assert not [name for name in names if name == "conftest" or name.startswith("test_")], names
