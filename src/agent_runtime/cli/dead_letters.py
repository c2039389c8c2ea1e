"""Implement `agent-runtime events dead`: events that could not be handled."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from agent_runtime.cli.output import echo, echo_json
from agent_runtime.cli.state import open_dead_letters
from agent_runtime.escapes import escape_to_one_line

if TYPE_CHECKING:
    from agent_runtime.event_bus.dead_letter import DeadLetters

NOT_FOUND = 4


@click.group("dead")
@click.option("--letters", metavar="URL", help="sqlite:FILE; default: the state directory.")
@click.pass_context
def dead(context: click.Context, letters: str | None) -> None:
    """List, show, retry and discard dead letters."""
    context.obj = (context.obj, letters)


def _with_dead_letters(url: str | None, action: Callable[[DeadLetters], Awaitable[Any]]) -> Any:
    import asyncio

    async def run() -> Any:
        dead_letters = open_dead_letters(url)
        try:
            return await action(dead_letters)
        finally:
            await dead_letters.aclose()

    return asyncio.run(run())


@dead.command("list")
@click.option("--queue", help="Only this consumer's.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_obj
def list_letters(urls: tuple[Any, Any], queue: str | None, limit: int, *, as_json: bool) -> None:
    """List dead letters, oldest first."""
    for dead_letter in _with_dead_letters(
        urls[1], lambda letters: letters.list(queue, limit=limit)
    ):
        if as_json:
            echo_json(dead_letter.to_dict())
        else:
            failure = f"{dead_letter.error}: {dead_letter.message[:60]}"
            echo(
                escape_to_one_line(
                    f"{dead_letter.id} {dead_letter.queue:16} {dead_letter.attempts:>3} tries  "
                    f"{failure}"
                )
            )


@dead.command()
@click.argument("letter_id")
@click.pass_obj
def show(urls: tuple[Any, Any], letter_id: str) -> int:
    """Print the letter LETTER_ID."""
    dead_letter = _with_dead_letters(urls[1], lambda letters: letters.get(letter_id))
    if dead_letter is None:
        return _report_not_found(letter_id)
    echo_json(dead_letter.to_dict(), indent=2)
    return 0


@dead.command()
@click.argument("letter_id")
@click.pass_obj
def retry(urls: tuple[Any, Any], letter_id: str) -> int:
    """Publish the event of LETTER_ID again, under a new id, and delete the letter.

    All consumers of the log receive it: every rule that matches it, not only the one that failed.
    """

    async def action(dead_letters: DeadLetters) -> bool:
        from agent_runtime.cli.state import open_event_broker
        from agent_runtime.event_bus.cloud_event import from_cloud_event

        dead_letter = await dead_letters.get(letter_id)
        if dead_letter is None:
            return False
        event = from_cloud_event(dead_letter.payload)
        broker = open_event_broker(urls[0])
        try:
            await broker.publish(
                [dataclasses.replace(event, own_id=f"{event.id}:retry:{dead_letter.id}")]
            )
        finally:
            await broker.aclose()
        return await dead_letters.remove(letter_id)

    return 0 if _with_dead_letters(urls[1], action) else _report_not_found(letter_id)


@dead.command()
@click.argument("letter_id")
@click.pass_obj
def discard(urls: tuple[Any, Any], letter_id: str) -> int:
    """Throw the letter LETTER_ID away."""
    return (
        0
        if _with_dead_letters(urls[1], lambda letters: letters.remove(letter_id))
        else _report_not_found(letter_id)
    )


def _report_not_found(letter_id: str) -> int:
    echo(f"no dead letter '{letter_id}'", err=True, label="error:", fg="red")
    return NOT_FOUND
