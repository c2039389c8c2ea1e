"""The public names of the package with their signatures, as a text that is compared.

python -m tests.public_names            print them
python -m tests.public_names --write    take them as they are now
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "public_names.txt"
MODULES = (
    "agent_runtime",
    "agent_runtime.factory",
    "agent_runtime.callback_handler",
    "agent_runtime.orchestration.executor",
    "agent_runtime.orchestration.middleware",
    "agent_runtime.event_bus",
    "agent_runtime.event_bus.consumer",
    "agent_runtime.monitoring.metrics",
    "agent_runtime.pool",
    "agent_runtime.batch",
    "agent_runtime.sessions",
    "agent_runtime.testing",
    "agent_runtime.triggers",
    "agent_runtime.replay",
)
"""Paths that stay: what a program imports from here, it may go on importing from here."""


def lines() -> Iterator[str]:
    """Yield a line for each public name, and for each public method of a class."""
    for path in MODULES:
        module = importlib.import_module(path)
        for name in sorted(getattr(module, "__all__", None) or _own_names(module)):
            value = getattr(module, name)
            yield f"{path}.{name}{_signature(value)}"
            if inspect.isclass(value):
                yield from _members(f"{path}.{name}", value)


def _own_names(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _members(prefix: str, cls: type) -> Iterator[str]:
    own = [base for base in cls.__mro__ if base.__module__.startswith("agent_runtime")]
    for name in sorted({name for base in own for name in vars(base) if not name.startswith("_")}):
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            yield f"{prefix}.{name}: property"
        elif inspect.isroutine(member) or isinstance(member, classmethod | staticmethod):
            yield f"{prefix}.{name}{_signature(getattr(cls, name))}"


def _signature(value: Any) -> str:
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    # Without annotations and defaults: those are the types' and the docs' to tell.
    names = []
    keyword_only = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            names.append("*")
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(
            parameter.kind, ""
        )
        keyword_only = keyword_only or parameter.kind is parameter.VAR_POSITIONAL
        optional = "=" if parameter.default is not parameter.empty else ""
        names.append(f"{prefix}{parameter.name}{optional}")
    return f"({', '.join(names)})"


def text() -> str:
    """Return all lines."""
    return "".join(f"{line}\n" for line in lines())


if __name__ == "__main__":
    if "--write" in sys.argv:
        RECORD.write_text(text())
    else:
        sys.stdout.write(text())
