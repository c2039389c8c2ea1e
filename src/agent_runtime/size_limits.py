"""Bound the size of all input, in one table that the environment can change."""

from __future__ import annotations

import os
from typing import NamedTuple

from agent_runtime.errors import ConfigurationError, close_matches

PREFIX = "AGENT_RUNTIME_MAX_"
KIB = 1024
MIB = 1024 * 1024
MAX_SIZE_LIMIT = 2**40


class SizeLimit(NamedTuple):
    """Define a bound and its subject."""

    default: int
    description: str


SIZE_LIMITS = {
    "yaml_bytes": SizeLimit(
        256 * KIB, "A YAML file: a template, rules, settings of a pool or a batch."
    ),
    "template_files": SizeLimit(
        100, "Files of one template; one that is named several times counts each time."
    ),
    "skill_bytes": SizeLimit(1_000_000, "A file of a skill."),
    "pattern_bytes": SizeLimit(MIB, "Memory of one compiled pattern of a JSON Schema."),
    "settings_bytes": SizeLimit(256 * KIB, "The settings' file."),
    "prices_bytes": SizeLimit(4 * MIB, "A file of prices."),
    "secret_bytes": SizeLimit(64 * KIB, "A file with a secret."),
    "jwt_keys_bytes": SizeLimit(MIB, "The key set that tokens are checked with."),
    "credential_bytes": SizeLimit(8 * KIB, "An API key or token of a caller."),
    "answer_bytes": SizeLimit(64 * MIB, "Decoded bytes of a provider's answer."),
    "stream_bytes": SizeLimit(1024 * MIB, "Decoded bytes of a provider's streamed answer."),
    "stream_event_bytes": SizeLimit(16 * MIB, "One line of a provider's streamed answer."),
    "answered_calls": SizeLimit(1024, "Tool calls of one answer; an answer with more is refused."),
    "mcp_message_bytes": SizeLimit(64 * MIB, "A message of an MCP server that is a program."),
    "document_bytes": SizeLimit(4 * MIB, "A document of `document_search`."),
    "csv_bytes": SizeLimit(64 * MIB, "A CSV file of the analyst's tools."),
    "title_characters": SizeLimit(1000, "A session's title."),
    "metadata_bytes": SizeLimit(64 * KIB, "A session's metadata, as JSON."),
    "event_bytes": SizeLimit(8 * MIB, "An event, as CloudEvents' JSON."),
    "webhook_bytes": SizeLimit(MIB, "The body of a webhook's request."),
    "row_characters": SizeLimit(16 * MIB, "A line, and a CSV field, of a batch's source."),
    "task_bytes": SizeLimit(4 * MIB, "A task of a batch, as JSON."),
    "frame_bytes": SizeLimit(64 * MIB, "A message between a pool and an agent's process."),
    "control_bytes": SizeLimit(4 * MIB, "A request to a running pool."),
    "recorded_events": SizeLimit(100_000, "Events of a recorded run."),
    "metric_series": SizeLimit(10_000, "Series over all metrics."),
}


def size_limit(name: str) -> int:
    """Return a bound: `AGENT_RUNTIME_MAX_{NAME}` of the environment, or its default.

    It is read when the module that needs it is imported, once for a process. Raises
    ConfigurationError.
    """
    text = os.environ.get(variable_of(name), "")
    return parse_size_limit(name, text) if text else SIZE_LIMITS[name].default


def parse_size_limit(name: str, text: str) -> int:
    """Return the bound in a text; raises ConfigurationError, which names the variable."""
    if not (
        text.isascii() and text.isdecimal() and len(text) <= 13 and 1 <= int(text) <= MAX_SIZE_LIMIT
    ):
        raise ConfigurationError(f"{variable_of(name)} is a whole number of 1 to {MAX_SIZE_LIMIT}")
    return int(text)


def variable_of(name: str) -> str:
    """Return the name of a bound's variable."""
    return PREFIX + name.upper()


def problem_of(variable: str, text: str) -> str | None:
    """Return the problem of a variable of this prefix, or None."""
    name = variable.removeprefix(PREFIX).lower()
    if name not in SIZE_LIMITS:
        return (
            f"unknown limit {variable}: "
            f"{close_matches(variable, [variable_of(limit_name) for limit_name in SIZE_LIMITS])}"
        )
    try:
        parse_size_limit(name, text)
    except ConfigurationError as error:
        return str(error)
    return None
