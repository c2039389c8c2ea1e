"""TriggerHandler: starts agents when events match, within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.auth.identities import TRIGGER_PREFIX
from agent_runtime.errors import AgentRuntimeError, BudgetExceeded, ConfigurationError, RateLimited
from agent_runtime.errors.user_code import error_text
from agent_runtime.event_bus import Event
from agent_runtime.event_bus.brokers import Broker, MemoryBroker
from agent_runtime.event_bus.brokers.broker import MAX_BATCH
from agent_runtime.event_bus.consumer import EventConsumer
from agent_runtime.event_bus.event import Cause, current_cause
from agent_runtime.event_bus.group import Filter
from agent_runtime.event_bus.relay import Relay
from agent_runtime.sessions.session import TRIGGER_SESSION_PREFIX
from agent_runtime.triggers.expressions import event_facts, is_condition_met, render_template
from agent_runtime.triggers.rules import TriggerRule, session_clash
from agent_runtime.triggers.schedule import Schedules
from agent_runtime.triggers.webhook import WebhookApp
from agent_runtime.types import AgentContext, Principal

if TYPE_CHECKING:
    from agent_runtime.factory import AgentFactory
    from agent_runtime.orchestration.executor import AgentExecutor

LOG = logging.getLogger("agent_runtime.triggers")


class TriggerHandler:
    """Start the agents of rules when events of the factory's bus or of a broker match.

    `async with TriggerHandler(factory, load_triggers("triggers.yaml")): ...`

    A rule runs its agent as the principal `trigger:NAME` of the event's tenant, through the agent's
    own pipeline. Its session is `trigger-NAME-` and the rule's suffix: an id that no other caller
    may take. Its rate and budget are layers of that pipeline, for each tenant. The event is the
    cause of everything it starts, one deeper; an event at a rule's `max_depth` starts nothing,
    reported by `trigger.stopped`. An event is acknowledged when its runs have ended: after a crash
    they are started again. A failed run is a `trigger.failed` and a dead letter, and is not started
    again.

    Args:
        factory: builds the agents; schedules and webhooks are published on its bus.
        rules: from `load_triggers`.
        broker: the source of events; this process's bus by default.
        name: of the consumer group: of the handlers of one name one reads, the others stand by.
        relay: relay the bus's events to `broker`; False when the application has a `Relay` to it.
        consumer: further settings of the `EventConsumer` (`dead_letters`, `seen_ids`).

    Raises ConfigurationError for an agent that cannot be built.
    """

    def __init__(
        self,
        factory: AgentFactory,
        rules: Sequence[TriggerRule],
        *,
        broker: Broker | None = None,
        name: str = "triggers",
        relay: bool = True,
        **consumer: Any,
    ) -> None:
        if (clash := session_clash(rules)) is not None:
            raise ConfigurationError(clash)
        self.rules = [rule for rule in rules if rule.enabled]
        self._factory = factory
        self._bus = factory.event_bus
        self._name = name
        self._owns_broker = broker is None
        self._broker = broker or MemoryBroker()
        self._needs_relay = relay or self._owns_broker
        self._consumer_settings = consumer
        self._agents = {rule.name: create_rule_agent(factory, rule) for rule in self.rules}
        self._semaphores = {rule.name: asyncio.Semaphore(rule.concurrency) for rule in self.rules}
        self.consumer: EventConsumer | None = None
        self.webhooks = WebhookApp(self._bus, self.rules)
        """An ASGI application for the rules with a webhook."""
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        patterns = tuple(dict.fromkeys(pattern for rule in self.rules for pattern in rule.types))
        if self._needs_relay:
            relay = await self._exit_stack.enter_async_context(
                Relay(self._bus, self._broker, patterns)
            )
            self.webhooks.flush = relay.flush
        start = (
            "earliest" if self._owns_broker else "latest"
        )  # earlier events of a shared log start nothing
        # Each rule limits its own concurrency: a slow one must not hold back the others.
        settings = {
            "retries": 0,
            "start": start,
            "concurrency": MAX_BATCH,
            **self._consumer_settings,
        }
        settings.setdefault(
            "check_sequence", not self._needs_relay
        )  # our own relay sends the rules' types only
        self.consumer = EventConsumer(
            self._broker, self._name, self.handle, patterns=patterns, bus=self._bus, **settings
        )
        await self._exit_stack.enter_async_context(self.consumer)
        await self._exit_stack.enter_async_context(Schedules(self._bus, self.rules))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exit_stack.aclose()

    async def handle(self, event: Event) -> None:
        """Start the agents of an event and wait for all; raises the first failure afterwards."""
        matching = [rule for rule in self.rules if self._matches(rule, event)]
        outcomes = await asyncio.gather(
            *(self._start_agent(rule, event) for rule in matching), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _matches(self, rule: TriggerRule, event: Event) -> bool:
        if event.type.startswith("trigger.") or not Filter(rule.types).matches_type(event.type):
            return False
        data = event.data if isinstance(event.data, dict) else {}
        hook = None if rule.webhook is None else rule.webhook.path
        criteria = (
            (None if rule.schedule is None else rule.name, data.get("schedule")),
            (hook, data.get("hook")),
            (rule.agent, event.agent),
            (rule.source, event.source),
            (rule.tenant, event.tenant),
        )
        if any(required is not None and required != actual for required, actual in criteria):
            return False
        try:
            return is_condition_met(rule.when, event_facts(event))
        except Exception as error:  # noqa: BLE001 - a rule that cannot be judged keeps no other from its work
            self._publish(
                "trigger.failed", rule, event, error="condition", message=error_text(error)
            )
            return False

    async def _start_agent(self, rule: TriggerRule, event: Event) -> None:
        if event.depth >= rule.max_depth:
            self._publish("trigger.stopped", rule, event, reason="depth", max_depth=rule.max_depth)
            LOG.warning(
                "the trigger %s stops at depth %d: its events lead to themselves",
                rule.name,
                event.depth,
            )
            return
        token = current_cause.set(Cause(event.id, event.depth + 1))
        try:
            async with self._semaphores[rule.name]:
                self._publish("trigger.fired", rule, event, agent=rule.start)
                await self._run_agent(rule, event)
        except RateLimited:
            self._publish("trigger.stopped", rule, event, reason="rate")
        except BudgetExceeded:
            self._publish("trigger.stopped", rule, event, reason="budget")
        except Exception as error:
            code = error.code if isinstance(error, AgentRuntimeError) else type(error).__name__
            self._publish("trigger.failed", rule, event, error=code)
            raise
        finally:
            current_cause.reset(token)

    async def _run_agent(self, rule: TriggerRule, event: Event) -> None:
        facts = event_facts(event)
        agent = self._agents[rule.name]
        scopes = frozenset({f"run:{agent.name}", *rule.scopes})
        caller = Principal(f"{TRIGGER_PREFIX}{rule.name}", event.tenant or "default", scopes)
        session_id = (
            None
            if rule.session is None
            else f"{TRIGGER_SESSION_PREFIX}{rule.name}-{render_template(rule.session, facts)}"
        )
        context = AgentContext(
            render_template(rule.input, facts),
            session_id=session_id,
            principal=caller,
            metadata={"trigger": rule.name},
        )
        await agent.execute(context)

    def _publish(self, event_type: str, rule: TriggerRule, event: Event, **data: Any) -> None:
        event_data = {"rule": rule.name, "event_id": event.id, "depth": event.depth, **data}
        self._bus.publish(
            Event(
                event_type,
                event_data,
                session_id=event.session_id,
                run_id=event.run_id,
                tenant=event.tenant,
                cause=event.id,
                depth=event.depth,
            )
        )


def create_rule_agent(factory: AgentFactory, rule: TriggerRule) -> AgentExecutor:
    """Return the rule's agent with the rule's own limits behind those of its template."""
    runtime = factory.get_template(rule.start).spec.runtime
    overrides: dict[str, Any] = {}
    if rule.rate is not None:  # the same limit twice would count each call twice
        overrides["rate_limits"] = list(
            dict.fromkeys([*runtime.rate_limits, f"{rule.rate} per user"])
        )
    if rule.budget is not None:
        rule_budget = {"scope": "user", "only": None, **rule.budget.model_dump(exclude_none=True)}
        template_budgets = [
            budget.model_dump(exclude_unset=True) for budget in runtime.cost.budgets
        ]
        overrides["cost"] = {"budgets": [*template_budgets, rule_budget]}
    settings = {"runtime": overrides} if overrides else {}
    return factory.create_from_template(rule.start, rule.inputs or None, **settings)
