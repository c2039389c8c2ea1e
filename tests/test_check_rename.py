"""The check of a rename: what it lets pass, and what it does not."""

from __future__ import annotations

import ast

import pytest
from tools.check_rename import compare


def problems(before: str, after: str) -> list[str]:
    return compare(ast.parse(before), ast.parse(after))[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(x):\n    found = x\n    return found", "def f(x):\n    row = x\n    return row"),
        ("[each for each in a]\n[each for each in b]", "[row for row in a]\n[key for key in b]"),
        ("class A:\n    def m(self): return self.n", "class B:\n    def o(self): return self.p"),
        ("from a import made, new\nmade(new)", "from a import build, kept\nkept(build)"),
        ("try:\n    f()\nexcept E as e:\n    g(e)", "try:\n    f()\nexcept E as err:\n    g(err)"),
    ],
)
def test_a_rename_passes(before: str, after: str) -> None:
    assert problems(before, after) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Two variables become one.
        ("found = 1\nrow = 2\nprint(found)", "row = 1\nrow = 2\nprint(row)"),
        # A builtin is hidden.
        ("def f(x):\n    n = x\n    return len(n)", "def f(x):\n    len = x\n    return len(len)"),
        # One of two uses is another variable.
        ("a = 1\nb = 2\nprint(a, a)", "a = 1\nb = 2\nprint(a, b)"),
        # A text, a number or the order of statements changes.
        ("print('a')", "print('b')"),
        ("print(1)", "print(2)"),
        ("a()\nif b: c()", "if b: c()\na()"),
    ],
)
def test_what_is_more_than_a_rename_does_not(before: str, after: str) -> None:
    assert problems(before, after) != []
