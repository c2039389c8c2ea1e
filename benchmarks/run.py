"""Every figure with its bar: `make bench`. Exits 1 when a bar is missed.

Method: one process, paired and interleaved, CPU time, medians; ratios are what counts, absolute
times are for scale. Both sides run the same `create_agent` graph over the same instant model.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentFactory,
    AgentResult,
    Handler,
    Middleware,
    gated,
    parse_template,
)
from agent_runtime.chunks import TextChunk
from agent_runtime.orchestration.middleware import compose
from benchmarks.batch import batch_rows
from benchmarks.call_input import call_input_rows
from benchmarks.common import InstantModel, Row, paired
from benchmarks.events import event_rows
from benchmarks.governance import governance_rows
from benchmarks.pools import pool_rows
from benchmarks.sessions import session_rows

QUESTION: Any = {"messages": [("human", "hello")]}


@tool
def get_weather(city: str) -> str:
    """Get the weather."""
    return "sunny"


def pair_of_agents(tokens: int = 1) -> tuple[AgentExecutor, Any]:
    """An executor as the factory builds it (gated model), and the bare graph it is compared
    with."""
    model = InstantModel(tokens=tokens)
    ours = create_agent(gated(model), [get_weather], system_prompt="Be nice")
    return AgentExecutor(ours, gated=True), create_agent(
        model, [get_weather], system_prompt="Be nice"
    )


async def turn_rows() -> list[Row]:
    executor, bare = pair_of_agents()
    foreign = AgentExecutor(bare)

    async def ours() -> None:
        await executor.execute(QUESTION)

    async def face() -> None:
        await executor.ainvoke(QUESTION)

    async def through_callbacks() -> None:
        await foreign.execute(QUESTION)

    async def alone() -> None:
        await bare.ainvoke(QUESTION)

    null, _ = await paired(alone, lambda: bare.ainvoke(QUESTION), pairs=100, batch=4)
    executed, cpu_us = await paired(ours, alone, pairs=250, batch=4)
    faced, _ = await paired(face, alone, pairs=250, batch=4)
    foreign_ratio, _ = await paired(through_callbacks, alone, pairs=150, batch=4)
    return [
        Row(
            "null test: a bare turn against itself",
            null,
            None,
            note=f"bare turn {cpu_us:.0f} us CPU",
        ),
        Row("execute, default pipeline + capture, against bare ainvoke", executed, 1.15, goal=1.05),
        Row("the same for an agent whose models are not gated (callbacks)", foreign_ratio, None),
        Row("ainvoke (Runnable face, root run) against bare ainvoke", faced, 1.35),
    ]


async def stream_rows() -> list[Row]:
    executor, bare = pair_of_agents(tokens=1000)

    async def ours() -> None:
        async with executor.execute_stream(QUESTION) as stream:
            async for _ in stream:
                pass

    async def alone() -> None:
        async with aclosing(bare.astream(QUESTION, stream_mode="messages")) as parts:
            async for _ in parts:
                pass

    ratio, cpu_us = await paired(ours, alone, pairs=100, batch=1)
    note = f"bare {cpu_us / 1000:.1f} us a token"
    return [
        Row(
            "execute_stream, 1,000 tokens, CPU a token, against bare astream",
            ratio,
            1.15,
            goal=1.05,
            note=note,
        )
    ]


class Noop(Middleware):
    async def process(self, context: AgentContext, next_call: Handler) -> AgentResult:
        return await next_call(context)


async def layer_rows() -> list[Row]:
    result = AgentResult("x", None)
    chunk = TextChunk("m", "x")

    async def core(context: AgentContext) -> AgentResult:
        return result

    async def chunky(context: AgentContext) -> AgentResult:
        for _ in range(1000):
            await context.emit(chunk)
        return result

    async def cost_us(handler: Handler, calls: int) -> float:
        context = AgentContext("x")
        started = time.process_time_ns()
        for _ in range(calls):
            await handler(context)
        return (time.process_time_ns() - started) / calls / 1000

    calls = []
    chunks = []
    for _ in range(41):
        eight = compose([Noop()] * 8, core)
        none = compose([], core)
        calls.append((await cost_us(eight, 3000) - await cost_us(none, 3000)) / 8)
        eight = compose([Noop()] * 8, chunky)
        none = compose([], chunky)
        chunks.append((await cost_us(eight, 20) - await cost_us(none, 20)) / 8 / 1000)
    per_chunk_ns = statistics.median(chunks) * 1000
    return [
        Row("one no-op layer, a call", statistics.median(calls), 0.3, "us"),
        # Zero by construction: the layer is not on a chunk's way. 2 ns is what 41 rounds resolve
        # here.
        Row("one no-op layer, a chunk", per_chunk_ns, 2, "ns"),
    ]


def template(prompt: str) -> Any:
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: bench}\n"
    return parse_template(
        f"{head}spec: {{model: instant, tools: [get_weather], system_prompt: '{prompt}'}}\n"
    )


def known_template_rows(factory: AgentFactory) -> list[Row]:
    known = template("Be nice")
    factory.create_agent(known)
    times = []
    for _ in range(41):
        started = time.process_time_ns()
        for _ in range(200):
            factory.create_agent(known)
        times.append((time.process_time_ns() - started) / 200 / 1000)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [factory.create_agent(known) for _ in range(200)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return [
        Row(
            "executor from a known template",
            statistics.median(times),
            10,
            "us",
            note="agno 15.6 us",
        ),
        Row("memory it keeps", (after - before) / len(kept) / 1024, 1, "KiB", note="agno 3.7 KiB"),
    ]


async def new_template_row(factory: AgentFactory) -> Row:
    model = InstantModel()
    numbers = iter(range(10**6))
    templates: list[Any] = []

    kept: list[
        Any
    ] = []  # the factory keeps what it builds, so both sides do: the collector walks both

    async def ours() -> None:
        factory.create_agent(templates.pop())

    async def alone() -> None:
        kept.append(create_agent(model, [get_weather], system_prompt=f"Be nice {next(numbers)}"))

    def fresh_templates() -> (
        None
    ):  # just read, as they are when a program loads one and makes its agent
        templates[:] = [template(f"Be nice {next(numbers)}") for _ in range(3)]

    ratio, cpu_us = await paired(ours, alone, pairs=300, batch=3, prepare=fresh_templates)
    return Row(
        "executor from a new template, against create_agent",
        ratio,
        1.05,
        note=f"create_agent {cpu_us:.0f} us",
    )


async def concurrency_rows() -> list[Row]:
    executor, _ = pair_of_agents(tokens=100)
    tasks_before = len(asyncio.all_tasks())

    async def one() -> int:
        async with executor.execute_stream(QUESTION) as stream:
            return sum([1 async for _ in stream])

    await asyncio.gather(*(one() for _ in range(10)))
    gc.collect()
    tracemalloc.start()
    started = time.perf_counter()
    counts = await asyncio.gather(*(one() for _ in range(1000)))
    took_s = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await asyncio.sleep(0)
    return [
        Row(
            "1,000 concurrent streams of 100 tokens: incomplete ones",
            sum(c != 100 for c in counts),
            0,
            "",
        ),
        Row("tasks left behind by them", len(asyncio.all_tasks()) - tasks_before, 0, ""),
        Row(
            "peak memory a stream",
            peak / 1000 / 1024,
            None,
            "KiB",
            note=f"{took_s:.1f} s in all, under tracemalloc",
        ),
    ]


def help_row() -> Row:
    bare = "import click\n@click.group()\ndef cli():\n    '''A program.'''\n" + "".join(
        f"@cli.command()\n@click.option('--x', help='X.')\ndef c{i}(x):\n    '''Command {i}.'''\n"
        for i in range(7)
    )
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bare.py"
        program.write_text(bare + "cli()\n")
        commands = {
            "ours": [sys.executable, "-m", "agent_runtime", "--help"],
            "bare": [sys.executable, str(program), "--help"],
        }
        ratios = []
        for index in range(21):
            taken = {}
            for name in sorted(commands, reverse=bool(index % 2)):
                started = time.perf_counter()
                subprocess.run(commands[name], check=True, stdout=subprocess.DEVNULL)
                taken[name] = time.perf_counter() - started
            ratios.append(taken["ours"] / taken["bare"])
    return Row("agent-runtime --help, against a bare click program", statistics.median(ratios), 1.5)


async def main() -> int:
    # A service logs calls at WARNING or into a handler of its own; measured is the pipeline, not a
    # terminal.
    logging.getLogger("agent_runtime").setLevel(logging.WARNING)
    factory = AgentFactory(max_agents=10_000)
    factory.register_model("instant", InstantModel())
    factory.register_tool("get_weather", copy.copy(get_weather))
    packages = ", ".join(f"{p} {version(p)}" for p in ("langchain", "langchain-core", "langgraph"))
    print(
        f"CPython {platform.python_version()}, {packages}; paired, interleaved, medians, CPU time\n"
    )
    rows = [
        *await turn_rows(),
        *await stream_rows(),
        *await layer_rows(),
        *known_template_rows(factory),
        await new_template_row(factory),
        *await concurrency_rows(),
        help_row(),
        *call_input_rows(),
        *await session_rows(),
        *await governance_rows(),
        *await event_rows(),
        *await pool_rows(),
        *await batch_rows(),
    ]
    for row in rows:
        print(row.line())
    missed = [row.what for row in rows if row.missed]
    print(f"\n{len(missed)} of {sum(r.bar is not None for r in rows)} bars missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
