"""Read a batch's options from the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.options import parse_seconds
from agent_runtime.cli.state import settings, state_folder

if TYPE_CHECKING:
    from agent_runtime.batch import BatchSettings, Journal


@dataclass(slots=True)
class BatchOptions:
    """Hold a batch's options and those of its batch file."""

    source: str
    agent: str | None = None
    maps: tuple[str, ...] = ()
    out: str | None = None
    report: str | None = None
    file_format: str | None = None
    model: str | None = None
    config: str | None = None
    max_concurrent: int | None = None
    max_cost: float | None = None
    forecast: bool = False
    backend: str | None = None
    timeout: str | None = None
    retries: int | None = None
    fail_fast: bool = False
    execution_id: str | None = None
    name: str = ""
    tasks: Any = field(default=None)

    def setting_overrides(self) -> dict[str, Any]:
        """Return the settings among the options, as `BatchSettings.parse` takes them."""
        overrides: dict[str, Any] = {
            "max_concurrent": self.max_concurrent,
            "max_cost_usd": self.max_cost,
            "backend": self.backend,
            "task_timeout": None
            if self.timeout is None
            else parse_seconds(self.timeout, "--timeout"),
            "fail_fast": self.fail_fast or None,
            "retry": None if self.retries is None else {"attempts": self.retries + 1},
            "pilot": {} if self.forecast else None,
        }
        return {key: value for key, value in overrides.items() if value is not None}

    def mapping(self) -> dict[str, str]:
        """Return `--map FIELD=TEXT` options as a mapping."""
        mapping = {}
        for assignment in self.maps:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise click.BadParameter(f"'{assignment}' is not FIELD=TEXT", param_hint="--map")
            mapping[name] = text
        return mapping

    def resolve(self) -> tuple[BatchSettings, dict[str, str]]:
        """Return the settings and the mapping; options take precedence over the batch file.

        Further options of the file are filled in. Raises the errors of reading the file.
        """
        from agent_runtime.batch import BatchSettings
        from agent_runtime.batch.batch_file import BatchFile
        from agent_runtime.template.spec import is_path

        base = BatchSettings() if self.config is None else BatchSettings.load(self.config)
        mapping: dict[str, str] = {}
        self.tasks = self.source
        batch_file = (
            BatchFile.read(self.source) if self.source.endswith((".yaml", ".yml")) else None
        )
        if batch_file is not None:
            base = base.with_changes(**batch_file.settings().explicit_settings())
            mapping = dict(batch_file.mapping)
            self.tasks = batch_file.tasks
            self.agent = self.agent or batch_file.agent
            self.model = self.model or batch_file.model
            self.out = self.out or batch_file.output
            self.report = self.report or batch_file.report
            self.name = self.name or batch_file.name
            if self.tasks is None:
                raise click.UsageError(f"{self.source}: the batch names no 'tasks'")
        if self.model is not None and not self.agent:
            raise click.UsageError(
                "--model goes with --agent: tasks that name their own agent use that agent's model"
            )
        limits = {
            (absolute_path(name) or name) if is_path(name) else name: limit
            for name, limit in base.limits.items()
        }
        changes = {**self.setting_overrides(), **({"limits": limits} if limits else {})}
        explicit_settings = base.explicit_settings()
        if "retry" in changes:
            changes["retry"] = {**explicit_settings.get("retry", {}), **changes["retry"]}
        if base.pilot is not None:
            changes.pop("pilot", None)
        return base.with_changes(**changes), mapping | self.mapping()


_SOURCE_OPTIONS = (
    click.argument("source"),
    click.option(
        "--agent",
        metavar="AGENT",
        help="The agent of tasks that name none: a template's name or file.",
    ),
    click.option(
        "--map",
        "maps",
        metavar="FIELD=TEXT",
        multiple=True,
        help="Field of a task: 'input=Classify: {text}', id={ticket}, "
        "inputs.lang={lang}; repeatable.",
    ),
    click.option(
        "--out",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Write results as JSONL, as they arrive.",
    ),
    click.option(
        "--report",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Write the report; JSON if the name ends in .json.",
    ),
    click.option(
        "--format",
        "file_format",
        type=click.Choice(["jsonl", "csv", "yaml"]),
        help="Format of SOURCE.",
    ),
    click.option(
        "--model", metavar="PROVIDER:NAME", help="Use this model instead of the template's."
    ),
    click.option(
        "--config",
        type=click.Path(dir_okay=False),
        help="A YAML file with a 'batch:' map of settings.",
    ),
)
_EXECUTION_OPTIONS = (
    click.option(
        "-n",
        "--max-concurrent",
        type=click.IntRange(1, 10_000),
        help="Most concurrent tasks; 10 by default.",
    ),
    click.option(
        "--max-cost",
        type=click.FloatRange(0, min_open=True),
        metavar="USD",
        help="Total budget, never overspent: forecast from a sample first; the batch pauses when "
        "it is spent.",
    ),
    click.option(
        "--forecast", is_flag=True, help="Forecast the total cost from a sample of tasks."
    ),
    click.option(
        "--backend",
        type=click.Choice(["asyncio", "process"]),
        help="Where agents run: in this process or in a pool of processes.",
    ),
    click.option("--timeout", metavar="DURATION", help="Time limit of one attempt; 5m by default."),
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        help="Retries after transient failures; default: 2.",
    ),
    click.option("--fail-fast", is_flag=True, help="End at the first task that fails."),
    click.option(
        "--id", "execution_id", metavar="ID", help="The execution's id; generated by default."
    ),
    click.option("--name", default="", help="Display name of this batch."),
)


def batch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `SOURCE` and a batch's options; the command receives one `BatchOptions`, first."""

    @wraps(command)
    def with_options(**parameters: Any) -> Any:
        names = [
            option_field.name
            for option_field in fields(BatchOptions)
            if option_field.name != "tasks"
        ]
        return command(BatchOptions(**{name: parameters.pop(name) for name in names}), **parameters)

    decorated: Callable[..., Any] = with_options
    for decorate in reversed((*_SOURCE_OPTIONS, *_EXECUTION_OPTIONS)):
        decorated = decorate(decorated)
    return decorated


def open_batch_journal(url: str | None = None) -> Journal:
    """Open the journal: `url`, or `AGENT_RUNTIME_BATCHES`, or SQLite in the state directory."""
    from agent_runtime.batch import open_journal

    return open_journal(url or settings().batches or f"sqlite:{state_folder() / 'batches.db'}")


def check_outputs(options: BatchOptions) -> None:
    """Raise UsageError for a file that cannot be written, before anything is run and paid for."""
    path_uses = {
        absolute_path(source): "is read from"
        for source in (options.source, options.tasks)
        if isinstance(source, str)
    }
    output_files = [
        (option, path)
        for option, path in (("--out", options.out), ("--report", options.report))
        if path
    ]
    for option, path in output_files:
        if (resolved_path := absolute_path(path)) in path_uses and resolved_path is not None:
            raise click.UsageError(
                f"{option}: '{path}' {path_uses[resolved_path]}: use another one"
            )
        path_uses[resolved_path] = "is the file of results"
    for option, path in output_files:
        if path == "-":
            continue
        try:
            with Path(path).open("a", encoding="utf-8"):
                pass
        except OSError as error:
            raise click.UsageError(
                f"{option}: '{path}' cannot be written: {error.strerror}"
            ) from None


def absolute_path(path: str | None) -> str | None:
    """Return a file's absolute path, for later commands in other directories."""
    return None if path is None or path == "-" else str(Path(path).resolve())
