"""The columns of a tool's result, for the offline model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


def words_of(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case, plurals as singulars."""
    words = re.findall(
        r"[^\W\d_]+|\d+(?:\.\d+)?", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower()
    )
    return [re.sub(r"(?<=\w\w)(?<!s)s$", "", re.sub(r"(?<=\w\w)ies$", "y", w)) for w in words]


@dataclass
class ResultField:
    """Describe a column of a result; `at` and `mention_score` locate and rate its mention."""

    name: str
    type: str
    values: list[str]
    distinct: int
    file: str
    rows: int
    position: int = -1
    mention_score: float = 0.0


def parse_result(text: str) -> Any:
    """Return the JSON value of a text, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def fields_of(result: Any, file: str = "", rows: int = 0) -> Iterator[ResultField]:
    """Yield every `{"name": ..., "type": ...}` in a result, with its file and number of rows."""
    if isinstance(result, dict):
        file = str(result.get("file", file))
        rows = n if isinstance(n := result.get("rows"), int) else rows
        if isinstance(result.get("name"), str) and isinstance(result.get("type"), str):
            values = [str(v) for v in result.get("values", [])]
            yield ResultField(
                result["name"], result["type"], values, result.get("distinct", 0), file, rows
            )
    for item in (
        result.values() if isinstance(result, dict) else result if isinstance(result, list) else ()
    ):
        yield from fields_of(item, file, rows)
