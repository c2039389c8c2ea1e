"""LangChain tools made from functions, one at a time in the process."""

from __future__ import annotations

from threading import Lock
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, tool

_SCHEMA_LOCK = Lock()
"""Held while LangChain reads a function's signature.

It does so inside `warnings.catch_warnings`, which saves and
restores a list that all threads share. Two agents built at once in two threads left the
application's filters changed for good, and with `-W error` one of the two builds failed."""


def function_tool(function: Any) -> BaseTool:
    """Return the tool that LangChain's decorator makes of `function`.

    Safe to call from several threads.
    """
    with _SCHEMA_LOCK:
        langchain_tool: BaseTool = tool(function)
    return langchain_tool


def structured_tool(*args: Any, **options: Any) -> StructuredTool:
    """Return `StructuredTool.from_function(*args, **options)`. Thread-safe."""
    with _SCHEMA_LOCK:
        return StructuredTool.from_function(*args, **options)
