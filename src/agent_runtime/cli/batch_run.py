"""A batch in the foreground: its agents, its progress, its results and its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from agent_runtime.cli.batch_options import absolute_path, open_batch_journal
from agent_runtime.cli.batch_view import BatchView, forecast_text, write_report
from agent_runtime.cli.options import shared_factory_arguments, warn_offline_model
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import event_recording, open_dead_letters, open_factory, open_sessions
from agent_runtime.errors import InputInvalid

if TYPE_CHECKING:
    from agent_runtime.auth.identities import OPERATOR
    from agent_runtime.batch import BatchSettings, ParallelAgentExecutor, TaskResult

EXIT_BUDGET = 6
EXIT_APPROVAL_NEEDED = 7
EXIT_INTERRUPTED = 130
REFRESH_INTERVAL_S = 0.5


@asynccontextmanager
async def open_executor(
    journal: str | None,
    ledger: str | None,
    settings: BatchSettings,
    agent: str | None,
    model: str | None,
    *,
    quiet: bool,
) -> AsyncIterator[tuple[ParallelAgentExecutor, str]]:
    """Open an executor; yields it and the name of the agent in it."""
    from agent_runtime.batch import ParallelAgentExecutor
    from agent_runtime.template.overrides import apply_overrides
    from agent_runtime.template.spec import is_path
    from agent_runtime.types import Principal

    store = open_batch_journal(journal)
    dead_letters = open_dead_letters()
    try:
        sessions = open_sessions(None) if settings.sessions else None
        factory_arguments = {"session_manager": sessions, **shared_factory_arguments(ledger)}
        async with open_factory(**factory_arguments) as factory, event_recording(factory):
            name = agent or ""
            principal = None
            if agent:
                template = factory.get_template(agent)
                if not quiet:
                    warn_offline_model(
                        model or (template.spec.model.id if template.spec.model else "")
                    )
                if model is not None:
                    name = factory.register_template(apply_overrides(template, {"model": model}))
                elif is_path(agent):
                    name = absolute_path(agent) or ""
                if template.spec.runtime.auth.require:  # the operator owns the state directory
                    principal = Principal(OPERATOR, scopes=frozenset({"*"}))
            batch_executor = ParallelAgentExecutor(
                factory, settings, journal=store, dead_letters=dead_letters, principal=principal
            )
            async with batch_executor as executor:
                yield executor, name
    finally:
        await store.aclose()
        await dead_letters.aclose()


async def run_in_foreground(
    executor: ParallelAgentExecutor,
    execution_id: str,
    notes: Mapping[str, Any],
    *,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Show a batch that runs here and write its results until it rests; returns the exit code."""
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stop_requested.set)
    finished = asyncio.Event()
    writer_task = asyncio.create_task(
        _write_results(executor, execution_id, notes.get("out"), finished, as_json=as_json)
    )
    try:
        status = await _watch_until_idle(
            executor, execution_id, stop_requested, writer_task, yes=yes, quiet=quiet
        )
        if stop_requested.is_set() or _writer_failed(writer_task):
            with suppress(InputInvalid):  # it has just ended
                await executor.suspend_execution(execution_id)
            status = await executor.get_execution_status(execution_id)
        finished.set()
        await writer_task
    finally:
        writer_task.cancel()
        with suppress(asyncio.CancelledError):
            await writer_task
    return await _print_report(
        executor, status, notes, as_json=as_json, quiet=quiet, stopped=stop_requested.is_set()
    )


def _writer_failed(writer_task: asyncio.Task[None]) -> bool:
    """Return whether writing results has failed."""
    return writer_task.done() and writer_task.exception() is not None


