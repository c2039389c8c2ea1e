"""Batches beside what they are measured against.

Plain workers over an iterator, `abatch`, and the ideal.

    python -m benchmarks.batch [WORD]

WORD chooses rows by name. The account's row takes four minutes, because a minute is what it is
about.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda
from tests.support.billing_provider import BillingProvider, billing, template

from agent_runtime import AgentFactory, parse_template
from agent_runtime.batch import BatchSettings, BatchTask, ParallelAgentExecutor, open_journal
from agent_runtime.template import AgentTemplate
from agent_runtime.types import AgentContext, AgentResult
from benchmarks.common import Row
from benchmarks.pools import burn

_HEAD = {"apiVersion": "agent-runtime/v1", "kind": "AgentTemplate"}


class Waiting:
    """A backend whose tasks wait: what is measured is the engine."""

    name = "waiting"
    slots: int | None = None
    weight = 1.0

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def open(self) -> None: ...

    async def aclose(self) -> None: ...

    async def check(self, task: BatchTask, execution_id: str) -> bool:
        return True

    async def run(self, task: BatchTask, call: AgentContext, execution_id: str) -> AgentResult:
        await asyncio.sleep(self._seconds)
        return AgentResult("ok", None)

    def forget(self, execution_id: str) -> None: ...


async def plain_workers(count: int, seconds: float, workers: int) -> None:
    """The least that can be done: workers over an iterator."""
    tasks = iter(range(count))

    async def work() -> None:
        for _ in tasks:
            await asyncio.sleep(seconds)

    await asyncio.gather(*(work() for _ in range(workers)))


async def engine(
    count: int, journal: str, backend: Any = None, agent: str = "naps", **settings: Any
) -> dict[str, float]:
    """Wall and CPU seconds of a batch, from its submission to its end."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_journal(f"sqlite:{folder}/j.db" if journal == "sqlite" else "memory:")
        async with AgentFactory() as factory:
            add_agents(factory)
            made = BatchSettings.parse({"max_concurrent": 8, **settings})
            backends = [] if backend is None else [backend]
            async with ParallelAgentExecutor(
                factory, made, journal=store, backends=backends
            ) as executor:
                gc.collect()
                wall_s = time.perf_counter()
                cpu_s = time.process_time()
                name = await executor.submit_batch_tasks(["x"] * count, agent=agent)
                status = await executor.wait(name)
                wall_s = time.perf_counter() - wall_s
                cpu_s = time.process_time() - cpu_s
                assert status["completed"] == count, status
        await store.aclose()
    return {"wall_s": wall_s, "cpu_s": cpu_s}


def add_agents(factory: AgentFactory) -> None:
    for name, work in (("naps", nap), ("naps_long", nap_long)):
        factory.register_workflow(name, RunnableLambda(work))
        spec = {"workflow": name, "runtime": {"retry": {"attempts": 1}}}
        factory.register_template(
            AgentTemplate.model_validate({**_HEAD, "metadata": {"name": name}, "spec": spec})
        )


async def nap(given: Any) -> str:
    await asyncio.sleep(0.05)
    return "rested"


async def nap_long(given: Any) -> str:
    await asyncio.sleep(1.0)
    return "rested"


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    wall_s = time.perf_counter()
    cpu_s = time.process_time()
    await work()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


