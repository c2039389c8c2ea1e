"""Consume as a member of a Kafka group, acknowledging only handled events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faststream import AckPolicy

from agent_runtime.errors import StoreError, StoreUnavailable
from agent_runtime.errors.backoff import Backoff
from agent_runtime.event_bus.brokers.broker import (
    Deliveries,
    Delivery,
    DeliveryQueue,
    StartPosition,
    cancel_and_wait,
)
from agent_runtime.event_bus.cloud_event import read_event
from agent_runtime.event_bus.event_seal import EventSeal

LOG = logging.getLogger("agent_runtime.events")
_BACKOFF = Backoff(0.1, 2.0)
SESSION_MS = 6000
"""Milliseconds until a silent consumer loses its partitions, the least that servers allow by
default.
"""


class KafkaTopic(Protocol):
    """The topic of a group's events, and the connection to its servers."""

    topic: Any
    timeout_s: float
    seal: EventSeal | None

    def client(self) -> AbstractAsyncContextManager[Any]:
        """Return FastStream's broker, connected; its failures are StoreError."""

    def group_id(self, group: str) -> str:
        """Return the group's name on the server."""

    async def start_at_end(self, group: str) -> None:
        """Start a new group at the next event."""


class KafkaGroupConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Fetches in order, and commits for each partition how far everything is acknowledged.

    A partition that goes to another consumer takes its open events with it: their acknowledgement
    here changes nothing.
    """

    def __init__(self, broker: KafkaTopic, group: str, start: StartPosition, prefetch: int) -> None:
        self._broker = broker
        self._group = group
        self._start = start
        self._prefetch = prefetch
        self._ready = DeliveryQueue()
        self._acked_by_offset: dict[TopicPartition, dict[int, bool]] = {}
        self._commit_offsets: dict[TopicPartition, int] = {}
        self._changed = asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self._consumer: Any = None
        self._epoch = 0  # one more at each change of the partitions
        self._is_start_applied = False

    @asynccontextmanager
    async def deliveries(self) -> AsyncIterator[Deliveries]:
        """Yield the deliveries of this consumer, for the duration of the context."""
        with suppress(StoreError):
            await self._apply_start_position()
        task = asyncio.create_task(self._run(), name=f"agent_runtime events {self._group}")
        self._ready.attach_reader(task)
        try:
            yield self._ready
        finally:
            await cancel_and_wait(task)

    async def _run(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await self._consume()
            except (StoreError, KafkaError, OSError) as error:
                LOG.warning("the group %s cannot be read, and is retried: %s", self._group, error)
            self._drop_partitions(list(self._acked_by_offset))
            # A connection that lasted had recovered from the failures before it.
            failures = 1 if time.monotonic() - started > _BACKOFF.max_s else failures + 1
            await asyncio.sleep(_BACKOFF.pause_s(failures))

    async def _apply_start_position(self) -> None:
        if self._start == "latest" and not self._is_start_applied:
            await self._broker.start_at_end(self._group)
        self._is_start_applied = True

    async def _consume(self) -> None:
        await self._apply_start_position()
        async with self._join_group() as subscriber:
            self._consumer = subscriber.consumer
            try:
                async for record in (
                    subscriber.consumer
                ):  # FastStream's own iterator fails on headers that are no text
                    await self._deliver(record)
            finally:
                self._consumer = None

    @asynccontextmanager
    async def _join_group(self) -> AsyncIterator[Any]:
        async with self._broker.client() as faststream_broker:
            subscriber = faststream_broker.subscriber(
                self._broker.topic,
                group_id=self._broker.group_id(self._group),
                ack_policy=AckPolicy.MANUAL,
                auto_offset_reset="earliest",
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=SESSION_MS // 6,
                listener=self,
                persistent=False,
            )
            try:
                await subscriber.start()
                yield subscriber
            finally:
                await subscriber.stop()

    async def rewind(self) -> None:
        """Reset the group to the oldest event. Raises StoreTimeout when another consumer has it."""
        async with self._join_group() as subscriber:
            consumer = subscriber.consumer
            async with asyncio.timeout(self._broker.timeout_s):
                while not consumer.assignment():  # noqa: ASYNC110 - the client has no event for it
                    await asyncio.sleep(0.05)
                await consumer.commit(await consumer.beginning_offsets(list(consumer.assignment())))

    async def _deliver(self, record: Any) -> None:
        partition = TopicPartition(record.topic, record.partition)
        self._acked_by_offset.setdefault(partition, {})[record.offset] = False
        position = f"{record.partition}:{record.offset}"
        event = read_event(record.value, position, self._broker.seal)
        self._ready.put(Delivery(event, position, self._ack, self._epoch))
        while (
            sum(
                not acked
                for offsets in self._acked_by_offset.values()
                for acked in offsets.values()
            )
            >= self._prefetch
        ):
            self._changed.clear()
            await self._changed.wait()

    async def _ack(self, delivery: Delivery) -> None:
        number, _, offset = delivery.position.partition(":")
        partition = TopicPartition(self._broker.topic.name, int(number))
        offsets = self._acked_by_offset.get(partition, {})
        if offsets.get(int(offset)) is not False:
            return
        offsets[int(offset)] = True
        self._changed.set()
        for tracked_offset in list(offsets):
            if not offsets[tracked_offset]:
                break
            del offsets[tracked_offset]
            self._commit_offsets[partition] = tracked_offset + 1
        self._changed.set()
        await self._commit()

    async def _commit(self) -> None:
        """Commit acknowledged events; callers during a request are served by the next one."""
        while self._commit_offsets:
            async with self._commit_lock:
                commit_offsets = self._commit_offsets
                self._commit_offsets = {}
                if not commit_offsets or self._consumer is None:
                    return
                try:
                    async with asyncio.timeout(self._broker.timeout_s):
                        await self._consumer.commit(commit_offsets)
                except (CommitFailedError, IllegalStateError):
                    return  # the partition has gone to another consumer, and its events with it
                except (KafkaError, TimeoutError) as error:
                    self._commit_offsets = {**commit_offsets, **self._commit_offsets}
                    raise StoreUnavailable(
                        f"Kafka took no acknowledgement ({type(error).__name__})"
                    ) from error

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Drop the open events of these partitions."""
        self._drop_partitions(revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Restart these partitions at their committed offsets."""
        self._drop_partitions(assigned)

    def _drop_partitions(self, partitions: Any) -> None:
        partition_numbers = {topic_partition.partition for topic_partition in partitions}
        for topic_partition in list(partitions):
            self._acked_by_offset.pop(topic_partition, None)
            self._commit_offsets.pop(topic_partition, None)
        self._epoch += 1
        self._ready.drop(
            lambda delivery: int(delivery.position.partition(":")[0]) in partition_numbers
        )
        self._changed.set()
