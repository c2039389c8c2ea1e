"""Define the events of a run, and their summary."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from agent_runtime.event_bus import Event
from agent_runtime.secrets.redaction import SECRETS

if TYPE_CHECKING:
    from agent_runtime.types import AgentContext

Family = Literal["run", "llm", "token", "tool", "chain", "interrupt"]
FAMILIES: tuple[Family, ...] = ("run", "llm", "token", "tool", "chain", "interrupt")
DEFAULT_CAPTURE: tuple[Family, ...] = ("run", "llm", "tool", "interrupt")


@dataclass(slots=True)
class CallbackEvent:
    """Describe an event of a run.

    `type` is `run_start/_end/_error`, `llm_start/_end/_error`, `llm_new_token`,
    `tool_start/_end/_error`, `tool_thread_left`, `chain_start/_end/_error`, `interrupt` or
    `resume`. `call_id` ties start and end together. `occurred_at` is Unix wall-clock seconds,
    `duration_s` comes from a monotonic clock and is set on ends. `template` names the run's agent.
    """

    type: str
    run_id: str | None
    name: str = ""
    call_id: str | None = None
    parent_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    duration_s: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    occurred_at: float = field(default_factory=time.time)
    tenant: str | None = None
    template: str = ""

    def to_event_data(self) -> dict[str, Any]:
        """Return the part that the bus's event does not have itself: its `data` on the wire."""
        fields = {
            "name": self.name,
            "call_id": self.call_id,
            "parent_id": self.parent_id,
            "duration_s": self.duration_s,
        }
        return {**{key: value for key, value in fields.items() if value is not None}, **self.data}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields that are set, as plain data without secrets."""
        present_fields = {
            k: v for k in self.__slots__ if (v := getattr(self, k)) not in (None, "", {})
        }
        return {k: SECRETS.value(v) for k, v in present_fields.items()}


@dataclass(slots=True)
class ExecutionSummary:
    """Count events; `duration_s` is from the first to the last of them."""

    runs: int = 0
    llm_calls: int = 0
    tool_calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    duration_s: float = 0.0
    tools: dict[str, int] = field(default_factory=dict)


@lru_cache(maxsize=256)
def family_of(event_type: str) -> str:
    """Return the family that a type belongs to."""
    if event_type == "llm_new_token":
        return "token"
    if event_type == "resume":
        return "interrupt"
    return event_type.partition("_")[0]


def call_event(kind: str, context: AgentContext, data: dict[str, Any]) -> Event:
    """Return a layer's event about a call, for the bus."""
    principal = context.principal
    user, tenant = (None, None) if principal is None else (principal.id, principal.tenant)
    return Event(
        kind,
        data,
        context.run_id,
        context.session_id,
        user,
        tenant=tenant,
        agent=context.agent_name,
    )
