"""A broker on Kafka, or what speaks its protocol, through FastStream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker as FastStreamKafka
from faststream.kafka import TopicPartition as Assigned
from faststream.kafka.schemas.topic import Topic

from agent_runtime.errors import InputInvalid, StoreTimeout, StoreUnavailable
from agent_runtime.event_bus.brokers.broker import MAX_BATCH, Deliveries, Start, Stored
from agent_runtime.event_bus.brokers.kafka_group import KafkaGroup
from agent_runtime.event_bus.brokers.validation import checked_group, stamped
from agent_runtime.event_bus.cloud_event import MAX_EVENT_BYTES, encoded, read_event
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.secrets.redaction import SECRETS


class KafkaBroker:
    """A `Broker` on one topic; a stream's events have one key, and so one partition.

    For one event loop.

    Groups are Kafka's own: its consumers share the partitions. FastStream connects, sends and hands
    messages over; offsets are committed by the consumer that it holds, because its own
    acknowledgement commits all that was fetched, handled or not. The server keeps events for as
    long as it is told to, so `trim` removes nothing.

    Args:
        url: `kafka://HOST:PORT`, several separated by commas. `?partitions=8` is for a topic that
            is not there yet, `?idempotent=no` for a server without idempotent producers: then a
            lost answer may double events.
        name: of the log: the topic is `agent_runtime.{name}`.
        timeout_s: for connecting and for each answer.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "main",
        timeout_s: float = 10.0,
        seal_key: bytes | None = None,
    ) -> None:
        SECRETS.add_address(url)
        self.seal = None if seal_key is None else EventSeal(seal_key, name)
        parts = urlsplit(url)
        said = dict(parse_qsl(parts.query))
        self._servers = [each.strip() for each in parts.netloc.split(",")]
        self.topic = Topic(
            f"agent_runtime.{checked_group(name)}", num_partitions=int(said.get("partitions", "8"))
        )
        self.timeout_s = timeout_s
        self._idempotent = said.get("idempotent", "yes") != "no"
        self._connected: Any = None
        self._opening = asyncio.Lock()

    async def publish(self, events: Sequence[Event]) -> None:
        """See `Broker.publish`.

        All are handed to the producer, in order, before the first answer is waited for.
        """
        payload = [(event.stream.encode(), encoded(event, self.seal)) for event in stamped(events)]
        async with self.client() as broker, asyncio.timeout(self.timeout_s):
            try:
                sent = [
                    await broker.publish(data, self.topic.name, key=key or None, no_confirm=True)
                    for key, data in payload
                ]
                await asyncio.gather(*sent)
            except MessageSizeTooLargeError as error:
                raise InputInvalid(
                    f"an event is larger than this server takes: {error}", "data"
                ) from error

    def consume(
        self, group: str, *, start: Start = "earliest", prefetch: int = MAX_BATCH
    ) -> AbstractAsyncContextManager[Deliveries]:
        """See `Broker.consume`."""
        return KafkaGroup(self, checked_group(group), start, prefetch).deliveries()

    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[Stored]:
        """See `Broker.read`. Partitions have no common order.

        Their events come as they are fetched.
        """
        offsets = _offsets(after)
        async with self.assigned() as (consumer, partitions):
            begins = await consumer.beginning_offsets(partitions)
            at = {p.partition: max(offsets.get(p.partition, 0), begins[p]) for p in partitions}
            for each in partitions:
                consumer.seek(each, at[each.partition])
            found: list[Stored] = []
            until_s = time.monotonic() + wait_s
            while len(found) < limit and not (
                self._at_the_end(consumer, at, until_s) and (found or until_s < _now())
            ):
                for records in (
                    await consumer.getmany(timeout_ms=100, max_records=limit - len(found))
                ).values():
                    for record in records:
                        at[record.partition] = record.offset + 1
                        found.append(
                            Stored(
                                _position(at), read_event(record.value, _position(at), self.seal)
                            )
                        )
            return found

    def _at_the_end(self, consumer: Any, at: dict[int, int], until_s: float) -> bool:
        # By the watermark that comes with each fetch: not every server that speaks the protocol
        # counts the records of a batch when it is asked for its offsets.
        if _now() > until_s + self.timeout_s:
            raise TimeoutError
        ends = {
            number: consumer.highwater(TopicPartition(self.topic.name, number)) for number in at
        }
        return all(ends[number] is not None and at[number] >= ends[number] for number in at)

    async def lag(self, group: str) -> int:
        """See `Broker.lag`."""
        async with self.assigned(group) as (consumer, partitions):
            begins = await consumer.beginning_offsets(partitions)
            done = {p: max(await consumer.committed(p) or 0, begins[p]) for p in partitions}
            ends = await self._ends(consumer, done)
            return sum(ends[p] - done[p] for p in partitions)

    async def trim(self, keep: int) -> int:
        """See `Broker.trim`: the server's own retention does that."""
        return 0

    async def delete_group(self, group: str) -> None:
        """See `Broker.delete_group`: it begins anew; the server forgets its name by itself."""
        await KafkaGroup(self, checked_group(group), "earliest", 1).rewind()

    async def begin_at_the_end(self, group: str) -> None:
        """Make a group that is new begin with what comes next."""
        async with self.assigned(group) as (consumer, partitions):
            new = {p: 0 for p in partitions if await consumer.committed(p) is None}
            if new:
                await consumer.commit(await self._ends(consumer, new))

    async def _ends(
        self, consumer: Any, at: dict[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        for partition, offset in at.items():
            consumer.seek(partition, offset)
        began_s = _now()
        while any(consumer.highwater(partition) is None for partition in at):
            if _now() > began_s + self.timeout_s:
                raise TimeoutError
            await consumer.getmany(timeout_ms=100, max_records=1)
        return {partition: consumer.highwater(partition) for partition in at}

    def group_id(self, group: str) -> str:
        """The group's name on the server, where it is one for all topics."""
        return f"{self.topic.name}.{group}"

    async def aclose(self) -> None:
        """See `Broker.aclose`."""
        connected = self._connected
        self._connected = None
        if connected is not None:
            await connected.stop()

    # -- the server
    # ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """FastStream's broker, connected, with the topic there; its failures as StoreError."""
        try:
            if self._connected is None:
                async with asyncio.timeout(self.timeout_s), self._opening:
                    if self._connected is None:
                        await self._open()
            yield self._connected
        except TimeoutError as error:
            raise StoreTimeout(f"Kafka did not answer within {self.timeout_s} s") from error
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(
                f"Kafka cannot be used ({type(error).__name__}: {error})"
            ) from error

    async def _open(self) -> None:
        broker = FastStreamKafka(
            self._servers,
            enable_idempotence=self._idempotent,
            acks="all",
            linger_ms=0,
            max_request_size=MAX_EVENT_BYTES,
            request_timeout_ms=int(self.timeout_s * 1000),
            logger=None,
        )
        try:
            await broker.start()
            (made,) = await broker.config.admin.create_topics([self.topic])
            if made.error is not None and not isinstance(made.error, KafkaError):
                raise made.error
        except BaseException:
            await broker.stop()
            raise
        self._connected = broker

    @asynccontextmanager
    async def assigned(
        self, group: str | None = None
    ) -> AsyncIterator[tuple[Any, list[TopicPartition]]]:
        """A consumer of all partitions that belongs to no group's sharing, and those partitions."""
        async with self.client() as broker:
            numbers = sorted(
                await broker.config.producer._producer.producer.partitions_for(self.topic.name)
            )
            by_hand = (
                {"ack_policy": AckPolicy.MANUAL} if group else {}
            )  # else it would commit what it looked at
            subscriber = broker.subscriber(
                partitions=[Assigned(self.topic.name, number, declare=False) for number in numbers],
                group_id=self.group_id(group) if group else None,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=100,
                persistent=False,
                **by_hand,
            )
            try:
                await subscriber.start()
                yield (
                    subscriber.consumer,
                    [TopicPartition(self.topic.name, number) for number in numbers],
                )
            finally:
                await subscriber.stop()


def _now() -> float:
    return time.monotonic()


def _position(at: dict[int, int]) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(at.items()))


def _offsets(position: str | None) -> dict[int, int]:
    if position is None:
        return {}
    try:
        pairs = [part.split(":") for part in position.split(",")]
        found = {int(partition): int(offset) for partition, offset in pairs}
    except ValueError:
        found = {-1: -1}
    if len(position) > 100_000 or min(found) < 0 or min(found.values()) < 0:
        raise InputInvalid(f"not a position of this log: {position[:40]!r}", "after")
    return found
