"""A batch as it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runtime.cli.output import echo
from agent_runtime.escapes import escaped, json_line, on_one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from agent_runtime.batch.report import BatchReport

EVERY_S = 10.0
"""Without a terminal, a line so often, and one for each tenth of the tasks."""


def line(status: Mapping[str, Any]) -> str:
    """How a batch stands, on one line."""
    total = status.get("total", 0)
    ended = status.get("ended", 0)
    eta = status.get("eta_s")
    parts = [
        (
            f"{status['execution_id']} "
            f"{status['state']}{': ' + status['why'] if status['why'] else ''}"
        ),
        f"{ended}/{total} ({100 * ended // total if total else 0} %)",
        f"{status.get('rate', 0.0):.1f}/s",
    ]
    if status["state"] == "running":
        parts.append(f"ETA {_span(eta)}, {status.get('running', 0)} running")
    parts.append(_cost(status))
    if errors := _errors(status):
        parts.append(errors)
    return on_one_line("  ".join(parts))


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def _cost(status: Mapping[str, Any]) -> str:
    limit = status.get("max_cost_usd")
    unknown = f" + {status['unpriced']} unknown" if status.get("unpriced") else ""
    return f"{status.get('cost_usd', '0')}{'' if limit is None else f' of {limit:g}'} USD{unknown}"


def _errors(status: Mapping[str, Any]) -> str:
    bad = {
        name: status.get(name, 0)
        for name in ("failed", "skipped", "poisoned", "interrupted")
        if status.get(name)
    }
    kinds = ", ".join(
        f"{kind} {count}" for kind, count in list(status.get("errors", {}).items())[:4]
    )
    counted = ", ".join(f"{count} {name}" for name, count in bad.items())
    return f"{counted}{f' ({kinds})' if kinds else ''}"


class BatchView:
    """Shows statuses as they come, on stderr; `with` opens and closes it. `quiet` shows nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._next_s = 0.0
        self._tenth = -1

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
        """Show how it stands now."""
        if self._bar is not None:
            said = (
                f"{status.get('rate', 0.0):.1f}/s ETA {_span(status.get('eta_s'))} "
                f"{_cost(status)} {_errors(status)}"
            )
            if self._task is None:
                self._task = self._bar.add_task("", total=status.get("total", 0), said="")
            self._bar.update(
                self._task,
                completed=status.get("ended", 0),
                total=status.get("total", 0),
                said=on_one_line(said),
            )
            return
        total = status.get("total", 0)
        tenth = 10 * status.get("ended", 0) // total if total else 0
        now = time.monotonic()
        if not self._quiet and (last or tenth > self._tenth or now >= self._next_s):
            echo(line(status), err=True)
            self._next_s = now + EVERY_S
            self._tenth = tenth


def table(statuses: list[dict[str, Any]]) -> str:
    """Several batches, one a line."""
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
    for each in statuses:
        bad = sum(each.get(name, 0) for name in ("failed", "skipped", "poisoned"))
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(each["created_s"]))
        values = (
            each["execution_id"], each["state"], f"{each.get('ended', 0)}/{each.get('total', 0)}",
            bad,
            each.get("cost_usd", "0"), made, each["name"],
        )  # fmt: skip
        rows.append(
            on_one_line(
                "".join(
                    f"{v!s:<{width}}" for v, (_, width) in zip(values, columns, strict=True)
                ).rstrip()
            )
        )
    return "\n".join(rows)


def forecast_text(status: Mapping[str, Any]) -> str:
    """What a pilot has told, in a sentence."""
    found = status.get("forecast")
    if not found:
        return ""
    if found["cost_usd"] is None:
        return (
            f"forecast from {found['sample']} tasks: cost unknown, about {found['tokens']} tokens"
        )
    return (
        f"forecast from {found['sample']} of {found['tasks']} tasks: {found['cost_usd']:.4f} USD "
        f"({found['low_usd']:.4f} to {found['high_usd']:.4f} with {found['confidence']:.0%}), "
        f"about {found['tokens']} tokens, {_span(found['seconds'])}"
    )


def print_status(status: Mapping[str, Any], *, err: bool) -> None:
    """Print how a batch stands, and what its forecast says."""
    echo(line(status), err=err)
    if text := forecast_text(status):
        echo(text, err=err)


def write_report(path: str, report: BatchReport) -> None:
    """Write a report; figures where the name ends in `.json`, else text."""
    text = (
        json_line(report.to_dict(), indent=2)
        if path.endswith(".json")
        else escaped(report.to_text())
    )
    Path(path).write_text(text + "\n", "utf-8")
