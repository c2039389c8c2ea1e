"""Where the core ends: files without circles, and a kernel that imports little of the rest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import agent_runtime

SRC = Path(agent_runtime.__file__).parent
KERNEL = (
    "types",
    "chunks",
    "usage",
    "errors",
    "template",
    "registry",
    "run",
    "providers",
    "orchestration",
    "factory",
)
MAX_KERNEL_LINES = 15_100
"""It may only fall: 11,500 is the aim."""

# What a part of the kernel imports of the rest, types included. A part may lose an entry, never
# gain one.
IMPORTS: dict[str, set[str]] = {
    "types": {"cancel_watch"},
    "errors": {"secrets"},
    "template": {"bounded_file", "budgets", "secrets", "size_limits", "strict_json"},
    "registry": {"models", "tools"},
    "run": {"budgets", "cancel_watch", "monitoring", "sessions"},
    "providers": {"event_bus", "size_limits"},
    "orchestration": {
        *("auth", "budgets", "cancel_watch", "checkpoints", "event_bus", "limits", "monitoring"),
        *("secrets", "sessions", "size_limits", "tools"),
    },
    "factory": {
        *("_lazy", "auth", "budgets", "checkpoints", "event_bus", "limits", "mcp", "models"),
        *("monitoring", "sessions", "tools"),
    },
}


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(SRC.rglob("*.py"))}


def imported_by(module: str) -> set[str]:
    """Return the modules of the package that a file imports.

    For types, late, or as a package's parts.
    """
    tree = ast.parse(MODULES[module].read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent_runtime"):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = parts & MODULES.keys()
            names |= inner
            if len(inner) < len(parts) and node.module in MODULES:
                names.add(node.module)
    return names - {module}


def circles(graph: dict[str, set[str]]) -> Iterator[set[str]]:
    """Give the sets of modules that reach each other."""
    reached = {module: _reach(graph, module) for module in graph}
    done: set[str] = set()
    for module, others in reached.items():
        if module in others and module not in done:
            circle = {other for other in others if module in reached.get(other, ())}
            done |= circle
            yield circle


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph.get(module, ())
    return reached


def test_no_files_import_each_other_in_a_circle() -> None:
    # A package's `__init__` that loads its names late gives names of modules below it to type
    # checkers only.
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    graph = {module: imported_by(module) for module in MODULES if module not in packages}
    assert list(circles(graph)) == []


def test_a_circle_is_noticed() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert list(circles(graph)) == [{"b", "c"}]


def kernel_files() -> list[Path]:
    return [path for module, path in MODULES.items() if part_of(module) in KERNEL]


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_kernel_does_not_grow() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in kernel_files())
    assert lines <= MAX_KERNEL_LINES


def test_the_kernel_imports_no_more_of_the_rest() -> None:
    imports: dict[str, set[str]] = {}
    for module in MODULES:
        if part_of(module) in KERNEL:
            others = {part_of(other) for other in imported_by(module)} - set(KERNEL) - {""}
            imports.setdefault(part_of(module), set()).update(others)
    assert {part: others for part, others in imports.items() if others} == IMPORTS
