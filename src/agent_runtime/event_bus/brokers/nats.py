"""A broker on NATS JetStream, through FastStream's connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from faststream.nats import NatsBroker as FastStreamNats
from nats import errors as nats_errors
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig
from typing_extensions import override

from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors import ConfigurationError, InputInvalid, StoreTimeout, StoreUnavailable
from agent_runtime.event_bus.brokers.broker import StartPosition, StoredEvent
from agent_runtime.event_bus.brokers.group_reader import LeasedBroker
from agent_runtime.event_bus.brokers.validation import (
    parse_offset,
    validate_events,
    validate_group_name,
)
from agent_runtime.event_bus.cloud_event import encode_event, read_event
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.secrets.redaction import SECRETS

DUPLICATE_WINDOW_S = 600
"""How long JetStream knows an event's id, and takes it only once."""


class _GroupEntry:
    """Cache a group's entry in the bucket."""

    __slots__ = ("changed_at", "lock", "revision", "value")

    def __init__(self) -> None:
        self.revision = 0
        self.changed_at = 0.0
        self.value = dict[str, Any]()
        self.lock = asyncio.Lock()


class NatsBroker(LeasedBroker):
    """Implement `Broker` on one JetStream stream, with a key-value bucket for its groups.

    For one event loop. FastStream connects. Its underlying client sends and fetches: FastStream's
    own subscribers start a task for each message, which keeps no order.

    Args:
        url: `nats://HOST:PORT`, several separated by commas.
        name: of the log: the stream is `agent_runtime_{name}`.
        lease_s: how long a silent consumer keeps a group.
        timeout_s: for connecting and for each answer.
        seal_key: 32 to 64 secret bytes; then an event without this key's seal is unreadable.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "main",
        lease_s: float = 10.0,
        timeout_s: float = 5.0,
        seal_key: bytes | None = None,
    ) -> None:
        SECRETS.add_address(url)
        self.lease_s = lease_s
        self._timeout_s = timeout_s
        self._seal = None if seal_key is None else EventSeal(seal_key, name)
        self._stream = f"agent_runtime_{validate_group_name(name)}"
        self._subject = f"{self._stream}.events"
        self._servers = [server.strip() for server in url.split(",")]
        self._broker: FastStreamNats | None = None
        self._js: Any = None
        self._bucket: Any = None
        self._connect_lock = asyncio.Lock()
        self._groups: dict[str, _GroupEntry] = {}
        self._pull_subscriptions: dict[
            str, tuple[Any, int]
        ] = {}  # a reader's subscription and its position

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish events; all are sent before the first acknowledgement is awaited."""
        payload = [(event.id, encode_event(event, self._seal)) for event in validate_events(events)]
        async with self._client() as js:
            limit = js._nc.max_payload
            if oversized := [len(data) for _, data in payload if len(data) + 1024 > limit]:
                raise InputInvalid(
                    f"an event of {oversized[0]} bytes; this server takes {limit}", "data"
                )
            sent = [
                await js.publish_async(
                    self._subject,
                    data,
                    stream=self._stream,
                    headers={"Nats-Msg-Id": _message_id_header(name)},
                )
                for name, data in payload
            ]
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*sent)

    @override
    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        after_sequence = 0 if after is None else parse_offset(after)
        async with self._client(wait_s) as js:
            subscription = await self._create_pull_subscription(js, after_sequence)
            try:
                return await self._fetch_stored(js, subscription, limit, wait_s)
            finally:
                await _delete_subscription(js, self._stream, subscription)

    @override
    async def lag(self, group: str) -> int:
        async with self._client() as js:
            state = (await js.stream_info(self._stream)).state
            committed_offset = (await self._refresh_entry(group)).value.get("floor", 0)
            return int(state.last_seq) - max(int(committed_offset), int(state.first_seq) - 1)

    @override
    async def trim(self, keep: int) -> int:
        async with self._client() as js:
            committed_offsets = [
                (await self._refresh_entry(name)).value.get("floor", 0)
                for name in await self._group_names()
            ]
            state = (await js.stream_info(self._stream)).state
            up_to = min([int(state.last_seq) - max(keep, 0), *committed_offsets])
            if up_to < state.first_seq:
                return 0
            await js.purge_stream(self._stream, seq=up_to + 1)
            return int(state.messages) - int((await js.stream_info(self._stream)).state.messages)

    @override
    async def delete_group(self, group: str) -> None:
        async with self._client():
            with suppress(js_errors.NotFoundError):
                await self._bucket.purge(group)
            self._groups.pop(group, None)

    @override
    async def aclose(self) -> None:
        self._js = None
        broker = self._broker
        self._broker = None
        if broker is not None and broker.config.connection_state:
            await (
                broker.connection.close()
            )  # FastStream's own method waits for messages that never come

    # -- GroupLog

    async def claim(self, group: str, owner: str, start: StartPosition, lease_s: float) -> bool:
        """Claim the group; an entry unchanged for the length of the lease has lost its owner."""
        group_entry = self._groups.setdefault(group, _GroupEntry())
        async with self._client() as js, group_entry.lock:
            await self._refresh_entry(group)
            if not group_entry.revision:
                state = (await js.stream_info(self._stream)).state
                committed_offset = (
                    int(state.last_seq) if start == "latest" else max(0, int(state.first_seq) - 1)
                )
                return await self._compare_and_set(
                    group, group_entry, {"owner": owner, "floor": committed_offset}
                )
            if (
                group_entry.value["owner"] not in ("", owner)
                and time.monotonic() - group_entry.changed_at < lease_s
            ):
                return False
            return await self._compare_and_set(
                group, group_entry, {**group_entry.value, "owner": owner}
            )

    @override
    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[StoredEvent]:
        async with self._client() as js:
            group_record = (await self._refresh_entry(group)).value
            if group_record.get("owner") != owner:  # another consumer has the lease
                return []
            after_sequence = group_record.get("floor", 0) if after is None else parse_offset(after)
            subscription, pull_sequence = self._pull_subscriptions.get(owner, (None, -1))
            self._pull_subscriptions.pop(owner, None)  # restart after a failure in between
            if subscription is not None and pull_sequence != after_sequence:
                await _delete_subscription(js, self._stream, subscription)
            if subscription is None or pull_sequence != after_sequence:
                subscription = await self._create_pull_subscription(js, after_sequence)
            stored_events = await self._fetch_stored(js, subscription, limit, wait_s)
            self._pull_subscriptions[owner] = (
                subscription,
                int(stored_events[-1].position) if stored_events else after_sequence,
            )
            return stored_events

    @override
    async def commit(
        self, group: str, owner: str, acked: list[str], committed_offset: str | None
    ) -> bool:
        group_entry = self._groups.setdefault(group, _GroupEntry())
        async with self._client(), group_entry.lock:
            if group_entry.value.get("owner") != owner:
                return False
            if committed_offset is None or int(committed_offset) <= group_entry.value["floor"]:
                return True
            return await self._compare_and_set(
                group, group_entry, {"owner": owner, "floor": int(committed_offset)}
            )

    @override
    async def release(self, group: str, owner: str) -> None:
        subscription, _ = self._pull_subscriptions.pop(owner, (None, 0))
        group_entry = self._groups.setdefault(group, _GroupEntry())
        async with self._client() as js, group_entry.lock:
            if subscription is not None:
                await _delete_subscription(js, self._stream, subscription)
            if group_entry.value.get("owner") == owner:
                await self._compare_and_set(group, group_entry, {**group_entry.value, "owner": ""})

    # -- the server

    @asynccontextmanager
    async def _client(self, wait_s: float = 0.0) -> AsyncIterator[Any]:
        cancel_watch = CancelWatch()
        try:
            async with self._connection(wait_s) as js:
                yield js
        finally:
            cancel_watch.check()  # the client waits by `asyncio.wait_for`

    @asynccontextmanager
    async def _connection(self, wait_s: float) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(self._timeout_s * 4 + wait_s):
                if self._js is None:
                    async with self._connect_lock:
                        if self._js is None:
                            await self._open()
                yield self._js
        except (TimeoutError, nats_errors.TimeoutError) as error:
            await self._drop_connection()
            raise StoreTimeout(f"NATS did not answer in time ({error})") from error
        except (nats_errors.Error, js_errors.Error, OSError) as error:
            await self._drop_connection()
            raise StoreUnavailable(
                f"NATS cannot be used ({type(error).__name__}: {error})"
            ) from error

    async def _drop_connection(self) -> None:
        self._pull_subscriptions.clear()
        await self.aclose()

    async def _open(self) -> None:
        # Reconnecting is ours: requests on a lost connection are lost with it.
        self._broker = broker = FastStreamNats(
            self._servers,
            connect_timeout=max(1, int(self._timeout_s)),
            allow_reconnect=False,
            logger=None,
        )
        await broker.connect()
        js = broker.connection.jetstream(timeout=self._timeout_s)
        stream_config = StreamConfig(
            name=self._stream,
            subjects=[self._subject],
            storage=StorageType.FILE,
            duplicate_window=DUPLICATE_WINDOW_S,
        )
        try:
            await js.add_stream(stream_config)
        except js_errors.BadRequestError as error:
            if error.err_code != 10058:  # it exists with its operator's settings, which apply
                raise ConfigurationError(
                    f"the stream '{self._stream}' cannot be made: {error.description}"
                ) from error
        self._bucket = await broker.key_value(f"{self._stream}_groups")
        self._js = js

    async def _create_pull_subscription(self, js: Any, after_sequence: int) -> Any:
        return await js.pull_subscribe(
            self._subject,
            stream=self._stream,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after_sequence + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=30.0,
                mem_storage=True,
            ),
        )

    async def _fetch_stored(
        self, js: Any, subscription: Any, limit: int, wait_s: float
    ) -> list[StoredEvent]:
        try:
            messages = await subscription.fetch(limit, timeout=max(wait_s, 0.25))
        except (TimeoutError, nats_errors.TimeoutError):
            if not js._nc.is_connected:
                raise
            return []
        positioned_data = [(str(m.metadata.sequence.stream), m.data) for m in messages]
        return [
            StoredEvent(position, read_event(data, position, self._seal))
            for position, data in positioned_data
        ]

    async def _group_names(self) -> list[str]:
        try:
            names: list[str] = await self._bucket.keys()
        except js_errors.NoKeysError:
            return []
        return names

    async def _refresh_entry(self, group: str) -> _GroupEntry:
        """Read the bucket's entry, with the time since which it is unchanged."""
        group_entry = self._groups.setdefault(group, _GroupEntry())
        try:
            bucket_entry = await self._bucket.get(group)
        except js_errors.KeyNotFoundError:
            group_entry.revision = 0
            group_entry.value = {}
            return group_entry
        if bucket_entry.revision != group_entry.revision:
            group_entry.revision = bucket_entry.revision
            group_entry.changed_at = time.monotonic()
            group_entry.value = json.loads(bucket_entry.value)
        return group_entry

    async def _compare_and_set(
        self, group: str, group_entry: _GroupEntry, value: dict[str, Any]
    ) -> bool:
        """Write an entry unless it has changed meanwhile."""
        content = json.dumps({**value, "at": time.time_ns()}).encode()
        try:
            if group_entry.revision:
                revision = await self._bucket.update(group, content, last=group_entry.revision)
            else:
                revision = await self._bucket.create(group, content)
        except js_errors.KeyWrongLastSequenceError:
            await self._refresh_entry(group)
            return False
        group_entry.revision = revision
        group_entry.changed_at = time.monotonic()
        group_entry.value = value
        return True


def _message_id_header(name: str) -> str:
    """Return an id for a header: in ASCII, on one line."""
    return name if name.isascii() and name.isprintable() else name.encode("utf-8", "replace").hex()


async def _delete_subscription(js: Any, stream: str, subscription: Any) -> None:
    with suppress(nats_errors.Error, js_errors.Error, TimeoutError):
        await subscription.unsubscribe()
        await js.delete_consumer(stream, subscription._consumer)
