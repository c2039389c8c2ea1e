"""Define the closed set of event types, each with its meaning and a JSON Schema of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_runtime.errors import ConfigurationError, close_matches

CUSTOM_PREFIX = "custom."
"""Prefix of the application's own types, whose data may be any JSON."""

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_SECONDS = {"type": "number", "minimum": 0}
_USAGE = {"type": "object", "description": "tokens, calls and cost of the run so far"}
_MESSAGE = {"type": "object", "description": "a LangChain message; only where content is recorded"}
_CALL = {"name": _TEXT, "call_id": _TEXT, "parent_id": _TEXT, "duration_s": _SECONDS}
_ERROR = {
    "error": {
        "type": "string",
        "description": "the error's code, or its class where it is a provider's",
    }
}


@dataclass(frozen=True, slots=True)
class EventType:
    """A type.

    Its `name`, `description`, the JSON Schema `properties` of its data, and which are always there.
    """

    name: str
    description: str
    properties: Mapping[str, Any]
    required: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of an event's `data`.

        Readers ignore unknown properties.
        """
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": dataschema_of(self.name),
            "title": self.name,
            "description": self.description,
            "type": "object",
            "properties": dict(self.properties),
            "required": list(self.required),
        }


def dataschema_of(event_type: str) -> str:
    """Return the URI of a type's schema."""
    return f"urn:agent-runtime:event:{event_type}:v1"


def _refused(layer: str) -> EventType:
    return EventType(
        f"{layer}.refused",
        f"The {layer} layer refused a call.",
        {"code": _TEXT, "message": _TEXT},
        ("code",),
    )


