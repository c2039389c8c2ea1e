"""Kill -9 of a batch at random points, until it is through.

What the provider counted, and what was kept.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agent_runtime import SqliteLedger
from agent_runtime.batch import open_journal
from agent_runtime.budgets.ledger.ledger import MICROS_PER_USD
from tests.support.billing_provider import ProviderProcess, template
from tests.support.programs import with_tests

HERE = "tests.support"


def kill_loop(
    home: Path, *, tasks: int, kills: int, delay_s: float = 0.02, seed: int = 1
) -> dict[str, Any]:
    """Run `tasks` tasks in a process that is killed `kills` times.

    Returns the counts that prove it.
    """
    dice = random.Random(seed)
    environment = {**with_tests(), "DUMMY_KEY": "dummy"}
    with ProviderProcess(delay_s) as provider:
        file = home / "stub.yaml"
        file.write_text(template(provider.url))
        points = sorted(dice.sample(range(1, tasks), kills))  # of billed calls
        killed = 0
        over = False
        finished_again = 0
        while not over:
            before = asyncio.run(kept(home)) if killed else {}
            asked = provider.counts()["asked"]
            with subprocess.Popen(
                [sys.executable, "-m", f"{HERE}.doomed_batch", str(home), str(file), str(tasks),
                "b"],
                stdout=subprocess.PIPE, text=True, env=environment,
            ) as batch:  # fmt: skip
                try:
                    assert batch.stdout is not None
                    assert batch.stdout.readline() == "ready\n"
                    if killed < kills:
                        while provider.billed() < points[killed] and batch.poll() is None:
                            time.sleep(dice.uniform(0, 0.01))
                        if batch.poll() is None:
                            os.kill(batch.pid, signal.SIGKILL)
                            killed += 1
                    over = batch.wait(120) == 0
                finally:
                    batch.kill()
            now = provider.counts()["asked"]
            finished_again += sum(now.get(prompt, 0) != asked.get(prompt, 0) for prompt in before)
        counts = provider.counts()
    return {**asyncio.run(_found(home, counts)), "killed": killed, "finished_again": finished_again}


async def kept(home: Path) -> dict[str, str]:
    """The prompts whose results are in the journal, and what was answered."""
    journal = open_journal(f"sqlite:{home / 'batches.db'}")
    found: dict[str, str] = {}
    after = 0
    while page := await journal.results("b", after):
        found |= {f"task {each.seq - 1}": each.result.output for each in page}
        after = page[-1].number
    await journal.aclose()
    return found


async def _found(home: Path, counts: dict[str, Any]) -> dict[str, Any]:
    results = await kept(home)
    ledger = SqliteLedger(home / "ledger.db")
    balance = ledger.balances().run()["batch=b/total"]
    await ledger.aclose()
    return {
        "results": len(results),
        "right": sum(output == f"did: {prompt}" for prompt, output in results.items()),
        "billed": sum(counts["billed"].values()),
        "asked": sum(counts["asked"].values()),
        "ledger_usd": balance.spent_micro_usd / MICROS_PER_USD,
        "held_usd": balance.held_micro_usd / MICROS_PER_USD,
        "provider_usd": float(counts["usd"]),
    }
