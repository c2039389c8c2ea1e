"""Implement a broker on Kafka or compatible servers, through FastStream."""

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
from typing_extensions import override

from agent_runtime.errors import InputInvalid, StoreTimeout, StoreUnavailable
from agent_runtime.event_bus.brokers.broker import (
    MAX_BATCH,
    Broker,
    Deliveries,
    StartPosition,
    StoredEvent,
)
from agent_runtime.event_bus.brokers.kafka_group import KafkaGroupConsumer
from agent_runtime.event_bus.brokers.validation import validate_events, validate_group_name
from agent_runtime.event_bus.cloud_event import MAX_EVENT_BYTES, encode_event, read_event
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.secrets.redaction import SECRETS


class KafkaBroker(Broker):
    """Implement `Broker` on one topic; a stream's events have one key, and so one partition.

    For one event loop. Groups are Kafka's own: its consumers share the partitions. FastStream
    connects, sends and receives; offsets are committed by its underlying consumer, because its own
    acknowledgement commits everything fetched, handled or not. Retention is the server's, so `trim`
    removes nothing.

    Args:
        url: `kafka://HOST:PORT`, several separated by commas. `?partitions=8` applies to a topic
            that does not exist yet, `?idempotent=no` to a server without idempotent producers: then
            a lost reply may duplicate events.
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
        options = dict(parse_qsl(parts.query))
        self._servers = [server.strip() for server in parts.netloc.split(",")]
        self.topic = Topic(
            f"agent_runtime.{validate_group_name(name)}",
            num_partitions=int(options.get("partitions", "8")),
        )
        self.timeout_s = timeout_s
        self._idempotent = options.get("idempotent", "yes") != "no"
        self._faststream: Any = None
        self._connect_lock = asyncio.Lock()

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish events.

        All are passed to the producer, in order, before the first reply is awaited.
        """
        payload = [
            (event.stream.encode(), encode_event(event, self.seal))
            for event in validate_events(events)
        ]
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

    @override
    def consume(
        self, group: str, *, start: StartPosition = "earliest", prefetch: int = MAX_BATCH
    ) -> AbstractAsyncContextManager[Deliveries]:
        return KafkaGroupConsumer(self, validate_group_name(group), start, prefetch).deliveries()

    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        """Read events as they are fetched: partitions have no common order."""
        offsets = _parse_offsets(after)
        async with self.assigned_consumer() as (consumer, partitions):
            first_offsets = await consumer.beginning_offsets(partitions)
            next_offsets = {
                p.partition: max(offsets.get(p.partition, 0), first_offsets[p]) for p in partitions
            }
            for topic_partition in partitions:
                consumer.seek(topic_partition, next_offsets[topic_partition.partition])
            stored_events: list[StoredEvent] = []
            deadline = time.monotonic() + wait_s
            while len(stored_events) < limit and not (
                self._has_reached_end(consumer, next_offsets, deadline)
                and (stored_events or deadline < _now())
            ):
                for records in (
                    await consumer.getmany(timeout_ms=100, max_records=limit - len(stored_events))
                ).values():
                    for record in records:
                        next_offsets[record.partition] = record.offset + 1
                        stored_events.append(
                            StoredEvent(
                                _format_position(next_offsets),
                                read_event(record.value, _format_position(next_offsets), self.seal),
                            )
                        )
            return stored_events

    def _has_reached_end(
        self, consumer: Any, next_offsets: dict[int, int], deadline: float
    ) -> bool:
        # By the watermark of each fetch: not every compatible server counts the records of a batch
        # when it is queried for its offsets.
        if _now() > deadline + self.timeout_s:
            raise TimeoutError
        end_offsets = {
            number: consumer.highwater(TopicPartition(self.topic.name, number))
            for number in next_offsets
        }
        return all(
            end_offsets[number] is not None and next_offsets[number] >= end_offsets[number]
            for number in next_offsets
        )

    @override
    async def lag(self, group: str) -> int:
        async with self.assigned_consumer(group) as (consumer, partitions):
            first_offsets = await consumer.beginning_offsets(partitions)
            committed_offsets = {
                p: max(await consumer.committed(p) or 0, first_offsets[p]) for p in partitions
            }
            end_offsets = await self._end_offsets(consumer, committed_offsets)
            return sum(end_offsets[p] - committed_offsets[p] for p in partitions)

    async def trim(self, keep: int) -> int:
        """Remove nothing: the server has its own retention."""
        return 0

    async def delete_group(self, group: str) -> None:
        """Reset a group to the oldest event; the server deletes its name by itself."""
        await KafkaGroupConsumer(self, validate_group_name(group), "earliest", 1).rewind()

    async def start_at_end(self, group: str) -> None:
        """Start a new group at the next event."""
        async with self.assigned_consumer(group) as (consumer, partitions):
            uncommitted_offsets = {p: 0 for p in partitions if await consumer.committed(p) is None}
            if uncommitted_offsets:
                await consumer.commit(await self._end_offsets(consumer, uncommitted_offsets))

    async def _end_offsets(
        self, consumer: Any, start_offsets: dict[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        for partition, offset in start_offsets.items():
            consumer.seek(partition, offset)
        started_at = _now()
        while any(consumer.highwater(partition) is None for partition in start_offsets):
            if _now() > started_at + self.timeout_s:
                raise TimeoutError
            await consumer.getmany(timeout_ms=100, max_records=1)
        return {partition: consumer.highwater(partition) for partition in start_offsets}

    def group_id(self, group: str) -> str:
        """Return the group's name on the server, which has one namespace for all topics."""
        return f"{self.topic.name}.{group}"

    @override
    async def aclose(self) -> None:
        faststream_broker = self._faststream
        self._faststream = None
        if faststream_broker is not None:
            await faststream_broker.stop()

    # -- the server

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Yield FastStream's broker, connected, with the topic created.

        Its failures are StoreError.
        """
        try:
            if self._faststream is None:
                async with asyncio.timeout(self.timeout_s), self._connect_lock:
                    if self._faststream is None:
                        await self._open()
            yield self._faststream
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
            (create_result,) = await broker.config.admin.create_topics([self.topic])
            if create_result.error is not None and not isinstance(create_result.error, KafkaError):
                raise create_result.error
        except BaseException:
            await broker.stop()
            raise
        self._faststream = broker

    @asynccontextmanager
    async def assigned_consumer(
        self, group: str | None = None
    ) -> AsyncIterator[tuple[Any, list[TopicPartition]]]:
        """Yield a consumer of all partitions outside of group sharing, and those partitions."""
        async with self.client() as broker:
            partition_numbers = sorted(
                await broker.config.producer._producer.producer.partitions_for(self.topic.name)
            )
            ack_options = (
                {"ack_policy": AckPolicy.MANUAL} if group else {}
            )  # it would commit its reads otherwise
            subscriber = broker.subscriber(
                partitions=[
                    Assigned(self.topic.name, number, declare=False) for number in partition_numbers
                ],
                group_id=self.group_id(group) if group else None,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=100,
                persistent=False,
                **ack_options,
            )
            try:
                await subscriber.start()
                yield (
                    subscriber.consumer,
                    [TopicPartition(self.topic.name, number) for number in partition_numbers],
                )
            finally:
                await subscriber.stop()


def _now() -> float:
    return time.monotonic()


def _format_position(next_offsets: dict[int, int]) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(next_offsets.items()))


def _parse_offsets(position: str | None) -> dict[int, int]:
    if position is None:
        return {}
    try:
        pairs = [part.split(":") for part in position.split(",")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
    except ValueError:
        offsets = {-1: -1}
    if len(position) > 100_000 or min(offsets) < 0 or min(offsets.values()) < 0:
        raise InputInvalid(f"not a position of this log: {position[:40]!r}", "after")
    return offsets
