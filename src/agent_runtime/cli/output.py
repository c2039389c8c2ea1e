"""Print text and JSON to the terminal, with control characters escaped."""

from __future__ import annotations

from typing import Any

import click


def echo(
    text: str = "", *, err: bool = False, nl: bool = True, label: str = "", **style: Any
) -> None:
    """Print text for people, escaped.

    `label` goes before it, and `style` is the label's, or the text's without one.
    """
    from agent_runtime.escapes import escaped

    shown = escaped(text)
    if label:
        shown = f"{click.style(escaped(label), **style)} {shown}"
    elif style:
        shown = click.style(shown, **style)
    click.echo(shown, err=err, nl=nl)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON: on one line without `indent`."""
    from agent_runtime.escapes import json_line

    click.echo(json_line(value, indent=indent, default=str))
