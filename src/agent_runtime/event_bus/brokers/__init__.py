"""Where events last: one interface over memory, SQLite, Redis Streams, NATS JetStream and Kafka."""

from agent_runtime.event_bus.brokers.broker import Broker, Delivery, StoredEvent
from agent_runtime.event_bus.brokers.event_log import EventLog, open_event_log
from agent_runtime.event_bus.brokers.memory import MemoryBroker
from agent_runtime.event_bus.brokers.opening import open_broker
from agent_runtime.event_bus.brokers.sqlite import EventQuery, SqliteBroker

__all__ = [
    "Broker",
    "Delivery",
    "EventLog",
    "EventQuery",
    "MemoryBroker",
    "SqliteBroker",
    "StoredEvent",
    "open_broker",
    "open_event_log",
]
