"""Compares this tree with a commit: `make bench-against REF=commit`.

The commit stands in a worktree with an environment of its own. The rows of both are read in turns,
seven rounds, each in a process of its own; a third reading, of this tree again, is the null test
that says how far two readings of the same code are apart. A ratio may be worse by 3 % beyond the
null test, a time by 15 %. Exits with 1 when one is worse.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[1]
ROUNDS = 7
RATIO_TOLERANCE = 0.03
TIME_TOLERANCE = 0.15
# Run in either tree, whose `benchmarks.run` it imports: it must not need more than that has.
READ_ROWS = """
import asyncio, json, logging, sys
from benchmarks import run

async def main():
    logging.getLogger("agent_runtime").setLevel(logging.WARNING)
    rows = []
    for group in sys.argv[1:]:
        rows += await getattr(run, group)()
    print("\\n" + json.dumps([[row.what, row.value, row.unit, row.at_least] for row in rows]))

asyncio.run(main())
"""
Rows: TypeAlias = dict[str, tuple[float, str, bool]]
"""Value, unit and whether more is better, by the row's text."""
GROUPS = ("turn_rows", "stream_rows", "governance_rows", "session_rows")


def rows_of(tree: Path, groups: list[str]) -> Rows:
    """Return value, unit and direction of each row, read in a process of the tree's environment."""
    command = [str(tree / ".venv" / "bin" / "python"), "-c", READ_ROWS, *groups]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the rows of {tree} cannot be read:\n{done.stderr[-2000:]}")
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    return {what: (value, unit, at_least) for what, value, unit, at_least in rows}


def main(reference: str, *groups: str) -> int:
    """Print a line for each row that both trees have; return 1 when one is worse."""
    chosen = list(groups or GROUPS)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "reference"
        _git("worktree", "add", "--detach", str(other), reference)
        try:
            subprocess.run(["uv", "sync", "--quiet"], cwd=other, check=True)
            readings = [
                (rows_of(other, chosen), rows_of(ROOT, chosen), rows_of(ROOT, chosen))
                for _ in range(ROUNDS)
            ]
        finally:
            _git("worktree", "remove", "--force", str(other))
    worse = [
        what for what in readings[0][1] if what in readings[0][0] and _is_worse(what, readings)
    ]
    print(f"{len(worse)} rows are worse than {reference}")
    return 1 if worse else 0


def _is_worse(what: str, readings: list[tuple[Rows, Rows, Rows]]) -> bool:
    before, now, again = (
        statistics.median(reading[index][what][0] for reading in readings) for index in range(3)
    )
    _, unit, at_least = readings[0][1][what]
    if not before or not now:
        return now > before and not at_least
    change = before / now if at_least else now / before
    null_test = abs(again / now - 1)
    tolerance = RATIO_TOLERANCE if unit == "x" else TIME_TOLERANCE
    is_worse = change > 1 + tolerance + null_test
    verdict = "WORSE" if is_worse else "ok"
    print(
        f"{what:70} {before:9.3f} -> {now:9.3f} {unit:5} {100 * (change - 1):+6.1f} % "
        f"(null test {100 * null_test:.1f} %)  {verdict}",
        flush=True,
    )
    return is_worse


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
