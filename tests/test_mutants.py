"""The mutants: each has its code, a name of its own, and tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants import SOURCES, Change, CodeIsGone, all_mutants


def test_each_mutant_changes_code_that_is_there(tmp_path: Path) -> None:
    for mutant in all_mutants():
        sources = tmp_path / "agent_runtime"
        for change in mutant.changes:
            path = SOURCES.joinpath(*change.module.split(".")).with_suffix(".py")
            copy = sources.joinpath(*change.module.split(".")).with_suffix(".py")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        mutant.mutate(sources)


def test_each_mutant_has_a_name_of_its_own_and_a_test_that_exists() -> None:
    mutants = all_mutants()
    names = [mutant.name for mutant in mutants]
    assert sorted(names) == sorted(set(names))
    assert len(names) >= 413
    for mutant in mutants:
        path = mutant.test.split(" ")[0]
        assert path.startswith("-") or (mutant.folder / path).exists(), mutant.name


def test_a_mutant_whose_code_is_gone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("def run():\n    return first(second)\n")
    from tests.mutants import Mutant

    with pytest.raises(CodeIsGone, match="part:run has no 'third"):
        Mutant("gone", "", Change("part:run", "third(second)", "None")).mutate(tmp_path)
    with pytest.raises(CodeIsGone, match="part:walk"):
        Mutant("gone", "", Change("part:walk", "first(second)", "None")).mutate(tmp_path)
    Mutant("here", "", Change("part:run", "first(second)", "None")).mutate(tmp_path)
    assert (tmp_path / "part.py").read_text() == "def run():\n    return None"


@pytest.mark.parametrize(
    ("before", "after", "only", "expected"),
    [
        ("work(1)", "work(2)", None, "work(2)\nwork(2)"),
        ("work(1)", "work(2)", (1,), "work(1)\nwork(2)"),
        ("work(1)", "pass", (0,), "pass\nwork(1)"),
        ("work(1)\nwork(1)", "rest()", None, "rest()"),
    ],
)
def test_statements_and_expressions_are_found_whatever_their_layout(
    tmp_path: Path, before: str, after: str, only: tuple[int, ...] | None, expected: str
) -> None:
    from tests.mutants import Mutant

    (tmp_path / "part.py").write_text("work(\n    1,\n)\nwork( 1 )\n")
    Mutant("", "", Change("part:", before, after, only)).mutate(tmp_path)
    assert (tmp_path / "part.py").read_text() == expected
