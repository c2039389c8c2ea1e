"""Counts habits of language in the sources, by file, and holds them below ceilings that only fall.

    python -m tests.language            print the sums
    python -m tests.language --lower    write lower ceilings where the counts have fallen

The counts are of syntax trees and of text, so they need no judgement; `language_ceilings.txt` has a
line for each file and habit whose count is not zero.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "agent_runtime"
CEILINGS = Path(__file__).parent / "language_ceilings.txt"
COLUMNS = 100

_PRIVATE = frozenset(
    "found each made kept given known wanted said told shown asked left mine own place heard gone "
    "begun taken held seen meant whose".split()
)
_TEXTS = {
    "noun_clause": r"\b[Ww]hat (?:is|was|were|are|has|had|have|they|it|an?|the|this|comes|becomes|"
    r"goes|may|can|must|else)\b",
    "nobody": r"\b(?:no|some|any)body\b",
    "see_docstring": r'"""See [^"]{1,40}\."""',
    "goes_on": r"\b(?:go|goes|going) on\b",
    "is_none": r"\b(?:is|are|of) none\b",
    "so_many": r"\bso (?:many|long|often)\b",
    "anew": r"\banew\b",
}


def counts_of(source: str) -> dict[str, int]:
    """Return how often each habit stands in a file; habits that do not are left out."""
    tree = ast.parse(source)
    lines = [line for line in source.splitlines() if line.strip()]
    counts = {
        "private_names": sum(name in _PRIVATE for name in _names_of(tree)),
        "parallel_assignments": sum(_is_parallel(node) for node in ast.walk(tree)),
        "wide_lines": sum(
            len(line) > COLUMNS for line in lines if not line.strip().startswith("#")
        ),
    }
    counts |= {habit: len(re.findall(pattern, source)) for habit, pattern in _TEXTS.items()}
    return {habit: count for habit, count in counts.items() if count}


def _names_of(tree: ast.Module) -> list[str]:
    nodes = list(ast.walk(tree))
    stored = [
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    return stored + [node.arg for node in nodes if isinstance(node, ast.arg)]


def _is_parallel(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(target, ast.Tuple) for target in node.targets)
    )


def all_counts() -> dict[tuple[str, str], int]:
    """Return the counts by file and habit."""
    return {
        (str(path.relative_to(SOURCES)), habit): count
        for path in sorted(SOURCES.rglob("*.py"))
        for habit, count in counts_of(path.read_text()).items()
    }


def ceilings() -> dict[tuple[str, str], int]:
    """Return the ceilings by file and habit."""
    entries = (line.split() for line in CEILINGS.read_text().splitlines())
    return {(path, habit): int(count) for path, habit, count in entries}


def write_ceilings(counts: dict[tuple[str, str], int]) -> None:
    """Write counts as ceilings."""
    lines = [f"{path} {habit} {count}\n" for (path, habit), count in sorted(counts.items())]
    CEILINGS.write_text("".join(lines))


def main(*arguments: str) -> int:
    """Print the sums of the counts; with `--lower`, take counts that have fallen as ceilings."""
    counts = all_counts()
    for habit in sorted({habit for _, habit in counts}):
        print(f"{habit}: {sum(count for (_, name), count in counts.items() if name == habit)}")
    if "--lower" in arguments:
        allowed = ceilings()
        write_ceilings(
            {
                key: min(count, allowed.get(key, 0))
                for key, count in counts.items()
                if key in allowed
            }
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
