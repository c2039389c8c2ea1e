"""What a model is told when the arguments of its tool call do not fit."""

from __future__ import annotations

from typing import Any

MAX_SHOWN = 5


def wrong_arguments(error: Any) -> str:
    """Describe each wrong field of a ValidationError, without the given values."""
    details = error.errors(include_input=False)
    shown = [
        f"{'.'.join(map(str, d['loc'])) or 'arguments'}: {d['msg']}" for d in details[:MAX_SHOWN]
    ]
    return "wrong arguments. " + "; ".join(shown)
