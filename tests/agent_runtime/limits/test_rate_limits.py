"""Rates, and the history of admissions over several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from agent_runtime import RateLimit
from agent_runtime.errors import ConfigurationError

SUPPORT = Path(__file__).parents[2] / "support"
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT.parents[1]), *sys.path])}
AMOUNT = 20
WINDOW_S = 1


def test_no_window_over_the_history_of_four_processes_has_too_many(
    redis_url: str, tmp_path: Path
) -> None:
    url = f"{redis_url}?prefix={uuid.uuid4().hex}"
    files = [str(tmp_path / str(n)) for n in range(4)]
    limit = f"{AMOUNT}/{WINDOW_S} second"
    commands = [
        [sys.executable, str(SUPPORT / "window_worker.py"), url, limit, "4", file] for file in files
    ]
    running = [subprocess.Popen(command, env=ENV) for command in commands]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    admitted = sorted(float(line) for file in files for line in Path(file).read_text().split())
    assert len(admitted) >= 3 * AMOUNT  # it was used, over several windows
    for first, at in enumerate(admitted):
        assert len([t for t in admitted[first : first + AMOUNT + 1] if t < at + WINDOW_S]) <= AMOUNT


@pytest.mark.parametrize(
    ("rate", "amount", "window_s"),
    [
        ("1/second", 1, 1),
        ("2 per 3 minutes", 2, 180),
        ("5/ 10 seconds", 5, 10),
        ("7/hour", 7, 3600),
        ("1/day", 1, 86_400),
        ("1/2 months", 1, 5_184_000),
        ("1/year", 1, 31_104_000),
    ],
)
def test_a_rate_is_an_amount_in_a_window(rate: str, amount: int, window_s: int) -> None:
    limit = RateLimit(rate)
    assert (limit.amount, limit.window_s) == (amount, window_s)
    assert RateLimit.parse(f"{rate} per user") == RateLimit(rate, ("user",))


@pytest.mark.parametrize("rate", ["0/minute", "100001/day", "1/0 seconds", "1/fortnight", "-1/day"])
def test_a_rate_that_cannot_be_one_is_refused(rate: str) -> None:
    with pytest.raises(ConfigurationError):
        RateLimit(rate)
