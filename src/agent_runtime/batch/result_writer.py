"""Results in a JSONL file, line by line as they are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from agent_runtime.batch.result import TaskResult


class ResultFile:
    """Writes a result a line; `with` opens and closes it.

    The file is made anew: of an execution that is gone on with, the journal has all results, also
    those that a killed process had written only half. Until it is whole, it is readable up to its
    last line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def __enter__(self) -> ResultFile:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def write(self, result: TaskResult) -> None:
        """Add a result; what is written is seen by readers at once. Raises OSError."""
        assert self._file is not None, "used outside `with`"  # noqa: S101
        self._file.write(result.to_json() + "\n")
        self._file.flush()
