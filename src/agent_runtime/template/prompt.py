"""`{{ inputs.name }}` in prompts and tool arguments: plain substitution, no expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_OPEN = re.compile(r"\{\{")
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_NAME = re.compile(r"\s*inputs\.([A-Za-z_][A-Za-z0-9_]*)\s*")


def placeholders(text: str) -> tuple[set[str], list[str]]:
    """Return the inputs that `text` uses, and a message for each other `{{ }}`."""
    names: set[str] = set()
    messages: list[str] = []
    for match in _PLACEHOLDER.finditer(text):
        name_match = _NAME.fullmatch(match[1])
        if name_match:
            names.add(name_match[1])
        else:
            messages.append(
                f"'{{{{{match[1][:40]}}}}}' is not a placeholder: "
                "only {{ inputs.name }} is, no expressions"
            )
    if len(_OPEN.findall(text)) > len(_PLACEHOLDER.findall(text)):
        messages.append("'{{' without its '}}'")
    return names, messages


def render(text: str, inputs: Mapping[str, Any]) -> str:
    """Replace each placeholder of `text`; values are never parsed for placeholders."""
    return _PLACEHOLDER.sub(lambda m: _to_text(inputs[m[1].strip().removeprefix("inputs.")]), text)


def render_value(value: Any, inputs: Mapping[str, Any]) -> Any:
    """Render lists and maps; a string with only a placeholder becomes the input with its type."""
    if isinstance(value, str):
        whole_match = _PLACEHOLDER.fullmatch(value)
        name_match = _NAME.fullmatch(whole_match[1]) if whole_match else None
        return inputs[name_match[1]] if name_match else render(value, inputs)
    if isinstance(value, Mapping):
        return {k: render_value(v, inputs) for k, v in value.items()}
    if isinstance(value, list):
        return [render_value(v, inputs) for v in value]
    return value


def strings_in(value: Any) -> list[str]:
    """Return every string in nested lists and maps."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [s for v in value.values() for s in strings_in(v)]
    return [s for v in value for s in strings_in(v)] if isinstance(value, list) else []


def uses_inputs(value: Any) -> bool:
    """Return whether a string anywhere in `value` has a placeholder."""
    return any(_OPEN.search(text) for text in strings_in(value))


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
