"""Provide the tools of the built-in templates, and wrap functions as tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_runtime.registry import Registry


def register_builtin_tools(registry: Registry) -> None:
    """Register the built-in templates' tools; names in use stay as they are."""
    from agent_runtime.tools import csv_tools, document_search, draft_review

    for name, tool in {**csv_tools.TOOLS, **document_search.TOOLS, **draft_review.TOOLS}.items():
        registry.tools.setdefault(name, tool)
