"""Escape foreign text for terminals and for formats with one record a line."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

_HARMLESS = frozenset("\n\t\u200c\u200d\u00ad")
"""Without meaning for a terminal, and needed: joiners of scripts and emoji, the soft hyphen."""


def escape_controls(text: str) -> str:
    r"""Escape characters that control a terminal or reorder text, as `\uXXXX`.

    Those are control characters but newline and tab, bidirectional controls, other formats, line
    separators, halves of surrogate pairs. A carriage return before a newline stays.
    """
    if text.isprintable():
        return text
    return "\r\n".join(_escaped(part, _HARMLESS) for part in text.split("\r\n"))


def escape_to_one_line(text: str) -> str:
    """Return `text` as `escape_controls` does, newlines and tabs too."""
    return text if text.isprintable() else _escaped(text, frozenset())


def json_line(value: Any, **settings: Any) -> str:
    r"""Return the JSON of a value with printable characters only; others are `\uXXXX`.

    A JSON reader gets the same value; a line reader sees one line, by any definition of line ends.
    """
    return printable_json(json.dumps(value, ensure_ascii=False, **settings))


def printable_json(text: str) -> str:
    """Escape JSON text as `json_line` does. Newlines stay: they only separate its tokens."""
    return text if text.isprintable() else _escaped(text, frozenset("\n"))


def _escaped(text: str, harmless: frozenset[str]) -> str:
    return "".join(c if c in harmless or _is_plain(c) else _code(c) for c in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _code(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[index : index + 2].hex()}" for index in range(0, len(data), 2))
