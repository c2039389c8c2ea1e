"""`agent-runtime batch`: many tasks at once, and nothing lost to a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.batch_options import (
    BatchOptions,
    absolute_path,
    batch_options,
    check_outputs,
    open_batch_journal,
)
from agent_runtime.cli.batch_view import BatchView, executions_table, print_status, write_report
from agent_runtime.cli.output import echo, echo_json

if TYPE_CHECKING:
    from agent_runtime.batch import ParallelAgentExecutor

JOURNAL = click.option(
    "--journal", metavar="URL", help="Store of batches; default: in the state directory."
)
LEDGER = click.option(
    "--ledger", metavar="URL", help="Ledger of spending; default: in the state directory."
)
YES = click.option(
    "-y", "--yes", is_flag=True, help="Continue although the forecast is above the budget."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
ID = click.argument("execution_id", metavar="ID")


@click.group()
def batch() -> None:
    """Run many tasks at once; a killed batch can be resumed."""


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # not at the top: `--help` pays for every import

    return asyncio.run(coroutine)


@batch.command()
@batch_options
@JOURNAL
@LEDGER
@YES
@JSON
@QUIET
def run(
    options: BatchOptions,
    *,
    journal: str | None,
    ledger: str | None,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run the tasks in SOURCE.

    SOURCE is a JSONL, CSV or YAML file, `-` for stdin (JSONL), or a YAML file with a 'batch:' map.
    Results go to --out (or to stdout), each when it is stored; progress and the report to stderr.
    Exits 0 when every task succeeded, 1 when some did not, 6 when the budget is spent, 7 when the
    forecast is above it and needs an approval (`batch resume ID --approve`).
    """
    return int(
        _run_coroutine(
            _submit_and_follow(options, journal, ledger, yes=yes, as_json=as_json, quiet=quiet)
        )
    )


