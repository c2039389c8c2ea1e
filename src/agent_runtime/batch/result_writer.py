"""Write results to a JSONL file, one line each, as they are stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from agent_runtime.batch.result import TaskResult


class ResultFile:
    """Write one result per line; `with` opens and closes the file.

    The file is rewritten from the start: for a resumed execution the journal has all results,
    including any that a killed process wrote only half. It is readable up to its last line at any
    time.
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
        """Write a result, visible to readers at once. Raises OSError."""
        assert self._file is not None, "used outside `with`"  # noqa: S101
        self._file.write(result.to_json() + "\n")
        self._file.flush()
