"""Implement `agent-runtime cost`: spending and budgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent_runtime.cli.options import parse_unix_time
from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import open_ledger

if TYPE_CHECKING:
    from agent_runtime.budgets import Balance
    from agent_runtime.budgets.ledger.ledger import Ledger
    from agent_runtime.storage.operations import Operation

R = TypeVar("R")

BY = ("tenant", "user", "template", "model", "day")
COLUMNS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_usd",
    "estimated",
    "unknown",
)


@click.group()
@click.option(
    "--ledger", metavar="URL", help="sqlite:FILE or redis://...; default: the state directory."
)
@click.pass_context
def cost(context: click.Context, ledger: str | None) -> None:
    """Report spending and the state of budgets."""
    context.obj = ledger


def _run_on_ledger(url: str | None, request: Callable[[Ledger], Operation[R]]) -> R:
    import asyncio

    ledger = open_ledger(url)
    try:
        return request(ledger).run()
    finally:
        asyncio.run(ledger.aclose())


def _format_option(command: Any) -> Any:
    return click.option(
        "--format",
        "style",
        type=click.Choice(["table", "csv", "json"]),
        default="table",
        show_default=True,
    )(command)


@cost.command()
@click.option(
    "--by", type=click.Choice(BY), multiple=True, help="Group by this; repeatable. Default: tenant."
)
@click.option(
    "--since",
    metavar="WHEN",
    default="30d",
    show_default=True,
    help="2026-11-01, 2026-11-01T12, or 7d.",
)
@click.option("--until", metavar="WHEN", help="As --since; default: now.")
@_format_option
@click.pass_obj
def report(url: str | None, by: tuple[str, ...], since: str, until: str | None, style: str) -> None:
    """Show spending by whole hours (UTC).

    `estimated` and `unknown` count model calls without an exact cost.
    """
    begin = parse_unix_time(since, "--since")
    end = time.time() if until is None else parse_unix_time(until, "--until")
    rows = group_spending(
        _run_on_ledger(url, lambda ledger: ledger.report(begin, end)), by or ("tenant",)
    )
    _print_rows(rows, (*(by or ("tenant",)), *COLUMNS), style)


@cost.command()
@_format_option
@click.pass_obj
def budgets(url: str | None, style: str) -> None:
    """Show every account: spent, reserved by running calls, and remaining."""
    balances = _run_on_ledger(url, lambda ledger: ledger.balances())
    rows = [_account_row(key, balance) for key, balance in balances.items()]
    names = (
        "account spent_usd held_usd limit_usd left_usd spent_tokens held_tokens limit_tokens"
    ).split()
    _print_rows(rows, names, style)


def group_spending(spends: Iterable[tuple[int, Any]], by: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return sums of a ledger's report by label or day, the highest first."""
    from datetime import UTC, datetime

    totals_by_group: dict[tuple[str, ...], dict[str, int]] = {}
    for hour, spend in spends:
        labels = {**spend.labels._asdict(), "day": f"{datetime.fromtimestamp(hour, UTC):%Y-%m-%d}"}
        sums = totals_by_group.setdefault(
            tuple(labels[name] for name in by), dict.fromkeys((*COLUMNS, "micro_usd"), 0)
        )
        for name in (*COLUMNS, "micro_usd"):
            sums[name] += getattr(spend, name, 0)
    rows = []
    for group_key, sums in sorted(
        totals_by_group.items(), key=lambda item: (-item[1]["micro_usd"], item[0])
    ):
        rows.append(
            {
                **dict(zip(by, group_key, strict=True)),
                **sums,
                "cost_usd": _usd_text(sums.pop("micro_usd")),
            }
        )
    for row in rows:
        row.pop("micro_usd", None)
    return rows


def _account_row(key: str, balance: Balance) -> dict[str, Any]:
    limit = balance.limit_micro_usd
    remaining_micro_usd = (
        None if limit is None else limit - balance.spent_micro_usd - balance.held_micro_usd
    )
    return {
        "account": key,
        "spent_usd": _usd_text(balance.spent_micro_usd),
        "held_usd": _usd_text(balance.held_micro_usd),
        "limit_usd": "" if limit is None else _usd_text(limit),
        "left_usd": "" if remaining_micro_usd is None else _usd_text(remaining_micro_usd),
        "spent_tokens": balance.spent_tokens,
        "held_tokens": balance.held_tokens,
        "limit_tokens": "" if balance.limit_tokens is None else balance.limit_tokens,
    }


def _usd_text(micro_usd: int) -> str:
    sign = "-" if micro_usd < 0 else ""
    absolute_micro_usd = abs(micro_usd)
    return f"{sign}{absolute_micro_usd // 1_000_000}.{absolute_micro_usd % 1_000_000:06d}"


def _print_rows(rows: list[dict[str, Any]], columns: Iterable[str], style: str) -> None:
    names = list(columns)
    if style == "json":
        echo_json([{name: row[name] for name in names} for row in rows])
    elif style == "csv":
        import csv
        import io

        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({n: _spreadsheet_safe(row[n]) for n in names} for row in rows)
        echo(buffer.getvalue(), nl=False)
    else:
        texts = [names, *([str(row[name]) for name in names] for row in rows)]
        widths = [max(len(line[n]) for line in texts) for n in range(len(names))]
        for line in texts:
            echo(
                "  ".join(
                    text.ljust(width) for text, width in zip(line, widths, strict=True)
                ).rstrip()
            )


def _spreadsheet_safe(value: Any) -> Any:
    """Quote a name that a spreadsheet would read as a formula."""
    return (
        f"'{value}"
        if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
        else value
    )
