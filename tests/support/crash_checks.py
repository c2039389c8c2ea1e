"""Kill a process at every boundary of a turn, restart it, and check the session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


ROOT = Path(__file__).parents[2]


ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}


def check_crashes(url: str, mode: str, folder: Path, *, stride: int, timeout_s: float = 110) -> int:
    """Kill, restart and check at every `stride`-th boundary of a turn; returns how many that
    were."""
    command = [sys.executable, str(HERE / "session_crash.py"), url, mode, str(folder), str(stride)]
    done = subprocess.run(
        command, env=ENV, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) * stride > 40
    for each in found:
        where = f"killed at {each['at']}: {each}"
        texts = [text for _, text in each["texts"]]
        assert each["effects"] <= 1, where
        assert "hi" in each["acknowledged"], where
        assert texts[:2] == ["hi", "hello"] or (mode == "continue" and not texts), where
        if "pay" in each["acknowledged"]:
            assert texts[2:6] == ["pay", "", "paid", "done"] or mode == "continue", where
        if (
            each["status"] == "interrupted"
        ):  # it asks, because the tool had begun and nobody knows more
            assert mode == "continue", where
        else:
            assert each["open"] == [], where
            assert not (mode == "message" and "paid" in texts and each["effects"] == 0), where
    return len(found)