async def _write_results(
    executor: ParallelAgentExecutor,
    execution_id: str,
    out: str | None,
    finished: asyncio.Event,
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
            last = finished.is_set()
            async for result in executor.stream_results(execution_id, after=count):
                _print_result(result) if file is None else file.write(result)
                count += 1
            with suppress(TimeoutError):  # paused: wait for an approval
                async with asyncio.timeout(REFRESH_INTERVAL_S):
                    await finished.wait()


def _print_result(result: TaskResult) -> None:
    sys.stdout.write(result.to_json() + "\n")
    sys.stdout.flush()


async def _watch_until_idle(
    executor: ParallelAgentExecutor,
    execution_id: str,
    stop_requested: asyncio.Event,
    writer_task: asyncio.Task[None],
    *,
    yes: bool,
    quiet: bool,
) -> dict[str, Any]:
    idle_task = asyncio.create_task(executor.wait(execution_id))
    stop_task = asyncio.create_task(stop_requested.wait())
    try:
        with BatchView(quiet=quiet) as view:
            while True:
                await asyncio.wait(
                    [idle_task, stop_task],
                    timeout=REFRESH_INTERVAL_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                status = await executor.get_execution_status(execution_id)
                view.show(status, last=idle_task.done())
                if stop_task.done() or _writer_failed(writer_task):
                    return status
                if idle_task.done():
                    status = idle_task.result()
                    if status["status"] != "awaiting_approval" or not await _ask_approval(
                        status, stop_task, yes=yes, quiet=quiet
                    ):
                        return status
                    status = await executor.get_execution_status(execution_id)
                    if status["status"] != "awaiting_approval":
                        return status
                    await executor.resume_execution(execution_id, approve=True)
                    idle_task = asyncio.create_task(executor.wait(execution_id))
    finally:
        idle_task.cancel()
        stop_task.cancel()


async def _ask_approval(
    status: Mapping[str, Any], stop_task: asyncio.Task[Any], *, yes: bool, quiet: bool
) -> bool:
    if not quiet or not yes:
        echo(f"{forecast_text(status)}; the budget is {status['max_cost_usd']:g} USD", err=True)
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    echo("Continue until the budget is spent? [y/N]: ", nl=False, err=True)
    # Not in a thread: that could not be interrupted.
    loop = asyncio.get_running_loop()
    answered = asyncio.Event()
    loop.add_reader(sys.stdin, answered.set)
    answer_task = asyncio.create_task(answered.wait())
    try:
        await asyncio.wait([answer_task, stop_task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        answer_task.cancel()
    return answered.is_set() and sys.stdin.readline().strip().lower() in ("y", "yes")


async def _print_report(
    executor: ParallelAgentExecutor,
    status: Mapping[str, Any],
    notes: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    stopped: bool,
) -> int:
    report = await executor.get_report(status["execution_id"])
    if (path := notes.get("report")) is not None:
        write_report(path, report)
    if as_json:
        echo_json(report.to_dict())
    elif not quiet:
        echo(report.to_text(), err=True)
    if not quiet:
        _print_hint(status)
    return _exit_code(status, stopped=stopped)


def _print_hint(status: Mapping[str, Any]) -> None:
    name = status["execution_id"]
    reason = status["reason"]
    if status.get("input_truncated"):
        echo(
            "its tasks were being read when it was killed: those that had not been are not part "
            "of it",
            err=True,
        )
    if status["status"] == "awaiting_approval":
        echo(f"to continue anyway: agent-runtime batch resume {name} --approve", err=True)
    elif status["status"] == "paused" and reason == "budget":
        echo(
            f"the budget is spent; with a larger one: agent-runtime batch resume {name} "
            "--max-cost USD",
            err=True,
        )
    elif status["status"] == "paused":
        echo(f"to continue: agent-runtime batch resume {name}", err=True)
    elif status.get("failed") or status.get("poisoned"):
        echo(f"to run the failed ones again: agent-runtime batch rerun {name}", err=True)


def _exit_code(status: Mapping[str, Any], *, stopped: bool) -> int:
    if stopped:
        return EXIT_INTERRUPTED
    if status["status"] == "awaiting_approval":
        return EXIT_APPROVAL_NEEDED
    if status["status"] == "paused":
        return EXIT_BUDGET if status["reason"] == "budget" else 1
    if status["status"] != "completed":
        return 1
    return (
        0
        if status.get("completed") == status.get("total") and not status.get("input_truncated")
        else 1
    )
