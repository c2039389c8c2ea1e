"""Build the result of a call from its agent's return value or interruption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langgraph.types import GraphOutput, Interrupt

from agent_runtime.orchestration.messages import answer_text, messages_in
from agent_runtime.types import AgentContext, AgentResult

if TYPE_CHECKING:
    from agent_runtime.errors import BudgetExceeded


def result_of(returned: Any, context: AgentContext, digest: str | None) -> AgentResult:
    """Return the result of a call from its agent's return value."""
    interrupts: tuple[Any, ...] = ()
    structured = None
    if isinstance(returned, Mapping):
        interrupts = tuple(returned.get("__interrupt__") or ())
    else:
        interrupts = tuple(
            getattr(returned, "interrupts", ())
        )  # GraphOutput, when the caller requested v2
    state = returned.value if isinstance(returned, GraphOutput) else returned
    if isinstance(state, Mapping):
        structured = state.get("structured_response")
    messages = messages_in(state)
    return AgentResult(
        output="" if interrupts else answer_text(state, messages, structured),
        value=returned,
        messages=messages,
        structured_response=structured,
        usage=context.usage,
        run_id=context.run_id,
        session_id=context.session_id,
        status="interrupted" if interrupts else "completed",
        interrupts=interrupts,
        template_digest=digest,
    )


def state_with_interrupts(output: GraphOutput[Any]) -> Any:
    """Return a graph's output as its state with its interrupts inside, as by default."""
    if not output.interrupts:
        return output.value
    state = output.value if isinstance(output.value, dict) else {}
    return {**state, "__interrupt__": list(output.interrupts)}


def budget_interrupt_result(
    refusal: BudgetExceeded, state: Mapping[str, Any], context: AgentContext, digest: str | None
) -> AgentResult:
    """Return an interrupted call that waits for a larger budget; resume it then."""
    question = {
        "code": refusal.code,
        "description": str(refusal),
        "account": refusal.account,
        "limit_usd": None if refusal.limit_usd is None else format(refusal.limit_usd, "f"),
    }
    return result_of(
        {**state, "__interrupt__": (Interrupt(value=question, id=context.run_id),)}, context, digest
    )
