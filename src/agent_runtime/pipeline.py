"""From a template, and what an application gives a factory, to the layers of an agent's onion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_runtime.errors import UnknownComponent
from agent_runtime.monitoring.budgets import Budget
from agent_runtime.monitoring.ledger import Ledger
from agent_runtime.monitoring.memory_ledger import MemoryLedger
from agent_runtime.orchestration.middleware import (
    DEFAULT_ORDER,
    CostTrackingMiddleware,
    LoggingMiddleware,
    Middleware,
    RetryMiddleware,
    SessionMiddleware,
    Spending,
)

if TYPE_CHECKING:
    from agent_runtime.event_bus import EventBus
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.template import AgentTemplate


@dataclass(slots=True)
class Seats:
    """What the layers of all agents of one factory share; None and empty are not configured."""

    event_bus: EventBus
    session_manager: SessionManager | None = None
    ledger: Ledger | None = None
    budgets: tuple[Budget, ...] = ()
    pipeline: Sequence[str | Middleware] | None = None
    own_ledger: Ledger = field(default_factory=MemoryLedger)
    """For templates with budgets in an application that names no ledger."""


def build_layers(
    template: AgentTemplate, seats: Seats, registered: Mapping[str, type | Middleware]
) -> list[Middleware]:
    """The layers of a template's agent, outermost first; raises UnknownComponent for one that is not configured."""
    configured = _configured(template, seats)
    default = [name for name in DEFAULT_ORDER if name in configured]  # an order: a layer is there when configured
    names: Sequence[str | Middleware] = template.spec.runtime.pipeline or seats.pipeline or default
    layers: list[Middleware] = []
    for name in names:
        layer = name if isinstance(name, Middleware) else configured.get(name) or registered.get(name)
        if layer is None:
            raise UnknownComponent("layer", str(name), [*configured, *registered])
        layers.append(layer() if isinstance(layer, type) else layer)
    return layers


def _configured(template: AgentTemplate, seats: Seats) -> dict[str, Middleware]:
    runtime = template.spec.runtime
    retry = runtime.retry
    configured: dict[str, Middleware] = {
        "logging": LoggingMiddleware(),
        "retry": RetryMiddleware(retry.attempts, retry.retry_on, retry.initial_delay, retry.max_delay),
    }
    if seats.session_manager is not None:
        sessions = template.spec.sessions
        strategy, ttl_s = sessions.multitask_strategy, sessions.ttl
        configured["session"] = SessionMiddleware(seats.session_manager, strategy, ttl_s=ttl_s)
    if seats.ledger is not None or seats.budgets or runtime.cost.budgets:
        configured["cost"] = _cost(template, seats)
    return configured


def _cost(template: AgentTemplate, seats: Seats) -> CostTrackingMiddleware:
    cost = template.spec.runtime.cost
    own = [Budget(b.scope, b.usd, b.tokens, b.per, b.only, tuple(b.warn_at)) for b in cost.budgets]
    spending = Spending(
        cost.on_exhausted,
        cost.unknown_price,
        cost.max_output_tokens,
        cost.min_output_tokens,
        cost.slab_calls,
        cost.hold_ttl,
    )
    ledger = seats.ledger or seats.own_ledger
    return CostTrackingMiddleware(ledger, [*seats.budgets, *own], spending, bus=seats.event_bus)