async def efficiency_rows() -> list[Row]:
    """1,000 tasks of 50 ms, 8 at once; each way three times, interleaved."""
    ideal_s = 1000 * 0.05 / 8
    found = dict[str, list[float]]()
    nothing: Runnable[Any, Any] = RunnableLambda(nap)
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "plain workers": lambda: _wall(lambda: plain_workers(1000, 0.05, 8)),
        "LangChain abatch": lambda: _wall(
            lambda: nothing.abatch([0] * 1000, {"max_concurrency": 8})
        ),
        "journal, bare tasks": lambda: _engine_s(Waiting(0.05)),
        "journal, through every layer": lambda: _engine_s(None),
    }
    for _ in range(3):
        for name, way in ways.items():
            found.setdefault(name, []).append(ideal_s / await way())
    best = {name: statistics.median(values) for name, values in found.items()}
    note = (
        f"plain workers {best['plain workers']:.3f}, abatch {best['LangChain abatch']:.3f} "
        "in the same run"
    )
    return [
        Row(
            "1,000 tasks of 50 ms, 8 at once, SQLite journal: efficiency",
            best["journal, bare tasks"],
            0.985,
            "",
            at_least=True,
            note=note,
        ),
        Row(
            "the same through every layer of an agent",
            best["journal, through every layer"],
            None,
            "",
        ),
        Row(
            "the same beside plain workers",
            best["journal, bare tasks"] / best["plain workers"],
            None,
            "x",
        ),
    ]


async def _wall(work: Callable[[], Awaitable[Any]]) -> float:
    return (await timed(work))[0]


async def _engine_s(backend: Any) -> float:
    return (await engine(1000, "sqlite", backend))["wall_s"]


async def overhead_rows() -> list[Row]:
    """CPU a task beyond that of plain workers, which await as often; medians of five,
    interleaved."""
    count = 3000
    found = {"memory": list[float](), "sqlite": list[float]()}
    await engine(500, "sqlite", Waiting(0.001))
    for _ in range(5):
        _, bare_s = await timed(lambda: plain_workers(count, 0.001, 8))
        for journal, values in found.items():
            cpu_s = (await engine(count, journal, Waiting(0.001)))["cpu_s"]
            values.append((cpu_s - bare_s) / count * 1e6)
    return [
        Row(
            "overhead a task, no journal: CPU, with its acceptance",
            statistics.median(found["memory"]),
            60,
            "us",
        ),
        Row(
            "overhead a task, SQLite journal: CPU, with its acceptance",
            statistics.median(found["sqlite"]),
            200,
            "us",
        ),
    ]


