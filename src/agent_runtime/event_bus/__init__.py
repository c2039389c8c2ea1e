"""One place that hears everything: publish never waits, every subscriber has a bounded buffer of its own."""

from agent_runtime.event_bus.bus import Event, EventBus, Subscription

__all__ = ["Event", "EventBus", "Subscription"]
