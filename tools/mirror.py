"""Measure how many modules have a test file of their name that alone covers most of its branches.

    make mirror            # runs the suite with coverage, which takes about twice as long
    python -m tools.mirror .coverage.mirror

Prints each module that misses the bar, with the share that its test file covers and the test file
that covers most, and the share of modules that meet it. Exits with 1 below the bar.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import defaultdict
from pathlib import Path

import coverage
from coverage.parser import PythonParser

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src/agent_runtime"
TESTS = ROOT / "tests/agent_runtime"
BRANCHES = 0.7
"""Share of a module's branches that its own test file covers."""
MODULES = 0.7
"""Share of modules that have such a file."""


def branches_of(path: Path, exclude: str) -> set[tuple[int, int]]:
    """Return the branches of a module: jumps from lines that have several."""
    parser = PythonParser(text=path.read_text(), filename=str(path), exclude=exclude)
    parser.parse_source()
    exits = parser.exit_counts()
    return {(start, end) for start, end in parser.arcs() if start > 0 and exits.get(start, 0) > 1}


def arcs_by_test(data_file: str) -> dict[str, dict[str, set[tuple[int, int]]]]:
    """Return the executed jumps of each module by test file, both relative to their folders."""
    query = (
        "SELECT file.path, context.context, fromno, tono FROM arc "
        "JOIN file ON file.id = arc.file_id JOIN context ON context.id = arc.context_id"
    )
    arcs: dict[str, dict[str, set[tuple[int, int]]]] = defaultdict(lambda: defaultdict(set))
    for path, context, start, end in sqlite3.connect(data_file).execute(query):
        test = context.partition("::")[0].removeprefix("tests/agent_runtime/")
        module = path.partition("src/agent_runtime/")[2]
        arcs[module][test].add((start, end))
    return arcs


def main(data_file: str) -> int:
    """Print the modules below the bar and the share of those that meet it."""
    settings = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
    exclude = "|".join(f"(?:{line})" for line in settings.get_exclude_list("exclude"))
    arcs = arcs_by_test(data_file)
    met = 0
    modules = 0
    for path in sorted(SOURCES.rglob("*.py")):
        branches = branches_of(path, exclude)
        if not branches:
            continue
        modules += 1
        module = path.relative_to(SOURCES)
        own = str(module.with_name(f"test_{module.name}"))
        covered = {
            test: len(branches & executed) / len(branches)
            for test, executed in arcs[str(module)].items()
            if test.endswith(".py")
        }
        if covered.get(own, 0.0) >= BRANCHES:
            met += 1
            continue
        best = max(covered, key=lambda test: covered[test], default="none")
        exists = f"{covered.get(own, 0.0):.0%}" if (TESTS / own).exists() else "no file"
        print(f"{module}: {exists}; most {covered.get(best, 0.0):.0%} by {best}")
    print(f"{met} of {modules} modules with branches ({met / modules:.0%}; bar {MODULES:.0%})")
    return int(met < MODULES * modules)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
