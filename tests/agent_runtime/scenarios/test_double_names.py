"""JSON with a name twice is refused on every way in: readers differ on which one counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from agent_runtime import InputInvalid, TemplateError, parse_template
from agent_runtime.batch.sources import read_rows
from agent_runtime.cli.sessions import _parse_answer, _parse_arguments
from agent_runtime.event_bus.cloud_event import from_cloud_event, read_event
from agent_runtime.strict_json import DuplicateName, loads_unique

DOUBLE = '{"type": "object", "a": {"b": 1, "b": 2}}'


def test_the_name_is_in_the_message_and_other_json_is_read_as_ever() -> None:
    with pytest.raises(DuplicateName, match="'b' appears twice"):
        loads_unique(DOUBLE)
    assert loads_unique('{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}
    with pytest.raises(ValueError, match="Expecting"):
        loads_unique("{")


def test_many_names_are_looked_at_once() -> None:
    """A look at each name for each other one would take minutes."""
    names = ", ".join(f'"n{n}": 1' for n in range(100_000))
    with pytest.raises(DuplicateName, match="'n99999'"):
        loads_unique(f'{{{names}, "n99999": 2}}')


def cloud_event(_: Path) -> Any:
    return from_cloud_event(DOUBLE)


def schema_file(folder: Path) -> Any:
    (folder / "s.json").write_text(DOUBLE)
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"
    return parse_template(
        f"{head}spec: {{model: m, response_format: {{schema: s.json}}}}\n", folder=str(folder)
    )


def answer(_: Path) -> Any:
    return _parse_answer(DOUBLE)


def edited_arguments(_: Path) -> Any:
    return _parse_arguments(DOUBLE)


@pytest.mark.parametrize("way", [cloud_event, schema_file, answer, edited_arguments])
def test_it_is_refused(way: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises((InputInvalid, TemplateError, click.BadParameter), match="twice"):
        way(tmp_path)


def test_a_row_of_a_batch_and_an_event_of_a_log_are_problems_at_their_place(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{DOUBLE}\n{{"a": 1}}\n')
    first, second = read_rows(tmp_path / "rows.jsonl")
    assert (first.values, second.values) == (None, {"a": 1})
    assert "'b' appears twice" in first.problem
    assert read_event(DOUBLE, "7").type == "bus.unreadable"
    assert json.loads(DOUBLE)["a"] == {"b": 2}