async def _submit_and_follow(
    options: BatchOptions,
    journal: str | None,
    ledger: str | None,
    *,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    from agent_runtime.cli.batch_run import open_executor, run_in_foreground
    from agent_runtime.template.spec import is_path

    settings, mapping = options.resolve()
    check_outputs(options)
    agent_option = options.agent
    notes = {
        "out": absolute_path(options.out),
        "report": absolute_path(options.report),
        "model": options.model,
    }
    async with open_executor(
        journal, ledger, settings, options.agent, options.model, quiet=quiet
    ) as (
        executor,
        agent,
    ):
        try:
            execution_id = await executor.submit_batch_tasks(
                options.tasks,
                agent=agent,
                mapping=mapping,
                file_format=options.file_format,  # type: ignore[arg-type]  # click has checked it
                execution_id=options.execution_id,
                name=options.name,
                notes={
                    **notes,
                    "agent": absolute_path(agent_option)
                    if agent_option and is_path(agent_option)
                    else agent_option,
                },
            )
        except FileNotFoundError as error:
            raise click.UsageError(f"there is no file '{error.filename}'") from None
        return await run_in_foreground(
            executor, execution_id, notes, yes=yes, as_json=as_json, quiet=quiet
        )


@batch.command()
@ID
@JOURNAL
@LEDGER
@click.option(
    "--max-cost",
    type=click.FloatRange(0, min_open=True),
    metavar="USD",
    help="Its new total budget.",
)
@click.option(
    "-n",
    "--max-concurrent",
    type=click.IntRange(1, 10_000),
    help="Most concurrent tasks, from now on.",
)
@click.option("--approve", is_flag=True, help="Continue although the forecast is above the budget.")
@JSON
@QUIET
def resume(
    execution_id: str,
    *,
    journal: str | None,
    ledger: str | None,
    max_cost: float | None,
    max_concurrent: int | None,
    approve: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Resume a batch that was paused, cancelled or killed; ended tasks do not run again."""
    changes = {"max_cost_usd": max_cost, "max_concurrent": max_concurrent}
    changes = {key: value for key, value in changes.items() if value is not None}

    async def resume_execution(executor: ParallelAgentExecutor) -> None:
        await executor.resume_execution(execution_id, approve=approve, **changes)

    return int(
        _run_coroutine(
            _continue_execution(
                execution_id, journal, ledger, resume_execution, as_json=as_json, quiet=quiet
            )
        )
    )


@batch.command()
@ID
@JOURNAL
@LEDGER
@JSON
@QUIET
def rerun(
    execution_id: str, *, journal: str | None, ledger: str | None, as_json: bool, quiet: bool
) -> int:
    """Run failed, skipped and poisoned tasks again; successful results stay."""

    async def rerun_failed(executor: ParallelAgentExecutor) -> None:
        count = await executor.rerun_failed(execution_id)
        if not quiet:
            echo(f"{count} tasks run again", err=True)

    return int(
        _run_coroutine(
            _continue_execution(
                execution_id, journal, ledger, rerun_failed, as_json=as_json, quiet=quiet
            )
        )
    )


async def _continue_execution(
    execution_id: str,
    journal: str | None,
    ledger: str | None,
    restart: Any,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    from agent_runtime.batch import BatchSettings
    from agent_runtime.cli.batch_run import open_executor, run_in_foreground

    store = open_batch_journal(journal)
    try:
        execution = await store.get(execution_id)
    finally:
        await store.aclose()
    notes = execution.source.get("notes", {})
    settings = BatchSettings.parse(execution.settings)
    agent = notes.get("agent") or execution.agent
    model = notes.get("model")
    async with open_executor(journal, ledger, settings, agent, model, quiet=quiet) as (executor, _):
        await restart(executor)
        return await run_in_foreground(
            executor, execution_id, notes, yes=False, as_json=as_json, quiet=quiet
        )


@asynccontextmanager
async def _query_executor(journal: str | None) -> AsyncIterator[ParallelAgentExecutor]:
    """Open an executor that runs nothing, for queries and requests to other processes."""
    from agent_runtime.batch import ParallelAgentExecutor
    from agent_runtime.factory import AgentFactory

    store = open_batch_journal(journal)
    try:
        yield ParallelAgentExecutor(AgentFactory(), journal=store)
    finally:
        await store.aclose()


@batch.command()
@click.argument("execution_id", metavar="[ID]", required=False)
@JOURNAL
@JSON
def status(execution_id: str | None, *, journal: str | None, as_json: bool) -> int:
    """Show a batch's status, or list the newest batches."""

    async def fetch_statuses() -> list[dict[str, Any]]:
        async with _query_executor(journal) as executor:
            if execution_id is None:
                return await executor.list_executions()
            return [await executor.get_execution_status(execution_id)]

    statuses = _run_coroutine(fetch_statuses())
    if as_json:
        for execution_status in statuses:
            echo_json(execution_status)
    elif execution_id is None:
        echo(executions_table(statuses) if statuses else "no batches")
    else:
        print_status(statuses[0], err=False)
    return 0


@batch.command()
@ID
@JOURNAL
@click.option(
    "--interval", default=1.0, type=click.FloatRange(0.1), help="Seconds between updates."
)
@JSON
def watch(execution_id: str, *, journal: str | None, interval: float, as_json: bool) -> int:
    """Show a batch as it runs, in whichever process, until it is over or paused."""

    async def poll_until_idle() -> int:
        import asyncio

        async with _query_executor(journal) as executor:
            with BatchView(quiet=as_json) as view:
                while True:
                    execution_status = await executor.get_execution_status(execution_id)
                    is_idle = execution_status["status"] not in ("running", "pending")
                    view.show(execution_status, last=is_idle)
                    if as_json:
                        echo_json(execution_status)
                    if is_idle:
                        return 0
                    await asyncio.sleep(interval)

    return int(_run_coroutine(poll_until_idle()))


@batch.command()
@ID
@JOURNAL
def cancel(execution_id: str, *, journal: str | None) -> int:
    """Begin no new task, let running ones end within their grace, stop the others. Results stay."""

    async def request_cancel() -> dict[str, Any]:
        async with _query_executor(journal) as executor:
            return await executor.cancel_execution(execution_id)

    execution_status = _run_coroutine(request_cancel())
    print_status(execution_status, err=False)
    return 0 if execution_status["status"] == "cancelled" else 1


@batch.command()
@ID
@JOURNAL
def pause(execution_id: str, *, journal: str | None) -> int:
    """Pause a running batch: no further task starts until `resume`."""

    async def request_pause() -> None:
        async with _query_executor(journal) as executor:
            await executor.pause_execution(execution_id)

    _run_coroutine(request_pause())
    echo(f"requested {execution_id} to pause")
    return 0


@batch.command()
@ID
@JOURNAL
@JSON
@click.option(
    "--results",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write all results, in order, to this file.",
)
@click.option(
    "--out", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report to this file."
)
def report(
    execution_id: str, *, journal: str | None, as_json: bool, results: str | None, out: str | None
) -> int:
    """Print a batch's time, throughput, efficiency, tokens, cost and errors by class."""
    if results is not None and out is not None and absolute_path(results) == absolute_path(out):
        raise click.UsageError(f"--out: '{out}' is the file of results: use another one")

    async def build_report() -> Any:
        from agent_runtime.batch import ResultFile

        async with _query_executor(journal) as executor:
            await executor.get_execution_status(execution_id)  # before a file is emptied for it
            if results is not None:
                with ResultFile(results) as file:
                    async for result in executor.stream_results(
                        execution_id, ordered=True, follow=False
                    ):
                        file.write(result)
            return await executor.get_report(execution_id)

    batch_report = _run_coroutine(build_report())
    if out is not None:
        write_report(out, batch_report)
    else:
        echo_json(batch_report.to_dict(), indent=2) if as_json else echo(batch_report.to_text())
    return 0
