"""Describe invalid arguments of a tool call to the model."""

from __future__ import annotations

from typing import Any

MAX_REPORTED_ERRORS = 5


def describe_invalid_arguments(error: Any) -> str:
    """Describe each wrong field of a ValidationError, without the values."""
    details = error.errors(include_input=False)
    field_errors = [
        f"{'.'.join(map(str, d['loc'])) or 'arguments'}: {d['msg']}"
        for d in details[:MAX_REPORTED_ERRORS]
    ]
    return "wrong arguments. " + "; ".join(field_errors)
