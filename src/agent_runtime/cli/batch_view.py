"""A batch as it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.cli.output import echo
from agent_runtime.escapes import escape_controls, escape_to_one_line, json_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from agent_runtime.batch.report import BatchReport

LINE_INTERVAL_S = 10.0
"""Seconds between lines without a terminal, beside one for each tenth of the tasks."""


def status_line(status: Mapping[str, Any]) -> str:
    """Return a batch's status in one line."""
    total = status.get("total", 0)
    ended = status.get("ended", 0)
    eta = status.get("eta_s")
    parts = [
        (
            f"{status['execution_id']} "
            f"{status['status']}{': ' + status['reason'] if status['reason'] else ''}"
        ),
        f"{ended}/{total} ({100 * ended // total if total else 0} %)",
        f"{status.get('rate', 0.0):.1f}/s",
    ]
    if status["status"] == "running":
        parts.append(f"ETA {_duration_text(eta)}, {status.get('running', 0)} running")
    parts.append(_cost_text(status))
    if errors := _errors_text(status):
        parts.append(errors)
    return escape_to_one_line("  ".join(parts))


def _duration_text(seconds: float | None) -> str:
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def _cost_text(status: Mapping[str, Any]) -> str:
    limit = status.get("max_cost_usd")
    unknown = f" + {status['unpriced']} unknown" if status.get("unpriced") else ""
    return f"{status.get('cost_usd', '0')}{'' if limit is None else f' of {limit:g}'} USD{unknown}"


def _errors_text(status: Mapping[str, Any]) -> str:
    unsuccessful_counts = {
        name: status.get(name, 0)
        for name in ("failed", "skipped", "poisoned", "interrupted")
        if status.get(name)
    }
    kinds_text = ", ".join(
        f"{kind} {count}" for kind, count in list(status.get("errors", {}).items())[:4]
    )
    counts_text = ", ".join(f"{count} {name}" for name, count in unsuccessful_counts.items())
    return f"{counts_text}{f' ({kinds_text})' if kinds_text else ''}"


class BatchView:
    """Shows statuses as they come, on stderr; `with` opens and closes it. `quiet` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._next_line_s = 0.0
        self._last_tenth = -1

    def __enter__(self) -> BatchView:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, status: Mapping[str, Any], *, last: bool = False) -> None:
        """Show the present status."""
        if self._bar is not None:
            progress_text = (
                f"{status.get('rate', 0.0):.1f}/s ETA {_duration_text(status.get('eta_s'))} "
                f"{_cost_text(status)} {_errors_text(status)}"
            )
            if self._task is None:
                self._task = self._bar.add_task("", total=status.get("total", 0), said="")
            self._bar.update(
                self._task,
                completed=status.get("ended", 0),
                total=status.get("total", 0),
                said=escape_to_one_line(progress_text),
            )
            return
        total = status.get("total", 0)
        tenth = 10 * status.get("ended", 0) // total if total else 0
        now = time.monotonic()
        if not self._quiet and (last or tenth > self._last_tenth or now >= self._next_line_s):
            echo(status_line(status), err=True)
            self._next_line_s = now + LINE_INTERVAL_S
            self._last_tenth = tenth


def executions_table(statuses: list[dict[str, Any]]) -> str:
    """Return a table of batches, one per line."""
    columns = (
        ("ID", 16),
        ("STATE", 18),
        ("TASKS", 16),
        ("FAILED", 8),
        ("COST USD", 14),
        ("CREATED", 17),
        ("NAME", 20),
    )
    rows = ["".join(f"{name:<{width}}" for name, width in columns).rstrip()]
    for status in statuses:
        unsuccessful_count = sum(status.get(name, 0) for name in ("failed", "skipped", "poisoned"))
        created_text = time.strftime("%Y-%m-%d %H:%M", time.localtime(status["created_at"]))
        values = (
            status["execution_id"], status["status"],
            f"{status.get('ended', 0)}/{status.get('total', 0)}",
            unsuccessful_count,
            status.get("cost_usd", "0"), created_text, status["name"],
        )  # fmt: skip
        rows.append(
            escape_to_one_line(
                "".join(
                    f"{v!s:<{width}}" for v, (_, width) in zip(values, columns, strict=True)
                ).rstrip()
            )
        )
    return "\n".join(rows)


def forecast_text(status: Mapping[str, Any]) -> str:
    """Return a sentence with the pilot's forecast."""
    forecast = status.get("forecast")
    if not forecast:
        return ""
    if forecast["cost_usd"] is None:
        return (
            f"forecast from {forecast['sample']} tasks: cost unknown, about "
            f"{forecast['tokens']} tokens"
        )
    return (
        f"forecast from {forecast['sample']} of {forecast['tasks']} tasks: "
        f"{forecast['cost_usd']:.4f} USD "
        f"({forecast['low_usd']:.4f} to {forecast['high_usd']:.4f} with "
        f"{forecast['confidence']:.0%}), "
        f"about {forecast['tokens']} tokens, {_duration_text(forecast['seconds'])}"
    )


def print_status(status: Mapping[str, Any], *, err: bool) -> None:
    """Print a batch's status and forecast."""
    echo(status_line(status), err=err)
    if text := forecast_text(status):
        echo(text, err=err)


def write_report(path: str, report: BatchReport) -> None:
    """Write a report; figures where the name ends in `.json`, else text."""
    text = (
        json_line(report.to_dict(), indent=2)
        if path.endswith(".json")
        else escape_controls(report.to_text())
    )
    Path(path).write_text(text + "\n", "utf-8")
