"""Programs that tests start; imported by them, so it imports next to nothing."""

from __future__ import annotations

import os
from pathlib import Path


def with_tests() -> dict[str, str]:
    """The environment of a program that imports these tests.

    What is on the path already goes first.
    """
    paths = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