async def speed_up_rows() -> list[Row]:
    """Tasks of one second on 10 slots, against one after another."""
    rows = []
    await engine(20, "sqlite")  # imports and first builds are not part of it
    for count in (4, 8, 12, 16):
        wall_s = (await engine(count, "sqlite", agent="naps_long", max_concurrent=10))["wall_s"]
        ideal = count / -(-count // 10)
        rows.append(
            Row(
                f"{count} tasks on 10 slots: speed-up against the ideal {ideal:g}",
                count / wall_s / ideal,
                0.97,
                "x",
                at_least=True,
                note=f"{count / wall_s:.2f} x",
            )
        )
    return rows


async def memory_rows(count: int = 100_000) -> list[Row]:
    """Resident memory after 1,000 tasks, and after all."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_journal(f"sqlite:{folder}/j.db")
        settings = BatchSettings.parse({"max_concurrent": 64})
        async with (
            AgentFactory() as factory,
            ParallelAgentExecutor(
                factory, settings, journal=store, backends=[Waiting(0.0)]
            ) as executor,
        ):
            marks: dict[int, float] = {}
            began_s = time.perf_counter()
            name = await executor.submit_batch_tasks((f"task {n}" for n in range(count)), agent="x")
            accepted_s = time.perf_counter() - began_s
            seen = 0
            async for _ in executor.stream_results(name):
                seen += 1
                if seen in (1_000, count // 4, count // 2, count):
                    gc.collect()
                    marks[seen] = _rss_mb()
            took_s = time.perf_counter() - began_s - accepted_s
        await store.aclose()
    first, *rest = marks.values()
    shown = ", ".join(f"{n}: {mb:.0f}" for n, mb in marks.items())
    note = f"MiB at {shown}; accepted in {accepted_s:.1f} s, {count / took_s:.0f} tasks/s"
    return [
        Row(
            "100,000 tasks: memory after the first 1,000 grows by",
            max(rest) - first,
            None,
            "MiB",
            note=note,
        )
    ]


def _rss_mb() -> float:
    if Path("/proc/self/statm").exists():
        return (
            int(Path("/proc/self/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 2**20
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Burning(Runnable[Any, Any]):
    """An agent that computes; at the top of a module, so that a process can import it."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        return str(burn(int(str(input))))

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        return self.invoke(input)


BURNING = Burning()


async def process_rows() -> list[Row]:
    """Computing agents on both cores, against one after another in one process of the pool."""
    rounds = 3_000_000
    count = 16
    ratios = list[float]()
    with ProcessPoolExecutor(1) as alone, ProcessPoolExecutor(2) as both:

        def plain_s(pool: ProcessPoolExecutor) -> float:
            began_s = time.perf_counter()
            list(pool.map(burn, [rounds] * count))
            return time.perf_counter() - began_s

        plain_s(both)  # its processes start
        plain = [plain_s(alone) / plain_s(both) for _ in range(3)]
    async with AgentFactory() as factory:
        factory.register_workflow("burns", BURNING)
        spec = {"workflow": "burns", "runtime": {"retry": {"attempts": 1}}}
        factory.register_template(
            AgentTemplate.model_validate({**_HEAD, "metadata": {"name": "burns"}, "spec": spec})
        )
        settings = BatchSettings.parse(
            {"max_concurrent": 2, "backend": "process", "pool": {"size": 2}}
        )
        async with ParallelAgentExecutor(factory, settings) as executor:

            async def run(at_once: int) -> float:
                name = await executor.submit_batch_tasks(
                    [str(rounds)] * count, at_once, agent="burns"
                )
                status = await executor.wait(name)
                assert status["completed"] == count, status
                return float(status["active_s"])

            await run(2)
            ratios += [await run(1) / await run(2) for _ in range(3)]
    name = "computing agents, process backend, 2 cores: speed-up"
    note = f"ProcessPoolExecutor {statistics.median(plain):.3f} x"
    return [Row(name, statistics.median(ratios), 1.9, "x", at_least=True, note=note)]


async def account_rows(per_minute: int = 600, minutes: float = 2.0) -> list[Row]:
    """An account of so many calls a minute (a moving window).

    What is used of it, and what is refused, once warm.
    """
    os.environ.setdefault("DUMMY_KEY", "dummy")
    async with (
        billing(delay_s=0.2, per_window=per_minute, window_s=60.0) as provider,
        AgentFactory() as factory,
    ):
        factory.register_template(parse_template(template(provider.url, header=False)))
        settings = BatchSettings.parse(
            {"max_concurrent": 32, "retry": {"attempts": 10, "budget": 1.0, "max_delay": "60s"}}
        )
        async with ParallelAgentExecutor(factory, settings) as executor:
            count = int(per_minute * (minutes + 4))
            name = await executor.submit_batch_tasks([f"t{n}" for n in range(count)], agent="stub")
            await asyncio.sleep(120)  # the first window is used up in seconds, the second is paced
            used, refused = await _measured(provider, per_minute, minutes)
            await executor.cancel_execution(name)
    return [
        Row(
            f"{per_minute} calls a minute: share of the allowed rate that is used",
            used,
            0.9,
            "x",
            at_least=True,
        ),
        Row(f"{per_minute} calls a minute: share of the calls that is refused", refused, 0.01, "x"),
    ]


async def _measured(
    provider: BillingProvider, per_minute: int, minutes: float
) -> tuple[float, float]:
    before = len(provider.times)
    await asyncio.sleep(60 * minutes)
    seen = provider.times[before:]
    admitted = sum(ok for _, ok in seen)
    return admitted / (per_minute * minutes), 1 - admitted / len(seen)


ROWS = (efficiency_rows, overhead_rows, speed_up_rows, memory_rows, process_rows, account_rows)


async def batch_rows(word: str = "") -> list[Row]:
    return [row for make in ROWS if word in make.__name__ for row in await make()]


async def main() -> int:
    rows = await batch_rows(*sys.argv[1:])
    for row in rows:
        print(row.line())
    return 1 if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
