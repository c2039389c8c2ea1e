"""From an address to a broker."""

from __future__ import annotations

import importlib.util
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from agent_runtime.errors import ConfigurationError, MissingExtra
from agent_runtime.event_bus.brokers.broker import Broker
from agent_runtime.event_bus.brokers.memory import MemoryBroker
from agent_runtime.event_bus.brokers.sqlite import SqliteBroker

FORMS = "memory:, sqlite:FILE, redis://..., nats://... or kafka://..."
EXTRAS = {"nats": "nats", "kafka": "aiokafka"}


def open_broker(url: str, *, lease_s: float = 10.0) -> Broker:
    """The broker at `memory:`, `sqlite:FILE`, `redis://`, `nats://HOST:PORT` or `kafka://HOST:PORT,HOST:PORT`.

    `lease_s`: how long a group stays with a consumer that says nothing (Kafka's own groups: 6 s).
    `?name=NAME` chooses a log of its own there; a Redis address may say `prefix`, `durable=no` and `timeout_s` too.
    Raises ConfigurationError for another address, MissingExtra when its client is not installed, StoreUnavailable for a
    file that cannot be used; a server is reached at the first use.
    """
    if url == "memory:":
        return MemoryBroker(lease_s=lease_s)
    if url.startswith("sqlite:"):
        return SqliteBroker(url.removeprefix("sqlite:"), lease_s=lease_s)
    scheme = urlsplit(url).scheme
    address, name = _named(url)
    if scheme in ("redis", "rediss", "unix"):
        from agent_runtime.event_bus.brokers.redis import RedisBroker

        made = RedisBroker.from_url(address)
        made.use_log(name)
        made.lease_s = lease_s
        return made
    if scheme in EXTRAS:
        if importlib.util.find_spec("faststream") is None or importlib.util.find_spec(EXTRAS[scheme]) is None:
            raise MissingExtra(f"a broker at {scheme}://", f"langchain-agent-runtime[{scheme}]")
        if scheme == "nats":
            from agent_runtime.event_bus.brokers.nats import NatsBroker

            return NatsBroker(address, name=name, lease_s=lease_s)
        from agent_runtime.event_bus.brokers.kafka import KafkaBroker

        return KafkaBroker(address, name=name)
    raise ConfigurationError(f"a broker is at {FORMS}; not at '{url[:40]}'")


def _named(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    name = query.pop("name", "main")
    return urlunsplit(parts._replace(query=urlencode(query))), name
