"""A batch that is killed.

`python -m tests.support.doomed_batch HOME TEMPLATE TASKS ID`.

Submits the tasks under the id, or goes on with them when the journal knows it; prints `ready` when
it runs and `done` at the end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent_runtime import AgentFactory, SqliteLedger
from agent_runtime.batch import BatchSettings, ParallelAgentExecutor, open_journal
from agent_runtime.errors import ExecutionNotFound

SETTINGS = {
    "max_concurrent": 16,
    "max_cost_usd": 100.0,
    "approval": False,
    "max_lost": 100,
    "grace": "1s",
}


async def main(home: Path, template: str, count: int, name: str) -> None:
    journal = open_journal(f"sqlite:{home / 'batches.db'}")
    factory = AgentFactory(ledger=SqliteLedger(home / "ledger.db", synchronous="normal"))
    async with (
        factory,
        ParallelAgentExecutor(factory, BatchSettings.parse(SETTINGS), journal=journal) as executor,
    ):
        try:
            await journal.get(name)
        except ExecutionNotFound:
            tasks = [f"task {n}" for n in range(count)]
            await executor.submit_batch_tasks(tasks, agent=template, execution_id=name)
        else:
            await executor.resume_execution(name)
        print("ready", flush=True)
        status = await executor.wait(name)
        print("done", status["status"], status["ended"], flush=True)
    await journal.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
