"""Map the columns of a table's row to the fields of a task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent_runtime.batch.task import BatchTask, as_task
from agent_runtime.errors import ConfigurationError, InputInvalid, close_matches
from agent_runtime.template.yaml_reader import parse_scalar

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_TASK_FIELDS = ("id", "agent", "priority", "timeout_s")


class InputMapping:
    """Build tasks from rows.

    Without a mapping a row's columns `input`, `id`, `agent`, `priority` and `timeout_s` are the
    task's, those named as an input of the template fill it, and the others become metadata.

    Args:
        fields: the task's fields by column: `{"input": "Classify: {text}", "id": "{ticket}",
            "inputs.language": "{lang}", "metadata.customer": "{customer}"}`. `{{` is a brace. A
            field that is exactly one column (`"{rows}"`) takes its value unchanged.
        agent: the agent of rows that name none.
        properties: the template's inputs (JSON Schema), so that text from a CSV becomes a number
            where the schema requires one.

    Raises ConfigurationError for a field that a task does not have.
    """

    def __init__(
        self,
        fields: Mapping[str, str] | None = None,
        agent: str = "",
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.fields = dict(fields or {})
        self.agent = agent
        self.properties = properties or {}
        for name in self.fields:
            if name not in ("input", *_TASK_FIELDS) and not name.startswith(
                ("inputs.", "metadata.", "input.")
            ):
                allowed_names = (
                    "input",
                    *_TASK_FIELDS,
                    "inputs.NAME",
                    "metadata.NAME",
                    "input.KEY",
                )
                raise ConfigurationError(
                    f"a mapping has no '{name}': {close_matches(name, allowed_names)}"
                )
        if "input" in self.fields and any(name.startswith("input.") for name in self.fields):
            raise ConfigurationError("a mapping says 'input', or its keys ('input.KEY'), not both")

    def task(self, row: Mapping[str, Any]) -> BatchTask:
        """Return the task of a row; raises InputInvalid, which names the column."""
        task_fields = self._by_mapping(row) if self.fields else self._by_names(row)
        task_fields["inputs"] = {
            name: self._coerced(name, value)
            for name, value in task_fields.get("inputs", {}).items()
        }
        if isinstance(seconds := task_fields.get("timeout_s"), str):
            task_fields["timeout_s"] = parse_scalar(seconds) if seconds.strip() else None
        return as_task(
            {name: value for name, value in task_fields.items() if value not in ("", None)},
            self.agent,
        )

    def _by_mapping(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task_fields: dict[str, Any] = {
            name: row[name] for name in _TASK_FIELDS if row.get(name) not in (None, "")
        }
        task_fields |= {
            name: dict(row[name])
            for name in ("inputs", "metadata")
            if isinstance(row.get(name), Mapping)
        }
        if "input" in row and not any(name.partition(".")[0] == "input" for name in self.fields):
            task_fields["input"] = row["input"]
        for field, text in self.fields.items():
            target, dot, key = field.partition(".")
            value = render_template(text, row)
            if dot:
                task_fields.setdefault(target, {})[key] = value
            else:
                task_fields[target] = str(value) if target == "id" and value is not None else value
        return task_fields

    def _by_names(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task_fields: dict[str, Any] = {
            name: dict(row[name]) if _is_map(row, name) else {} for name in ("inputs", "metadata")
        }
        if row.get("input") in (None, ""):
            columns = ", ".join(str(name) for name in row) or "none"
            raise InputInvalid(
                f"the row has no 'input' (it has: {columns}); say how it is made: --map "
                "'input=... {COLUMN} ...'",
                "input",
            )
        for name, value in row.items():
            if name == "input" or name in _TASK_FIELDS:
                task_fields[name] = str(value) if name == "id" and value is not None else value
            elif name in self.properties and value not in (None, ""):
                task_fields["inputs"][name] = value
            elif name not in ("inputs", "metadata") or not (_is_map(row, name) or value is None):
                task_fields["metadata"][str(name)] = value
        return task_fields

    def _coerced(self, name: str, value: Any) -> Any:
        schema_type = self.properties.get(name, {}).get("type")
        return (
            parse_scalar(value)
            if isinstance(value, str) and schema_type not in (None, "string")
            else value
        )


def _is_map(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), Mapping)


def render_template(text: str, row: Mapping[str, Any]) -> Any:
    """Return `text` with `{column}` replaced by the row's values.

    Raises InputInvalid for a missing column.
    """

    def column(name: str) -> Any:
        if name not in row:
            raise InputInvalid(
                f"there is no column '{name}': {close_matches(name, map(str, row))}", name
            )
        return row[name]

    single_column = re.fullmatch(r"\{([^{}]+)\}", text)
    if single_column is not None:
        return column(single_column[1])

    def substitute(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        column_value = column(match[1])
        return "" if column_value is None else str(column_value)

    return _PLACEHOLDER.sub(substitute, text)
