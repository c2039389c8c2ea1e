"""Store events in memory, SQLite, Redis Streams, NATS JetStream or Kafka, and deliver them."""

from agent_runtime.event_bus.brokers.broker import Broker, Delivery, StoredEvent
from agent_runtime.event_bus.brokers.event_log import EventLog, open_event_log
from agent_runtime.event_bus.brokers.group_reader import LeasedBroker
from agent_runtime.event_bus.brokers.memory import MemoryBroker
from agent_runtime.event_bus.brokers.opening import open_broker
from agent_runtime.event_bus.brokers.sqlite import EventQuery, SqliteBroker
from agent_runtime.event_bus.brokers.validation import parse_offset, validate_events

__all__ = [
    "Broker",
    "Delivery",
    "EventLog",
    "EventQuery",
    "LeasedBroker",
    "MemoryBroker",
    "SqliteBroker",
    "StoredEvent",
    "open_broker",
    "open_event_log",
    "parse_offset",
    "validate_events",
]
