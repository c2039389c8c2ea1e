"""Look into the operations of stores, to delay them or let them fail."""

from __future__ import annotations

from typing import Any


def operation_name(body: Any) -> str:
    """Return the name of an operation from what `arun_body` of its store is given."""
    name: str = getattr(body, "func", body).__name__
    return name
