"""Conditions and placeholders on an event: JMESPath, which can neither call, assign nor loop."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from agent_runtime.errors import ConfigurationError, MissingExtra
from agent_runtime.event_bus import Event
from agent_runtime.event_bus.cloud_event import to_jsonable, with_older_names

MAX_EXPRESSION_CHARS = 1000
MAX_RENDERED_CHARS = 1_000_000
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def event_facts(event: Event) -> dict[str, Any]:
    """Return the input of an expression: the event's fields, and its `data` as JSON.

    Renamed fields are there under their older names too: JMESPath reads an unknown name as null, so
    a rule that uses one would never start anything, without an error.
    """
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "seq": event.seq,
        "depth": event.depth,
        "occurred_at": event.occurred_at,
        "time_s": event.occurred_at,
        "run_id": event.run_id,
        "session_id": event.session_id,
        "user_id": event.user_id,
        "tenant": event.tenant,
        "agent": event.agent,
        "data": with_older_names(event.type, to_jsonable(event.data)),
    }


@lru_cache(maxsize=1024)
def compile_expression(expression: str) -> Any:
    """Parse an expression; raises ConfigurationError with the position, MissingExtra."""
    try:
        import jmespath
        from jmespath.exceptions import JMESPathError
    except ImportError as error:
        raise MissingExtra("a trigger", "langchain-agent-runtime[triggers]") from error
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise ConfigurationError(
            f"an expression of {len(expression)} characters; {MAX_EXPRESSION_CHARS} are allowed"
        )
    try:
        return jmespath.compile(expression)
    except (JMESPathError, RecursionError) as error:
        raise ConfigurationError(
            f"'{expression[:60]}' is not JMESPath: {' '.join(str(error).split())[:200]}"
        ) from None


def evaluate(expression: str, facts: dict[str, Any]) -> Any:
    """Evaluate an expression; raises ConfigurationError for one that fails on these facts."""
    from jmespath.exceptions import JMESPathError

    try:
        return compile_expression(expression).search(facts)
    except (
        JMESPathError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        LookupError,
    ) as error:
        raise ConfigurationError(
            f"'{expression[:60]}': {' '.join(str(error).split())[:200]}"
        ) from None


def is_condition_met(condition: str | None, facts: dict[str, Any]) -> bool:
    """Return whether the condition is true; missing, empty or null values are not."""
    return condition is None or evaluate(condition, facts) is True


def find_expressions(text: str) -> list[str]:
    """Return the expressions between `{{` and `}}`."""
    return [expression.strip() for expression in _PLACEHOLDER.findall(text)]


def render_template(text: str, facts: dict[str, Any]) -> str:
    """Replace each `{{ expression }}` in `text`; values are never parsed again."""

    def render_placeholder(match: re.Match[str]) -> str:
        value = evaluate(match[1].strip(), facts)
        return (
            value
            if isinstance(value, str)
            else ""
            if value is None
            else json.dumps(value, ensure_ascii=False)
        )

    rendered_text = _PLACEHOLDER.sub(render_placeholder, text)
    if len(rendered_text) > MAX_RENDERED_CHARS:
        raise ConfigurationError(
            f"a text of {len(rendered_text)} characters; {MAX_RENDERED_CHARS} are allowed"
        )
    return rendered_text
