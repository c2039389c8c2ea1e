"""A batch in the foreground: its agents, its progress, its results and its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from agent_runtime.cli.batch_options import absolute, open_batches
from agent_runtime.cli.batch_view import BatchView, forecast_text, write_report
from agent_runtime.cli.options import note_model, shared_seats
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import event_recording, open_dead, open_sessions, opened_factory
from agent_runtime.errors import InputInvalid

if TYPE_CHECKING:
    from agent_runtime.auth.identities import OPERATOR
    from agent_runtime.batch import BatchSettings, ParallelAgentExecutor, TaskResult

EXIT_BUDGET = 6
EXIT_AWAITED = 7
EXIT_INTERRUPTED = 130
SHOW_S = 0.5


@asynccontextmanager
async def prepared(
    journal: str | None,
    ledger: str | None,
    settings: BatchSettings,
    agent: str | None,
    model: str | None,
    *,
    quiet: bool,
) -> AsyncIterator[tuple[ParallelAgentExecutor, str]]:
    """An open executor, and the name under which it knows the agent."""
    from agent_runtime.batch import ParallelAgentExecutor
    from agent_runtime.template.overrides import overridden
    from agent_runtime.template.spec import is_path
    from agent_runtime.types import Principal

    store = open_batches(journal)
    dead = open_dead()
    try:
        sessions = open_sessions(None) if settings.sessions else None
        seats = {"session_manager": sessions, **shared_seats(ledger)}
        async with opened_factory(**seats) as factory, event_recording(factory):
            name = agent or ""
            principal = None
            if agent:
                template = factory.get_template(agent)
                if not quiet:
                    note_model(model or (template.spec.model.id if template.spec.model else ""))
                if model is not None:
                    name = factory.register_template(overridden(template, {"model": model}))
                elif is_path(agent):
                    name = absolute(agent) or ""
                if (
                    template.spec.runtime.auth.require
                ):  # who runs commands here owns the state directory
                    principal = Principal(OPERATOR, scopes=frozenset({"*"}))
            made = ParallelAgentExecutor(
                factory, settings, journal=store, dead_letters=dead, principal=principal
            )
            async with made as executor:
                yield executor, name
    finally:
        await store.aclose()
        await dead.aclose()


async def followed(
    executor: ParallelAgentExecutor,
    execution_id: str,
    notes: Mapping[str, Any],
    *,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Show a batch that runs here and write its results until it rests; returns the exit code."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stopped.set)
    rested = asyncio.Event()
    writing = asyncio.create_task(
        _write(executor, execution_id, notes.get("out"), rested, as_json=as_json)
    )
    try:
        found = await _watched(executor, execution_id, stopped, writing, yes=yes, quiet=quiet)
        if stopped.is_set() or _broken(writing):
            with suppress(InputInvalid):  # it has just ended
                await executor.suspend_execution(execution_id)
            found = await executor.get_execution_status(execution_id)
        rested.set()
        await writing
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
    return await _told_end(
        executor, found, notes, as_json=as_json, quiet=quiet, stopped=stopped.is_set()
    )


def _broken(writing: asyncio.Task[None]) -> bool:
    """Whether results cannot be written any more."""
    return writing.done() and writing.exception() is not None


async def _write(
    executor: ParallelAgentExecutor,
    execution_id: str,
    out: str | None,
    rested: asyncio.Event,
    *,
    as_json: bool,
) -> None:
    """Write results as they come, to a file or to stdout, until the batch rests for good."""
    from agent_runtime.batch import ResultFile

    if out is None and as_json:
        return
    with nullcontext(None) if out is None else ResultFile(out) as file:
        count = 0
        last = False
        while not last:
            last = rested.is_set()
            async for result in executor.stream_results(execution_id, after=count):
                _print(result) if file is None else file.write(result)
                count += 1
            with suppress(TimeoutError):  # paused: somebody may be asked, and say go on
                async with asyncio.timeout(SHOW_S):
                    await rested.wait()


def _print(result: TaskResult) -> None:
    sys.stdout.write(result.to_json() + "\n")
    sys.stdout.flush()


async def _watched(
    executor: ParallelAgentExecutor,
    execution_id: str,
    stopped: asyncio.Event,
    writing: asyncio.Task[None],
    *,
    yes: bool,
    quiet: bool,
) -> dict[str, Any]:
    rests = asyncio.create_task(executor.wait(execution_id))
    stops = asyncio.create_task(stopped.wait())
    try:
        with BatchView(quiet=quiet) as view:
            while True:
                await asyncio.wait(
                    [rests, stops], timeout=SHOW_S, return_when=asyncio.FIRST_COMPLETED
                )
                found = await executor.get_execution_status(execution_id)
                view.show(found, last=rests.done())
                if stops.done() or _broken(writing):
                    return found
                if rests.done():
                    found = rests.result()
                    if found["state"] != "awaiting_approval" or not await _approved(
                        found, stops, yes=yes, quiet=quiet
                    ):
                        return found
                    if (await executor.get_execution_status(execution_id))[
                        "state"
                    ] != "awaiting_approval":
                        return await executor.get_execution_status(execution_id)
                    await executor.resume_execution(execution_id, approve=True)
                    rests = asyncio.create_task(executor.wait(execution_id))
    finally:
        rests.cancel()
        stops.cancel()


async def _approved(
    found: Mapping[str, Any], stops: asyncio.Task[Any], *, yes: bool, quiet: bool
) -> bool:
    if not quiet or not yes:
        echo(f"{forecast_text(found)}; the budget is {found['max_cost_usd']:g} USD", err=True)
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    echo("Go on until the budget is used up? [y/N]: ", nl=False, err=True)
    # Not in a thread: that could not be interrupted.
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    loop.add_reader(sys.stdin, answered.set)
    answer = asyncio.create_task(answered.wait())
    try:
        await asyncio.wait([answer, stops], return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        answer.cancel()
    return answered.is_set() and sys.stdin.readline().strip().lower() in ("y", "yes")


async def _told_end(
    executor: ParallelAgentExecutor,
    found: Mapping[str, Any],
    notes: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    stopped: bool,
) -> int:
    report = await executor.get_report(found["execution_id"])
    if (path := notes.get("report")) is not None:
        write_report(path, report)
    if as_json:
        echo_json(report.to_dict())
    elif not quiet:
        echo(report.to_text(), err=True)
    if not quiet:
        _hint(found)
    return _exit_code(found, stopped=stopped)


def _hint(found: Mapping[str, Any]) -> None:
    name = found["execution_id"]
    why = found["why"]
    if found.get("cut"):
        echo(
            "its tasks were being read when it was killed: those that had not been are not part "
            "of it",
            err=True,
        )
    if found["state"] == "awaiting_approval":
        echo(f"to go on all the same: agent-runtime batch resume {name} --approve", err=True)
    elif found["state"] == "paused" and why == "budget":
        echo(
            f"the budget is used up; with a larger one: agent-runtime batch resume {name} "
            "--max-cost USD",
            err=True,
        )
    elif found["state"] == "paused":
        echo(f"to go on: agent-runtime batch resume {name}", err=True)
    elif found.get("failed") or found.get("poisoned"):
        echo(f"to run the failed ones again: agent-runtime batch rerun {name}", err=True)


def _exit_code(found: Mapping[str, Any], *, stopped: bool) -> int:
    if stopped:
        return EXIT_INTERRUPTED
    if found["state"] == "awaiting_approval":
        return EXIT_AWAITED
    if found["state"] == "paused":
        return EXIT_BUDGET if found["why"] == "budget" else 1
    if found["state"] != "completed":
        return 1
    return 0 if found.get("completed") == found.get("total") and not found.get("cut") else 1
