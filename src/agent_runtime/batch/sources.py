"""Rows from a JSONL, CSV or YAML file, or from stdin, one at a time."""

from __future__ import annotations

import csv
import errno
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from agent_runtime.bounded_file import open_regular, read_bounded
from agent_runtime.errors import ConfigurationError, TemplateError
from agent_runtime.size_limits import size_limit
from agent_runtime.strict_json import DuplicateName, loads_unique
from agent_runtime.template.document import to_python
from agent_runtime.template.yaml_reader import MAX_BYTES, read_yaml

Format = Literal["jsonl", "csv", "yaml"]
_FORMATS_BY_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".yaml": "yaml",
    ".yml": "yaml",
}  # fmt: skip
MAX_LINE = size_limit("row_characters")
"""Most characters of a line, and of a field of a CSV file (128 KiB in its library)."""


class SourceRow(NamedTuple):
    """Hold one item of a source: a task's values, or the problem with them.

    `location` names it: `line 7`, `item 3`.
    """

    location: str
    values: dict[str, Any] | None
    problem: str = ""


def read_rows(path: str | Path, file_format: Format | None = None) -> Iterator[SourceRow]:
    """Yield the rows of a file, by its suffix or in `file_format`.

    `-` is stdin, JSONL by default. An unreadable row is yielded with its problem, and the rest
    follows. A JSONL file has a map, or a text, on each line; a YAML file a list of them, or a map
    with a list `tasks`. Raises ConfigurationError for an unreadable source, TemplateError for
    invalid YAML, OSError.
    """
    if str(path) == "-":
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="")
        yield from _rows(sys.stdin, file_format or "jsonl", "stdin", ",")
        return
    suffix = Path(path).suffix.lower()
    kind = file_format or _FORMATS_BY_SUFFIX.get(suffix)
    if kind is None:
        raise ConfigurationError(
            f"'{path}': tasks come from .jsonl, .csv or .yaml files; say which with --format"
        )
    if kind == "yaml":
        yield from _yaml_rows(Path(path))
        return
    with open(_open_file(path), encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        yield from _rows(file, kind, str(path), "\t" if suffix == ".tsv" else ",")


def _rows(file: IO[str], kind: Format, name: str, delimiter: str) -> Iterator[SourceRow]:
    if kind == "yaml":
        raise ConfigurationError("YAML tasks come from a file, not from stdin")
    yield from _jsonl_rows(file) if kind == "jsonl" else _csv_rows(file, name, delimiter)


def _open_file(path: str | Path) -> int:
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise ConfigurationError(
            f"'{path}' is not a regular file: pipe a program's output to -"
        ) from None


class LineTooLong(csv.Error, ValueError):
    """A line of a source is longer than one task may be."""


class _BoundedLines:
    """Yield the lines of a file; an overlong one is an error, and the next ones follow."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __iter__(self) -> _BoundedLines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) <= MAX_LINE:
            return line
        while line and not line.endswith("\n"):
            line = self._file.readline(MAX_LINE)
        raise LineTooLong(f"the line has more than {MAX_LINE:,} characters")


def _jsonl_rows(file: IO[str]) -> Iterator[SourceRow]:
    lines = _BoundedLines(file)
    for number in itertools.count(1):
        location = f"line {number}"
        try:
            line = next(lines)
        except StopIteration:
            return
        except LineTooLong as error:
            yield SourceRow(location, None, str(error))
            continue
        if not line.strip():
            continue
        try:
            value = loads_unique(_require_utf8(line))
        except DuplicateName as error:
            yield SourceRow(location, None, str(error))
            continue
        except (ValueError, RecursionError) as error:
            yield SourceRow(location, None, f"not JSON: {error}")
            continue
        yield _source_row(location, value)


def _csv_rows(file: IO[str], name: str, delimiter: str) -> Iterator[SourceRow]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
    reader = csv.DictReader(_BoundedLines(file), delimiter=delimiter, strict=True)
    try:
        columns = reader.fieldnames
    except csv.Error as error:
        raise ConfigurationError(f"'{name}' is not a CSV file: {error}") from None
    if not columns:
        raise ConfigurationError(f"'{name}' is empty: its first line has the names of the columns")
    if len(set(columns)) < len(columns):
        raise ConfigurationError(
            f"'{name}': a column appears twice in the first line: {', '.join(columns)}"
        )
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SourceRow(f"line {reader.line_num}", None, f"not CSV: {error}")
            continue
        location = f"line {reader.line_num}"
        if None in values:
            yield SourceRow(
                location, None, f"it has more fields than the first line, which has {len(columns)}"
            )
        elif any(value is None for value in values.values()):
            yield SourceRow(
                location, None, f"it has fewer fields than the first line, which has {len(columns)}"
            )
        else:
            try:
                yield SourceRow(
                    location, {key: _require_utf8(value) for key, value in values.items()}
                )
            except ValueError as error:
                yield SourceRow(location, None, str(error))


def _yaml_rows(path: Path) -> Iterator[SourceRow]:
    try:
        content: Any = to_python(read_yaml(read_bounded(path, MAX_BYTES), str(path)))
    except TemplateError as error:
        raise ConfigurationError(
            f"{error} (long lists of tasks are better kept as JSONL or CSV)"
        ) from None
    if isinstance(content, dict) and "tasks" in content:
        content = content["tasks"]
    if not isinstance(content, list):
        raise ConfigurationError(
            f"'{path}': a YAML source is a list of tasks, or a map with a list 'tasks'"
        )
    for number, value in enumerate(content, 1):
        yield _source_row(f"item {number}", value)


def _source_row(location: str, value: Any) -> SourceRow:
    if isinstance(value, str):
        return SourceRow(location, {"input": value})
    if not isinstance(value, dict):
        return SourceRow(location, None, f"a task is a map or a text, not {type(value).__name__}")
    return SourceRow(location, value)


def _require_utf8(text: str) -> str:
    """Return text that was read with `surrogateescape`; raises ValueError if it was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not UTF-8") from None
    return text
