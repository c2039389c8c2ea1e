"""Breaks the code in ways that matter and checks that a test notices (part of `make soak`).

    python -m tests.mutants [part of a module's or a test's path]

Each mutant is a change of the syntax tree in a copy of the sources, so its form does not depend on how the code is
laid out. The mutants stand in `mutants.py` beside the tests that have to fail on them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "agent_runtime"
TESTS = ROOT / "tests" / "agent_runtime"
HANGS_S = 150
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class CodeIsGone(Exception):
    """The code that a mutant changes is not there any more."""


@dataclass(frozen=True)
class Change:
    """Replace an expression or statements in one function, class or module.

    Args:
        target: `module:qualified.name`, the module without the package's name; the whole module after `module:`.
        before: an expression, or whole statements.
        after: what stands there instead.
        only: which of several equal places to change, in the order of the source; None for all of them.
    """

    target: str
    before: str
    after: str
    only: tuple[int, ...] | None = None

    @property
    def module(self) -> str:
        """The module's name without the package's."""
        return self.target.partition(":")[0]

    def apply(self, tree: ast.Module) -> None:
        """Change the tree; raises CodeIsGone."""
        places = self.places(tree)
        for index in range(len(places)) if self.only is None else self.only:
            place = places[index]
            if isinstance(place, Statements):
                place.block[place.start : place.start + place.count] = ast.parse(self.after).body
            else:
                replacement = ast.parse(self.after, mode="eval").body
                place.__class__ = replacement.__class__
                place.__dict__.clear()
                place.__dict__.update(replacement.__dict__)

    def places(self, tree: ast.Module) -> list[ast.expr | Statements]:
        """Return the places in the target that are equal to `before`; raises CodeIsGone when there are too few."""
        scope = _definition(tree, self.target.partition(":")[2])
        statements = ast.parse(self.before).body
        first = statements[0]
        places: list[ast.expr | Statements] = []
        if (
            scope is not None
            and len(statements) == 1
            and isinstance(first, ast.Expr)
            and _is_expression(self.after)
        ):
            form = _form(first.value)
            places += [n for n in _nodes(scope) if isinstance(n, ast.expr) and _form(n) == form]
        elif scope is not None:
            places += _equal_statements(scope, statements)
        if len(places) <= max(self.only or (0,)):
            raise CodeIsGone(f"{self.target} has no {self.before!r}")
        return places


@dataclass(frozen=True)
class TextChange:
    """Replace a text in the source of a module: for SQL and Lua, which are text to Python."""

    module: str
    before: str
    after: str


@dataclass(frozen=True)
class Statements:
    """A run of statements in a block."""

    block: list[ast.stmt]
    start: int
    count: int


class Mutant:
    """A deliberate defect.

    Args:
        name: what is broken; it names the mutant.
        test: which tests have to notice, relative to the folder of the table: a file, `-k` and words; "" for all.
        changes: how the code is broken.
    """

    def __init__(self, name: str, test: str, *changes: Change | TextChange) -> None:
        self.name = name
        self.test = test
        self.changes = changes
        self.folder = Path()

    def mutate(self, sources: Path) -> None:
        """Break the code in a copy of the package; raises CodeIsGone."""
        for change in self.changes:
            path = sources.joinpath(*change.module.split(".")).with_suffix(".py")
            source = path.read_text()
            if isinstance(change, TextChange):
                if change.before not in source:
                    raise CodeIsGone(f"{change.module} has no {change.before!r}")
                path.write_text(source.replace(change.before, change.after))
            else:
                tree = ast.parse(source)
                change.apply(tree)
                path.write_text(ast.unparse(tree))


def all_mutants() -> list[Mutant]:
    """Return the mutants of every table."""
    mutants: list[Mutant] = []
    for path in sorted(TESTS.rglob("mutants.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for mutant in importlib.import_module(module).MUTANTS:
            mutant.folder = path.parent
            mutants.append(mutant)
    return mutants


def _definition(tree: ast.Module, qualified: str) -> ast.AST | None:
    scope: ast.AST | None = tree
    for name in filter(None, qualified.split(".")):
        if scope is None:
            return None
        scope = next((d for d in _own_definitions(scope) if d.name == name), None)
    return scope


def _own_definitions(
    scope: ast.AST,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, _DEFINITIONS):
            yield child
        else:
            yield from _own_definitions(child)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Give a node and all nodes below it in the order of the source."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child)


def _equal_statements(scope: ast.AST, statements: list[ast.stmt]) -> list[ast.expr | Statements]:
    count = len(statements)
    forms = [_form(statement) for statement in statements]
    places: list[ast.expr | Statements] = []
    for node in _nodes(scope):
        for _, block in ast.iter_fields(node):
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                own = [_form(statement) for statement in block]
                starts = range(len(own) - count + 1)
                places += [
                    Statements(block, start, count)
                    for start in starts
                    if own[start : start + count] == forms
                ]
    return places


def _form(node: ast.AST) -> str:
    # A name is the same whether it is read, assigned or deleted.
    return ast.dump(node).replace("ctx=Store()", "ctx=Load()").replace("ctx=Del()", "ctx=Load()")


def _is_expression(source: str) -> bool:
    try:
        ast.parse(source, mode="eval")
    except SyntaxError:
        return False
    return True


def is_killed(mutant: Mutant, folder: Path) -> bool:
    """Tell whether the mutant's test fails on the broken code; raises SystemExit when it did not run."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "templates").symlink_to(ROOT / "templates")
    mutant.mutate(source / "agent_runtime")
    path, *options = (
        shlex.split(mutant.test)
        if not mutant.test.startswith("-")
        else ["", *shlex.split(mutant.test)]
    )
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-x",
        "--timeout=60",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
    ]
    try:
        ended = subprocess.run(
            [*pytest, str(mutant.folder / path), *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(source)},
            capture_output=True,
            text=True,
            check=False,
            timeout=HANGS_S,
        )
    except (
        subprocess.TimeoutExpired
    ):  # it hangs beyond the test's own time limit: in CI that is noticed, too
        return True
    finally:
        end_processes_of(source)
    if ended.returncode not in (0, 1):
        raise SystemExit(f"'{mutant.name}': the test did not run\n{ended.stdout[-2000:]}")
    return ended.returncode == 1


def end_processes_of(source: Path) -> None:
    """Kill the processes that still run the broken code: a mutant of the clean-up leaves workers behind."""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if f"PYTHONPATH={source}".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def main(only: str = "") -> int:
    """Print a line for each mutant of a module or test whose path contains `only`; return 1 when one survives."""
    mutants = [
        m
        for m in all_mutants()
        if only in f"{m.folder}/{m.test}" or any(only in c.module for c in m.changes)
    ]
    survivors = []
    for mutant in mutants:
        with tempfile.TemporaryDirectory() as folder:
            killed = is_killed(mutant, Path(folder))
        print(f"{'killed  ' if killed else 'SURVIVED'}  {mutant.name}", flush=True)
        if not killed:
            survivors.append(mutant.name)
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.modules["tests.mutants"] = sys.modules[__name__]  # under this name the tables import it
    sys.exit(main(*sys.argv[1:]))
