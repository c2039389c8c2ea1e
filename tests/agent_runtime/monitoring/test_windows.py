"""The history of admissions over several processes has no window with too many."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), *sys.path])}
AMOUNT = 20
WINDOW_S = 1


def test_no_window_over_the_history_of_four_processes_has_too_many(
    redis_url: str, tmp_path: Path
) -> None:
    url = f"{redis_url}?prefix={uuid.uuid4().hex}"
    files = [str(tmp_path / str(n)) for n in range(4)]
    limit = f"{AMOUNT}/{WINDOW_S} second"
    commands = [
        [sys.executable, str(HERE / "window_worker.py"), url, limit, "4", file] for file in files
    ]
    running = [subprocess.Popen(command, env=ENV) for command in commands]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    admitted = sorted(float(line) for file in files for line in Path(file).read_text().split())
    assert len(admitted) >= 3 * AMOUNT  # it was used, over several windows
    for first, at in enumerate(admitted):
        assert len([t for t in admitted[first : first + AMOUNT + 1] if t < at + WINDOW_S]) <= AMOUNT
