"""CSV files as tables with typed columns, confined to one file or folder."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from langchain_core.tools import ToolException

from agent_runtime.bounded_file import read_bounded
from agent_runtime.size_limits import size_limit

MAX_BYTES = size_limit("csv_bytes")
MAX_LISTED_VALUES = 40
MAX_LISTED_PROBLEMS = 10
MAX_NUMBER_CHARACTERS = 100
MAX_DIGITS = 30
"""A number with more digits is taken as text: calculating with 1e30000000 would never end."""

_NUMBER = re.compile(
    r"[-+]?[$€£]?\s?\d{1,3}(?:,\d{3})+(?:\.\d+)?%?|[-+]?[$€£]?\s?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?%?"
)
_DATE = re.compile(r"\d{4}-\d{2}(?:-\d{2})?(?:[ T]\d{2}:\d{2}.*)?")
_MISSING = frozenset({"", "na", "n/a", "null", "none", "nan", "-"})

Row = dict[str, str]


def parse_number(text: str) -> Decimal | None:
    """Return the number in a cell, without currency, percent and thousands signs, or None."""
    text = text.strip()
    if len(text) > MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    value = Decimal(re.sub(r"[$€£,%\s]", "", text))
    return value if abs(value.adjusted()) <= MAX_DIGITS else None


def is_missing(text: str) -> bool:
    """Return whether a cell is empty or stands for a missing value."""
    return text.strip().lower() in _MISSING


@dataclass(frozen=True, slots=True)
class Table:
    """Hold one CSV file: `rows` map column to cell text; `types` are number, date or text.

    `problems` list rows with other columns than the first line, or swallowed by an open quote.
    """

    name: str
    columns: tuple[str, ...]
    types: dict[str, str]
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()

    def column(self, name: str) -> str:
        """Return the column called `name`, case-insensitive.

        Raises ToolException with all columns.
        """
        key = _normalized_name(name)
        for column in self.columns:
            if _normalized_name(column) == key:
                return column
        raise ToolException(
            f"{self.name} has no column '{name}'. Its columns: {', '.join(self.columns)}"
        )

    def numbers(self, column: str, rows: Iterable[Row]) -> list[Decimal]:
        """Return the numbers in a column without missing cells.

        Raises ToolException for other columns.
        """
        if self.types[column] != "number":
            numeric = [c for c in self.columns if self.types[c] == "number"]
            raise ToolException(
                f"column '{column}' is {self.types[column]}. Numeric columns: {', '.join(numeric)}"
            )
        return [n for row in rows if (n := parse_number(row[column])) is not None]

    def where(self, conditions: Sequence[Any]) -> list[Row]:
        """Return the rows that meet all conditions (`column`, `op`, `value`)."""
        tests = [self._row_test(self.column(c.column), c.op, str(c.value)) for c in conditions]
        return [row for row in self.rows if all(test(row) for test in tests)]

    def _row_test(self, column: str, op: str, value: str) -> Callable[[Row], bool]:
        operand = value.strip().lower()
        if op == "contains":
            return lambda row: operand in row[column].lower()
        if op == "starts_with":
            return lambda row: row[column].strip().lower().startswith(operand)
        compare = _COMPARE[op]
        limit = parse_number(value)
        if self.types[column] == "number" and limit is not None:
            return lambda row: (n := parse_number(row[column])) is not None and compare(n, limit)
        if self.types[column] == "number" and op not in ("=", "!="):
            raise ToolException(f"column '{column}' is a number; '{value}' is not")
        return lambda row: compare(row[column].strip().lower(), operand)

    def describe(self) -> dict[str, Any]:
        """Return the file's size and its columns with type and range or values."""
        columns = [self._describe_column(c) for c in self.columns]
        return self.with_problems({"file": self.name, "rows": len(self.rows), "columns": columns})

    def with_problems(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Add the file's problems to `answer`, whose numbers may be wrong too."""
        return {**answer, "problems": list(self.problems)} if self.problems else answer

    def _describe_column(self, column: str) -> dict[str, Any]:
        cells = [row[column].strip() for row in self.rows if not is_missing(row[column])]
        description: dict[str, Any] = {"name": column, "type": self.types[column]}
        if self.types[column] == "number" and cells:
            numbers = self.numbers(column, self.rows)
            return {
                **description,
                "min": to_json_number(min(numbers)),
                "max": to_json_number(max(numbers)),
                "distinct": len(set(numbers)),
            }
        counts = Counter(cells)
        if self.types[column] == "date" and cells:
            return {**description, "min": min(cells), "max": max(cells), "distinct": len(counts)}
        return {
            **description,
            "distinct": len(counts),
            "values": [v for v, _ in counts.most_common(MAX_LISTED_VALUES)],
        }


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


def to_json_number(value: Decimal) -> int | float:
    """Return a number for JSON: whole if it is, else rounded to 6 decimals."""
    return int(value) if value == value.to_integral_value() else round(float(value), 6)


class CsvFolder:
    """The CSV files of one folder, or one file.

    Nothing outside it can be named, not by a symbolic link either.
    """

    def __init__(self, data: str) -> None:
        self._root = Path(data).resolve()
        if not self._root.exists():
            raise ValueError(f"there is no file or folder '{data}'")

    def files(self) -> dict[str, Path]:
        """Name to path of each readable file."""
        if self._root.is_file():
            return {self._root.name: self._root}
        paths = sorted(
            p for p in self._root.rglob("*") if p.suffix.lower() in (".csv", ".tsv") and p.is_file()
        )
        return {
            str(p.relative_to(self._root)): p
            for p in paths
            if p.resolve().is_relative_to(self._root)
        }

    def tables(self) -> list[Table]:
        """Return every file's table; raises ToolException without any."""
        files = self.files()
        if not files:
            raise ToolException("there are no CSV files in the data folder")
        return [
            _read_table(name, path, path.stat().st_mtime_ns, path.stat().st_size)
            for name, path in files.items()
        ]

    def table(self, file: str, *columns: str) -> Table:
        """Return the table named `file`, or else the first one with all `columns`."""
        tables = self.tables()
        if file:
            for table in tables:
                if _normalized_name(file) in (
                    _normalized_name(table.name),
                    _normalized_name(Path(table.name).stem),
                ):
                    return table
            raise ToolException(
                f"there is no file '{file}'. Files: {', '.join(t.name for t in tables)}"
            )
        keys = {_normalized_name(c) for c in columns if c}
        return next(
            (t for t in tables if keys <= {_normalized_name(c) for c in t.columns}), tables[0]
        )


@lru_cache(maxsize=32)
def _read_table(name: str, path: Path, _modified_ns: int, size: int) -> Table:
    if size > MAX_BYTES:
        raise ToolException(f"{name} has {size} bytes; at most {MAX_BYTES} are read")
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ToolException(f"{name} is not UTF-8 text") from None
    delimiter = max(",;\t|", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = next(reader, [])
        records = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise ToolException(f"{name} cannot be read as CSV: {error}") from None
    if not header:
        raise ToolException(f"{name} cannot be read as CSV: its first line has no column")
    columns = tuple(h.strip() or f"column_{i + 1}" for i, h in enumerate(header))
    if len(set(columns)) < len(columns):
        raise ToolException(f"{name} has the same column name twice: {', '.join(columns)}")
    rows = tuple(
        dict(zip(columns, [*line, *[""] * (len(columns) - len(line))], strict=False))
        for _, line in records
    )
    types = {c: _column_type([row[c] for row in rows]) for c in columns}
    return Table(name, columns, types, rows, tuple(_row_problems(columns, records, delimiter)))


def _row_problems(
    columns: Sequence[str], records: Iterable[tuple[int, list[str]]], delimiter: str
) -> list[str]:
    problems = []
    for last_line, cells in records:
        hidden_row_count = sum(_rows_within(cell, columns, delimiter) for cell in cells)
        if hidden_row_count:
            first = last_line - sum(cell.rstrip("\n").count("\n") for cell in cells)
            problems.append(
                f"lines {first} to {last_line} are one row: a quote that is not closed hides others"
            )
        elif len(cells) > len(columns):
            problems.append(
                f"line {last_line} has {len(cells)} cells for {len(columns)} columns: the last "
                "are left out"
            )
        elif len(cells) < len(columns):
            problems.append(
                f"line {last_line} has {len(cells)} cells for {len(columns)} columns: the last "
                "are empty"
            )
    if len(problems) > MAX_LISTED_PROBLEMS:
        return [
            *problems[:MAX_LISTED_PROBLEMS],
            f"and {len(problems) - MAX_LISTED_PROBLEMS} more lines",
        ]
    return problems


def _rows_within(cell: str, columns: Sequence[str], delimiter: str) -> int:
    """Return how many one-cell lines have a whole row's number of cells."""
    if "\n" not in cell:
        return 0
    return sum(line.count(delimiter) >= max(1, len(columns) - 1) for line in cell.split("\n"))


def _column_type(cells: Sequence[str]) -> str:
    present = [c.strip() for c in cells if not is_missing(c)]
    if present and all(parse_number(c) is not None for c in present):
        return "number"
    return "date" if present and all(_DATE.fullmatch(c) for c in present) else "text"


def _normalized_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