_TYPES = (
    EventType(
        "run.start",
        "A call of an agent began.",
        {**_CALL, "input": {}, "agent": {"type": "object"}},
        ("name",),
    ),
    EventType(
        "run.end",
        "A call ended: completed, interrupted, stopped or drained.",
        {**_CALL, "status": _TEXT, "usage": _USAGE, "output": {}},
        ("name", "status", "usage"),
    ),
    EventType(
        "run.error",
        "A call failed or was cancelled.",
        {**_CALL, **_ERROR, "usage": _USAGE},
        ("name", "error"),
    ),
    EventType(
        "llm.start", "A model call began.", {**_CALL, "messages": {"type": "array"}}, ("name",)
    ),
    EventType(
        "llm.end",
        "A model answered.",
        {
            **_CALL,
            "input_tokens": _COUNT,
            "output_tokens": _COUNT,
            "cost_usd": {},
            "message": _MESSAGE,
        },
        ("name",),
    ),
    EventType(
        "llm.error", "A model call failed or was cut.", {**_CALL, **_ERROR}, ("name", "error")
    ),
    EventType(
        "llm.new_token",
        "A piece of streamed text; only where tokens are captured.",
        {"text": _TEXT},
        ("text",),
    ),
    EventType("tool.start", "A tool call began.", {**_CALL, "args": {}}, ("name",)),
    EventType("tool.end", "A tool answered.", {**_CALL, "output": {}}, ("name",)),
    EventType("tool.error", "A tool call failed.", {**_CALL, **_ERROR}, ("name", "error")),
    EventType(
        "tool.thread_left",
        "Sync tools still run in threads of a call that has ended.",
        {"count": _COUNT},
        ("count",),
    ),
    EventType("chain.start", "A chain began (a handler used alone).", {**_CALL, "inputs": {}}),
    EventType("chain.end", "A chain ended.", {**_CALL, "outputs": {}}),
    EventType("chain.error", "A chain failed.", {**_CALL, **_ERROR}, ("error",)),
    EventType("interrupt", "A run waits for a person.", {**_CALL, "count": _COUNT}, ("count",)),
    EventType("resume", "A run resumed after an interrupt.", _CALL),
    EventType(
        "session.created", "A session was made.", {"agent": {"type": "object"}, "title": _TEXT}
    ),
    EventType("session.forked", "A session was made from another one.", {"from": _TEXT}, ("from",)),
    EventType(
        "session.deleted", "A session was deleted, or has expired.", {"reason": _TEXT}, ("reason",)
    ),
    EventType("session.turn_start", "A call has the turn of its session.", {"waited_s": _SECONDS}),
    EventType(
        "session.turn_end",
        "A call gave the turn of its session back.",
        {"status": _TEXT},
        ("status",),
    ),
    _refused("auth"),
    _refused("rate_limit"),
    _refused("concurrency"),
    _refused("session"),
    _refused("cost"),
    _refused("pool"),
    EventType(
        "retry.again",
        "The retry layer tries a call once more.",
        {"attempt": _COUNT, **_ERROR},
        ("attempt", "error"),
    ),
    EventType(
        "budget.warning",
        "A budget has reached one of its warning marks.",
        {"account": _TEXT},
        ("account",),
    ),
    EventType(
        "limits.fallback",
        "A limit's store is out; a local limiter has taken over.",
        {"layer": _TEXT},
        ("layer",),
    ),
    EventType("limits.restored", "A limit's store is back.", {"layer": _TEXT}, ("layer",)),
    EventType(
        "bus.gap",
        "A reader lost events at this place.",
        {"missed": {"type": "integer", "minimum": 1}, "policy": _TEXT},
        ("missed", "policy"),
    ),
    EventType(
        "bus.unreadable",
        "What stands at this place of a broker's log is no event.",
        {"position": _TEXT, "reason": _TEXT},
        ("position", "reason"),
    ),
    EventType(
        "bus.conflict",
        "An event came with the id of another one that was handled; it was dropped.",
        {"event_id": _TEXT, "queue": _TEXT, "event_type": _TEXT},
        ("event_id", "queue"),
    ),
    EventType(
        "dead_letter.added",
        "Something could not be handled and was put aside.",
        {"letter_id": _TEXT, "queue": _TEXT, "attempts": _COUNT, **_ERROR},
        ("letter_id", "queue", "error"),
    ),
    EventType(
        "trigger.fired",
        "A rule started an agent.",
        {"rule": _TEXT, "agent": _TEXT, "event_id": _TEXT},
        ("rule",),
    ),
    EventType(
        "trigger.failed",
        "A run started by a rule failed.",
        {"rule": _TEXT, **_ERROR},
        ("rule", "error"),
    ),
    EventType(
        "trigger.stopped",
        "A rule was held back: its depth of causation, its rate or its budget.",
        {"rule": _TEXT, "reason": _TEXT, "depth": _COUNT, "max_depth": _COUNT, "event_id": _TEXT},
        ("rule", "reason"),
    ),
    EventType(
        "pool.instance",
        "An instance of a pool has another status.",
        {
            "instance_id": _TEXT,
            "agent": _TEXT,
            "status": _TEXT,
            "before": _TEXT,
            "pid": _COUNT,
            **_ERROR,
        },
        ("instance_id", "agent", "status"),
    ),
    EventType(
        "pool.context",
        "A warm agent was built, dropped or could not be built.",
        {"key": _TEXT, "what": _TEXT, "reason": _TEXT, "build_s": _SECONDS},
        ("key", "what"),
    ),
    EventType(
        "template.changed",
        "A changed template was loaded.",
        {"template": _TEXT, "digest": _TEXT},
    ),
    EventType(
        "template.rejected",
        "A changed template is broken; its previous version stays in use.",
        {"template": _TEXT, "problems": {"type": "array"}},
        ("template", "problems"),
    ),
    EventType(
        "mcp.server",
        "An MCP server has another status.",
        {"server": _TEXT, "status": _TEXT, **_ERROR},
        ("server", "status"),
    ),
    EventType(
        "provider.limit",
        "How many calls may be in flight at a provider has changed.",
        {"provider": _TEXT, "limit": _COUNT, "before": _COUNT, "reason": _TEXT},
        ("provider", "limit", "reason"),
    ),
    EventType(
        "batch.execution",
        "A batch has another status.",
        {"execution_id": _TEXT, "status": _TEXT, "before": _TEXT, "reason": _TEXT},
        ("execution_id", "status"),
    ),
    EventType(
        "batch.task",
        "A task of a batch has ended, and its result is kept.",
        {
            "execution_id": _TEXT,
            "task_id": _TEXT,
            "status": _TEXT,
            "attempts": _COUNT,
            "duration_s": _SECONDS,
            "kind": _TEXT,
            **_ERROR,
        },
        ("execution_id", "task_id", "status"),
    ),
    EventType(
        "batch.retry",
        "A task of a batch is tried again.",
        {"execution_id": _TEXT, "task_id": _TEXT, "attempt": _COUNT, **_ERROR},
        ("execution_id", "task_id"),
    ),
    EventType(
        "batch.slow",
        "A task of a batch takes longer than it should.",
        {"execution_id": _TEXT, "task_id": _TEXT, "running_s": _SECONDS},
        ("execution_id", "task_id", "running_s"),
    ),
    EventType(
        "batch.forecast",
        "The cost of a batch was forecast from a sample.",
        {"execution_id": _TEXT, "forecast": {"type": "object"}},
        ("execution_id", "forecast"),
    ),
    EventType(
        "webhook.received",
        "A signed request came in.",
        {"hook": _TEXT, "payload": {}},
        ("hook", "payload"),
    ),
    EventType(
        "schedule.due",
        "A schedule's moment has come.",
        {"schedule": _TEXT, "due_s": {"type": "number"}},
        ("schedule",),
    ),
)

EVENT_TYPES: Mapping[str, EventType] = {event_type.name: event_type for event_type in _TYPES}
"""Every type that the runtime publishes, by name."""


def check_type(event_type: str) -> None:
    """Raise ConfigurationError for an unknown type."""
    if event_type not in EVENT_TYPES and not (
        event_type.startswith(CUSTOM_PREFIX) and len(event_type) > len(CUSTOM_PREFIX)
    ):
        raise ConfigurationError(
            f"unknown event type '{event_type}': {close_matches(event_type, EVENT_TYPES)} "
            f"An application's own begins with '{CUSTOM_PREFIX}'."
        )


def schemas() -> dict[str, Any]:
    """Return one JSON document with the schema of every type."""
    return {name: event_type.schema for name, event_type in sorted(EVENT_TYPES.items())}
