"""Build the layers of an agent's pipeline from its template and the factory's configuration."""

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
    SpendingPolicy,
)

if TYPE_CHECKING:
    from agent_runtime.auth.authenticator import Authenticator
    from agent_runtime.event_bus import EventBus
    from agent_runtime.monitoring.metrics import RuntimeMetrics
    from agent_runtime.sessions.manager import SessionManager
    from agent_runtime.template import AgentTemplate


ENFORCED_LAYERS = ("auth", "rate_limit", "concurrency", "cost")
"""Layers that are added at their position where they are configured but not listed."""


@dataclass(slots=True)
class PipelineDependencies:
    """Hold the resources that the layers of one factory share; None and empty: not configured."""

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
    default_ledger: Ledger = field(default_factory=MemoryLedger)
    """For templates with budgets in an application that names no ledger."""


def build_layers(
    template: AgentTemplate,
    dependencies: PipelineDependencies,
    registered_layers: Mapping[str, type | Middleware],
) -> list[Middleware]:
    """Return the layers of a template's agent, outermost first.

    Raises UnknownComponent for one that is not configured.
    """
    configured = _configured_layers(template, dependencies)
    default_order = [
        name for name in DEFAULT_ORDER if name in configured
    ]  # an order: a layer exists if it is configured
    names: Sequence[str | Middleware] = (
        template.spec.runtime.pipeline or dependencies.pipeline or default_order
    )
    names = _insert_enforced(list(names), configured)
    layers: list[Middleware] = []
    for name in names:
        layer = (
            name
            if isinstance(name, Middleware)
            else configured.get(name) or registered_layers.get(name)
        )
        if layer is None:
            raise UnknownComponent("layer", str(name), [*configured, *registered_layers])
        layers.append(layer() if isinstance(layer, type) else layer)
    return layers


def _insert_enforced(
    names: list[str | Middleware], configured: Mapping[str, Middleware]
) -> list[str | Middleware]:
    """Insert enforced layers that an order leaves out.

    It sets their position, and cannot disable them.
    """
    for name in [layer_name for layer_name in ENFORCED_LAYERS if layer_name in configured]:
        if not any(layer == name or isinstance(layer, type(configured[name])) for layer in names):
            inner_layers = DEFAULT_ORDER[DEFAULT_ORDER.index(name) + 1 :]
            position = next(
                (n for n, layer in enumerate(names) if layer in inner_layers), len(names)
            )
            names.insert(position, name)
    return names


def _configured_layers(
    template: AgentTemplate, dependencies: PipelineDependencies
) -> dict[str, Middleware]:
    runtime = template.spec.runtime
    bus = dependencies.event_bus
    limits = dependencies.limits
    retry = runtime.retry
    concurrency = runtime.concurrency
    configured: dict[str, Middleware] = {
        "logging": LoggingMiddleware(content=runtime.logging.content),
        "retry": RetryMiddleware(
            retry.attempts, retry.retry_on, retry.initial_delay, retry.max_delay, bus=bus
        ),
    }
    if dependencies.authenticators or runtime.auth.require:
        auth = runtime.auth
        configured["auth"] = AuthMiddleware(
            *dependencies.authenticators, require=auth.require, roles=auth.roles
        )
    if rate_limits := [
        *dependencies.rate_limits,
        *(_scoped_to_template(RateLimit.parse(text)) for text in runtime.rate_limits),
    ]:
        configured["rate_limit"] = RateLimitMiddleware(
            rate_limits, limits.windows, processes=limits.processes, bus=bus
        )
    if dependencies.session_manager is not None:
        sessions = template.spec.sessions
        strategy = sessions.multitask_strategy
        ttl_s = sessions.ttl
        configured["session"] = SessionMiddleware(
            dependencies.session_manager, strategy, ttl_s=ttl_s
        )
    if concurrency_limits := [
        *dependencies.concurrency,
        *(
            _scoped_to_template(ConcurrencyLimit(limit_spec.calls, tuple(limit_spec.per)))
            for limit_spec in concurrency.limits
        ),
    ]:
        configured["concurrency"] = ConcurrencyMiddleware(
            concurrency_limits,
            limits.slots,
            wait_s=concurrency.wait or 0.0,
            processes=limits.processes,
            bus=bus,
        )
    if dependencies.ledger is not None or dependencies.budgets or runtime.cost.budgets:
        configured["cost"] = _cost_layer(template, dependencies)
    return configured


Limit = TypeVar("Limit", RateLimit, ConcurrencyLimit)


def _scoped_to_template(limit: Limit) -> Limit:
    """Return a template's limit, counting its own calls only, so that it never limits others."""
    per: tuple[str, ...] = limit.per
    if "template" in per:
        return limit
    return dataclasses.replace(
        limit, per=("template",) if per == ("global",) else (*per, "template")
    )


def _cost_layer(
    template: AgentTemplate, dependencies: PipelineDependencies
) -> CostTrackingMiddleware:
    cost = template.spec.runtime.cost
    template_budgets = [
        Budget(b.scope, b.usd, b.tokens, b.per, b.only, tuple(b.warn_at), b.tenant, b.user)
        for b in cost.budgets
    ]
    spending = SpendingPolicy(
        cost.on_exhausted,
        cost.unknown_price,
        cost.max_output_tokens,
        cost.min_output_tokens,
        cost.slab_calls,
        cost.hold_ttl,
    )
    ledger = dependencies.ledger or dependencies.default_ledger
    on_charge = None if dependencies.metrics is None else dependencies.metrics.on_charge
    return CostTrackingMiddleware(
        ledger,
        dependencies.budgets,
        spending,
        more_budgets=template_budgets,
        bus=dependencies.event_bus,
        on_charge=on_charge,
    )
