"""The templates that come with the package."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve()


def builtin_folder() -> Path:
    """Return the folder of built-in templates.

    It is package data in a wheel, `templates/` in a checkout.
    """
    packaged = _HERE.parent / "shipped"
    return packaged if packaged.is_dir() else _HERE.parents[3] / "templates"


def builtin_templates() -> dict[str, Path]:
    """Name to file of each shipped template."""
    return {path.stem: path for path in sorted(builtin_folder().glob("*.yaml"))}
