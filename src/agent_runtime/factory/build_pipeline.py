"""From a template, and what an application gives a factory, to the layers of an agent's onion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from agent_runtime.budgets.budget import Budget
from agent_runtime.budgets.ledger.ledger import Ledger
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.errors import UnknownComponent
from agent_runtime.limits.concurrency import ConcurrencyLimit
from agent_runtime.limits.opening import LimitStore
from agent_runtime.limits.rate_limits import RateLimit
from agent_runtime.orchestration.middleware import (
    DEFAULT_ORDER,
    AuthMiddleware,
    ConcurrencyMiddleware,
    CostTrackingMiddleware,
    LoggingMiddleware,
    Middleware,
    RateLimitMiddleware,
    RetryMiddleware,
    SessionMiddleware,
    Spending,
)

if TYPE_CHECKING:
    from agent_runtime.auth.authenticator import Authenticator
    from agent_runtime.event_bus import EventBus
    from agent_runtime.monitoring.metrics import RuntimeMetrics
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.template import AgentTemplate


ENFORCED = ("auth", "rate_limit", "concurrency", "cost")
"""Layers that are added at their position where they are configured but not listed."""


@dataclass(slots=True)
class Seats:
    """What the layers of all agents of one factory share; None and empty are not configured."""

    event_bus: EventBus
    session_manager: SessionManager | None = None
    ledger: Ledger | None = None
    budgets: tuple[Budget, ...] = ()
    authenticators: tuple[Authenticator, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    concurrency: tuple[ConcurrencyLimit, ...] = ()
    limits: LimitStore = field(default_factory=LimitStore)
    metrics: RuntimeMetrics | None = None
    pipeline: Sequence[str | Middleware] | None = None
    own_ledger: Ledger = field(default_factory=MemoryLedger)
    """For templates with budgets in an application that names no ledger."""


def build_layers(
    template: AgentTemplate, seats: Seats, registered: Mapping[str, type | Middleware]
) -> list[Middleware]:
    """The layers of a template's agent, outermost first.

    Raises UnknownComponent for one that is not configured.
    """
    configured = _configured(template, seats)
    default = [
        name for name in DEFAULT_ORDER if name in configured
    ]  # an order: a layer is there when configured
    names: Sequence[str | Middleware] = template.spec.runtime.pipeline or seats.pipeline or default
    names = _with_enforced(list(names), configured)
    layers: list[Middleware] = []
    for name in names:
        layer = (
            name if isinstance(name, Middleware) else configured.get(name) or registered.get(name)
        )
        if layer is None:
            raise UnknownComponent("layer", str(name), [*configured, *registered])
        layers.append(layer() if isinstance(layer, type) else layer)
    return layers


def _with_enforced(
    names: list[str | Middleware], configured: Mapping[str, Middleware]
) -> list[str | Middleware]:
    """An order says where layers stand.

    It does not switch off those that hold callers to their limits.
    """
    for name in [each for each in ENFORCED if each in configured]:
        if not any(each == name or isinstance(each, type(configured[name])) for each in names):
            inside = DEFAULT_ORDER[DEFAULT_ORDER.index(name) + 1 :]
            place = next((n for n, each in enumerate(names) if each in inside), len(names))
            names.insert(place, name)
    return names


def _configured(template: AgentTemplate, seats: Seats) -> dict[str, Middleware]:
    runtime = template.spec.runtime
    bus = seats.event_bus
    limits = seats.limits
    retry = runtime.retry
    at_once = runtime.concurrency
    configured: dict[str, Middleware] = {
        "logging": LoggingMiddleware(content=runtime.logging.content),
        "retry": RetryMiddleware(
            retry.attempts, retry.retry_on, retry.initial_delay, retry.max_delay, bus=bus
        ),
    }
    if seats.authenticators or runtime.auth.require:
        auth = runtime.auth
        configured["auth"] = AuthMiddleware(
            *seats.authenticators, require=auth.require, roles=auth.roles
        )
    if rates := [
        *seats.rate_limits,
        *(_of_template(RateLimit.parse(text)) for text in runtime.rate_limits),
    ]:
        configured["rate_limit"] = RateLimitMiddleware(
            rates, limits.windows, processes=limits.processes, bus=bus
        )
    if seats.session_manager is not None:
        sessions = template.spec.sessions
        strategy = sessions.multitask_strategy
        ttl_s = sessions.ttl
        configured["session"] = SessionMiddleware(seats.session_manager, strategy, ttl_s=ttl_s)
    if places := [
        *seats.concurrency,
        *(_of_template(ConcurrencyLimit(each.calls, tuple(each.per))) for each in at_once.limits),
    ]:
        configured["concurrency"] = ConcurrencyMiddleware(
            places, limits.slots, wait_s=at_once.wait or 0.0, processes=limits.processes, bus=bus
        )
    if seats.ledger is not None or seats.budgets or runtime.cost.budgets:
        configured["cost"] = _cost(template, seats)
    return configured


Limit = TypeVar("Limit", RateLimit, ConcurrencyLimit)


def _of_template(limit: Limit) -> Limit:
    """Return a template's own limit, which counts its own calls.

    It cannot use up what others may call.
    """
    per: tuple[str, ...] = limit.per
    if "template" in per:
        return limit
    return dataclasses.replace(
        limit, per=("template",) if per == ("global",) else (*per, "template")
    )


def _cost(template: AgentTemplate, seats: Seats) -> CostTrackingMiddleware:
    cost = template.spec.runtime.cost
    own = [
        Budget(b.scope, b.usd, b.tokens, b.per, b.only, tuple(b.warn_at), b.tenant, b.user)
        for b in cost.budgets
    ]
    spending = Spending(
        cost.on_exhausted,
        cost.unknown_price,
        cost.max_output_tokens,
        cost.min_output_tokens,
        cost.slab_calls,
        cost.hold_ttl,
    )
    ledger = seats.ledger or seats.own_ledger
    on_charge = None if seats.metrics is None else seats.metrics.on_charge
    return CostTrackingMiddleware(
        ledger, seats.budgets, spending, more_budgets=own, bus=seats.event_bus, on_charge=on_charge
    )
