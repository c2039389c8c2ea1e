"""Write the map of the folders into CONTRIBUTING.md, from the first lines of their docstrings.

    python -m tools.folder_map

A test fails when the map is out of date.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src/agent_runtime"
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN = "<!-- map: written by python -m tools.folder_map -->\n"
END = "<!-- end of the map -->\n"
KERNEL = (
    "types.py", "chunks.py", "usage.py", "errors", "template", "registry.py", "run", "providers",
    "orchestration", "orchestration/middleware", "factory",
)  # fmt: skip
"""What the kernel consists of, in the order of a call."""


def summary(path: Path) -> str:
    """Return the first line of a module's or a package's docstring."""
    source = path / "__init__.py" if path.is_dir() else path
    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
    return docstring.partition("\n")[0]


def folder_map() -> str:
    """Return the map: the kernel in the order of a call, then the other folders by name."""
    folders = sorted(
        str(package.parent.relative_to(SOURCES)) for package in SOURCES.rglob("*/__init__.py")
    )
    rows = [f"| `{name}` | {summary(SOURCES / name)} |" for name in KERNEL]
    rows.append("| | **here the kernel ends** |")
    rows += [f"| `{name}` | {summary(SOURCES / name)} |" for name in folders if name not in KERNEL]
    return "\n".join(["| where | what |", "|---|---|", *rows]) + "\n"


def with_map(page: str) -> str:
    """Return the page with the map as the folders are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{folder_map()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
