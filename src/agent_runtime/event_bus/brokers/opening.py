"""Open the broker at an address."""

from __future__ import annotations

import importlib.util

from agent_runtime.errors import MissingExtra
from agent_runtime.event_bus.brokers.broker import Broker
from agent_runtime.event_bus.brokers.memory import MemoryBroker
from agent_runtime.event_bus.brokers.sqlite import SqliteBroker
from agent_runtime.event_bus.brokers.validation import validate_group_name
from agent_runtime.storage import StoreUrl
from agent_runtime.storage.store_plugins import open_plugin
from agent_runtime.storage.store_url import FORMS

EXTRAS = {"nats": "nats", "kafka": "aiokafka"}


def open_broker(url: str, *, lease_s: float = 10.0, seal_key: bytes | None = None) -> Broker:
    """Open the broker at an address (memory, SQLite, Redis, NATS, Kafka, or of a package).

    `lease_s`: how long a silent consumer keeps a group (Kafka's own groups: 6 s). `seal_key`: 32 to
    64 secret bytes of all publishers and readers; an event without that seal is then a
    `bus.unreadable`, which triggers nothing. `?name=NAME` selects a separate log on a server; a
    Kafka address may have `partitions` and `idempotent`. Raises ConfigurationError for another
    address, MissingExtra when its client is not installed, StoreUnavailable for an unusable file; a
    server is reached at the first use.
    """
    broker: Broker | None = open_plugin("events", url, Broker, lease_s=lease_s, seal_key=seal_key)
    if broker is not None:
        return broker
    address = StoreUrl.parse(url, "the event log", tuple(FORMS), has_logs=True)
    if address.kind == "memory":
        return MemoryBroker(lease_s=lease_s)
    if address.kind == "sqlite":
        return SqliteBroker(address.target, lease_s=lease_s, seal_key=seal_key)
    name = validate_group_name(address.log_name)
    if address.kind == "redis":
        from agent_runtime.event_bus.brokers.redis import RedisBroker

        return RedisBroker(address, name=name, lease_s=lease_s, seal_key=seal_key)
    if (
        importlib.util.find_spec("faststream") is None
        or importlib.util.find_spec(EXTRAS[address.kind]) is None
    ):
        raise MissingExtra(
            f"a broker at {address.kind}://", f"langchain-agent-runtime[{address.kind}]"
        )
    if address.kind == "nats":
        from agent_runtime.event_bus.brokers.nats import NatsBroker

        return NatsBroker(address.target, name=name, lease_s=lease_s, seal_key=seal_key)
    from agent_runtime.event_bus.brokers.kafka import KafkaBroker

    return KafkaBroker(address.target, name=name, seal_key=seal_key)
