"""Tools that answer questions over CSV files: describe, filter, aggregate, group, top."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, Field

from agent_runtime.registry import tool_factory
from agent_runtime.run.idempotency import IDEMPOTENT
from agent_runtime.tools.arguments import describe_invalid_arguments
from agent_runtime.tools.csv_data import CsvFolder, Row, Table, is_missing, to_json_number
from agent_runtime.tools.function_tool import structured_tool

MAX_ROWS = 100

Function = Literal["count", "count_distinct", "sum", "mean", "median", "min", "max"]
Order = Literal["desc", "asc"]


class Condition(BaseModel):
    """One test on a column."""

    column: Annotated[str, Field(description="column to test")]
    op: Annotated[
        Literal["=", "!=", ">", ">=", "<", "<=", "contains", "starts_with"],
        Field(description="comparison"),
    ] = "="
    value: Annotated[str | float, Field(description="value to compare with")]


File = Annotated[str, Field(description="file to read; empty for the first that fits")]
Where = Annotated[list[Condition], Field(description="conditions that rows must meet, all of them")]
Measure = Annotated[str, Field(description="numeric column to calculate on; not needed for count")]
Calculation = Annotated[Function, Field(description="calculation")]

_CALCULATE: dict[str, Callable[[Sequence[Decimal]], Any]] = {
    "sum": lambda n: sum(n, Decimal(0)),
    "mean": lambda n: sum(n, Decimal(0)) / len(n),
    "median": statistics.median,
    "min": min,
    "max": max,
}


def _calculate(table: Table, rows: Sequence[Row], function: str, column: str) -> Any:
    if function == "count":
        return sum(1 for row in rows if not column or not is_missing(row[column]))
    if not column:
        raise ToolException(f"'{function}' needs a column. Columns: {', '.join(table.columns)}")
    if function == "count_distinct":
        return len({row[column].strip() for row in rows if not is_missing(row[column])})
    if table.types[column] == "date" and function in ("min", "max"):
        dates = [row[column].strip() for row in rows if not is_missing(row[column])]
        return (min if function == "min" else max)(dates) if dates else None
    numbers = table.numbers(column, rows)
    return (
        to_json_number(_CALCULATE[function](numbers))
        if numbers
        else (0 if function == "sum" else None)
    )


def _tool(name: str, description: str, function: Callable[..., Any]) -> BaseTool:
    return structured_tool(
        lambda **kwargs: json.dumps(function(**kwargs), ensure_ascii=False),
        metadata={IDEMPOTENT: True},  # it only reads
        name=name,
        description=description,
        args_schema=structured_tool(function, name=name, description=description).args_schema,
        handle_tool_error=True,
        handle_validation_error=describe_invalid_arguments,
    )


def _condition_texts(where: Sequence[Condition]) -> list[str]:
    return [f"{c.column} {c.op} {c.value}" for c in where]


@tool_factory(name="csv_describe")
def csv_describe(data: str) -> BaseTool:
    """Create a tool that lists the files with their columns, types and values."""
    folder = CsvFolder(data)

    def describe(file: File = "") -> dict[str, Any]:
        tables = [folder.table(file)] if file else folder.tables()
        return {"files": [table.describe() for table in tables]}

    return _tool(
        "describe_data",
        "Describe the data: files, columns, types, ranges and values. Call it first.",
        describe,
    )


@tool_factory(name="csv_filter")
def csv_filter(data: str) -> BaseTool:
    """Create a tool that shows the rows that meet conditions."""
    folder = CsvFolder(data)

    def filter_rows(where: Where, file: File = "", limit: int = 20) -> dict[str, Any]:
        table = folder.table(file, *(c.column for c in where))
        rows = table.where(where)
        limited_rows = rows[: max(1, min(limit, MAX_ROWS))]
        return table.with_problems(
            {"where": _condition_texts(where), "count": len(rows), "rows": limited_rows}
        )

    return _tool("filter_rows", "List or show the rows that meet conditions.", filter_rows)


@tool_factory(name="csv_aggregate")
def csv_aggregate(data: str) -> BaseTool:
    """Create a tool that calculates one number."""
    folder = CsvFolder(data)

    def aggregate(
        function: Calculation, column: Measure = "", where: Where | None = None, file: File = ""
    ) -> dict[str, Any]:
        conditions = where or []
        table = folder.table(file, column, *(c.column for c in conditions))
        name = table.column(column) if column else ""
        rows = table.where(conditions)
        value = _calculate(table, rows, function, name)
        answer = {
            "function": function,
            "column": name,
            "where": _condition_texts(conditions),
            "rows": len(rows),
            "value": value,
        }
        return table.with_problems(answer)

    description = (
        "Calculate one number over all rows or those that meet conditions: count, "
        "sum, mean, median, min, max."
    )
    return _tool("aggregate", description, aggregate)


@tool_factory(name="csv_group")
def csv_group(data: str) -> BaseTool:
    """Create a tool that calculates a number for each value of a column."""
    folder = CsvFolder(data)

    def group_by(
        by: Annotated[str, Field(description="column to group by")],
        function: Calculation = "count",
        column: Measure = "",
        where: Where | None = None,
        order: Annotated[Order, Field(description="order of the result by its number")] = "desc",
        limit: Annotated[int, Field(description="number of groups to return")] = 20,
        file: File = "",
    ) -> dict[str, Any]:
        conditions = where or []
        table = folder.table(file, by, column, *(c.column for c in conditions))
        key = table.column(by)
        name = table.column(column) if column else ""
        groups: dict[str, list[Row]] = {}
        for row in table.where(conditions):
            groups.setdefault(row[key].strip(), []).append(row)
        values = [
            (group, _calculate(table, rows, function, name)) for group, rows in groups.items()
        ]
        ordered = sorted(
            (v for v in values if v[1] is not None), key=lambda v: v[1], reverse=order == "desc"
        )
        limited_groups = [
            {key: group, "value": value} for group, value in ordered[: max(1, min(limit, MAX_ROWS))]
        ]
        answer = {
            "function": function,
            "column": name,
            "by": key,
            "where": _condition_texts(conditions),
            "groups": limited_groups,
        }
        return table.with_problems(answer)

    return _tool(
        "group_by", "Calculate a number for each group: per value of a column, ordered.", group_by
    )


@tool_factory(name="csv_top")
def csv_top(data: str) -> BaseTool:
    """Create a tool that shows the rows with the highest or lowest values."""
    folder = CsvFolder(data)

    def top_rows(
        column: Annotated[str, Field(description="column to order rows by")],
        n: Annotated[int, Field(description="number of rows to return")] = 5,
        order: Annotated[
            Order, Field(description="desc for the highest, asc for the lowest")
        ] = "desc",
        where: Where | None = None,
        file: File = "",
    ) -> dict[str, Any]:
        conditions = where or []
        table = folder.table(file, column, *(c.column for c in conditions))
        name = table.column(column)
        rows = [row for row in table.where(conditions) if not is_missing(row[name])]
        key = (
            (lambda r: table.numbers(name, [r])[0])
            if table.types[name] == "number"
            else (lambda r: r[name])
        )
        ordered = sorted(rows, key=key, reverse=order == "desc")
        limited_rows = ordered[: max(1, min(n, MAX_ROWS))]
        return table.with_problems(
            {
                "column": name,
                "order": order,
                "where": _condition_texts(conditions),
                "rows": limited_rows,
            }
        )

    return _tool(
        "top_rows",
        "Show the top rows: those with the highest or lowest values of a column.",
        top_rows,
    )


TOOLS = {
    "csv_describe": csv_describe,
    "csv_filter": csv_filter,
    "csv_aggregate": csv_aggregate,
    "csv_group": csv_group,
    "csv_top": csv_top,
}
