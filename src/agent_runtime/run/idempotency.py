"""Run tools at most once: a session records each call before and after."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.types import interrupt

from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.run.state import current_run

if TYPE_CHECKING:
    from agent_runtime.sessions.turn import Turn

IDEMPOTENT = "idempotent"
"""Key in a tool's metadata that declares repetitions harmless."""
SIDE_EFFECT_UNKNOWN = "side_effect_unknown"


_SEPARATOR = "\x1f"


def effect_key(namespace: str, call_id: str, digest: str) -> str:
    """Return the key of a call in a session's records."""
    return _SEPARATOR.join((namespace, call_id, digest))


def parse_effect_key(key: str) -> tuple[str, str]:
    """Return the LangGraph task and the call of a key."""
    namespace, _, rest = key.partition(_SEPARATOR)
    return namespace.rpartition(":")[2], rest.rpartition(_SEPARATOR)[0]


def mark_idempotent(tool: BaseTool) -> BaseTool:
    """Return a copy of `tool`, marked: after a crash it is run again."""
    return tool.model_copy(update={"metadata": {**(tool.metadata or {}), IDEMPOTENT: True}})


async def run_once(
    tool: BaseTool,
    tool_input: Any,
    tool_kwargs: dict[str, Any],
    execute: Callable[[], Awaitable[Any]],
) -> Any:
    """Run a tool call of a session, unless an earlier attempt at the same call has completed.

    Then its result is the answer. An attempt without an end (the process died, or the call was
    cancelled) may have had its effect. Then a person is asked, by an interrupt whose value has the
    code `side_effect_unknown`: approve runs the tool again, reject tells the model that the effect
    is unknown. A tool that raised had no effect, and may run again.
    """
    active_run = current_run.get()
    turn = None if active_run is None else active_run.context.turn
    call_id = tool_kwargs.get("tool_call_id")
    if turn is None or call_id is None or (tool.metadata or {}).get(IDEMPOTENT):
        return await execute()
    # LangGraph names a step's task after the checkpoint, so a repeated step has the same name.
    namespace = ((tool_kwargs.get("config") or {}).get("configurable") or {}).get(
        "checkpoint_ns", ""
    )
    serialized_input = json.dumps(tool_input, sort_keys=True, default=str)
    key = effect_key(
        namespace, call_id, blake2b(serialized_input.encode(), digest_size=8).hexdigest()
    )
    state, result = await turn.tool_started(key)
    if state == "ended":
        return result
    if state == "unknown" and not _is_rerun_approved(tool, tool_input):
        text = (
            "Whether this call took effect before a crash is not known, and it was not run again."
        )
        return ToolMessage(text, tool_call_id=call_id, name=tool.name, status="error")
    return await _run_recorded(turn, key, execute, is_rerun=state == "unknown")


async def _run_recorded(
    turn: Turn, key: str, execute: Callable[[], Awaitable[Any]], *, is_rerun: bool
) -> Any:
    try:
        result = await execute()
    except GraphBubbleUp:
        if not is_rerun:  # it interrupts itself, and will be rerun with the answer
            await turn.tool_failed(key)
        raise
    except BaseException as error:
        if (failure := as_user_exception(error)) is not error:
            await turn.tool_failed(key)
            raise failure from error
        await turn.tool_failed(key)
        raise
    await turn.tool_ended(key, result)
    return result


def _is_rerun_approved(tool: BaseTool, tool_input: Any) -> bool:
    request = {
        "name": tool.name,
        "args": tool_input,
        "description": f"'{tool.name}' was started and its answer lost: it may have taken "
        "effect. Run it again?",
    }
    review = {"action_name": tool.name, "allowed_decisions": ["approve", "reject"]}
    answer = interrupt(
        {"code": SIDE_EFFECT_UNKNOWN, "action_requests": [request], "review_configs": [review]}
    )
    decisions = answer.get("decisions", [{}]) if isinstance(answer, dict) else [{}]
    return bool(decisions[0].get("type") == "approve")
