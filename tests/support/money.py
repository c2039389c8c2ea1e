"""Spend money in several processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from agent_runtime import RedisLedger
from tests.support.proxy import losing_proxy

HERE = Path(__file__).parent


ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path])}


HOLD_S = 1.0


def spend_rounds(
    redis_url: str,
    folder: Path,
    *,
    processes: int,
    at_once: int,
    calls: int,
    rounds: int,
    budget: str,
    kill: bool,
    lost: float = 0.03,
) -> tuple[int, int, int]:
    """Micro-USD that the provider billed, that the ledger has, and that the budget is."""
    truth = folder / "truth"
    prefix = uuid.uuid4().hex
    truth.touch()
    dice = random.Random(5)
    with losing_proxy(urlsplit(redis_url).port or 0, lost) as port:
        for _ in range(rounds):
            url = f"redis://127.0.0.1:{port}?prefix={prefix}"
            args = [
                str(HERE / "money_worker.py"),
                url,
                str(truth),
                str(at_once),
                str(calls),
                budget,
                str(HOLD_S),
            ]
            running = [subprocess.Popen([sys.executable, *args], env=ENV) for _ in range(processes)]
            if kill:
                time.sleep(2.0 + dice.random())
                running[0].kill()
            codes = [process.wait(timeout=100) for process in running]
            assert set(codes[1:]) == {0}, codes
    time.sleep(HOLD_S + 0.1)
    ledger = RedisLedger(redis_url, prefix=prefix)
    ledger.expire_holds().run()
    (balance,) = ledger.balances().run().values()
    assert balance.held_micro_usd == 0
    billed = sum(map(int, truth.read_text().split()))
    return billed, balance.spent_micro_usd, int(Decimal(budget) * 1_000_000)
