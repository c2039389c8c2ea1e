"""Publish events in one ordered log, and deliver them to subscribers."""

from agent_runtime.event_bus.bus import EventBus
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_types import EVENT_TYPES, EventType
from agent_runtime.event_bus.group import Filter
from agent_runtime.event_bus.subscription import Subscription

__all__ = ["EVENT_TYPES", "Event", "EventBus", "EventType", "Filter", "Subscription"]
