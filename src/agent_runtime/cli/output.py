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
    from agent_runtime.escapes import escape_controls

    escaped_text = escape_controls(text)
    if label:
        escaped_text = f"{click.style(escape_controls(label), **style)} {escaped_text}"
    elif style:
        escaped_text = click.style(escaped_text, **style)
    click.echo(escaped_text, err=err, nl=nl)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON: on one line without `indent`."""
    from agent_runtime.escapes import json_line

    click.echo(json_line(value, indent=indent, default=str))
