"""One consumer of a Kafka group, which acknowledges only what was handled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from faststream import AckPolicy

from agent_runtime.errors import StoreError, StoreUnavailable
from agent_runtime.event_bus.brokers.broker import Deliveries, Delivery, DeliveryQueue, Start, ended
from agent_runtime.event_bus.cloud_event import read_event

if TYPE_CHECKING:
    from agent_runtime.event_bus.brokers.kafka import KafkaBroker

LOG = logging.getLogger("agent_runtime.events")
MAX_PAUSE_S = 2.0
SESSION_MS = 6000
"""After how long a consumer that says nothing has lost its partitions.

The least that a server allows by default.
"""


class KafkaGroup(ConsumerRebalanceListener):  # type: ignore[misc]
    """Fetches in order, and commits for each partition how far everything is acknowledged.

    A partition that goes to another consumer takes its open events with it: their acknowledgement
    here changes nothing.
    """

    def __init__(self, broker: KafkaBroker, group: str, start: Start, prefetch: int) -> None:
        self._broker = broker
        self._group = group
        self._start = start
        self._prefetch = prefetch
        self._ready = DeliveryQueue()
        self._open: dict[TopicPartition, dict[int, bool]] = {}
        self._floors: dict[TopicPartition, int] = {}
        self._changed = asyncio.Event()
        self._committing = asyncio.Lock()
        self._consumer: Any = None
        self._reading = 0  # one more at each change of the partitions
        self._begun = False

    @asynccontextmanager
    async def deliveries(self) -> AsyncIterator[Deliveries]:
        """The deliveries of this consumer, for as long as the context lasts."""
        with suppress(StoreError):
            await self._begin()
        task = asyncio.create_task(self._run(), name=f"agent_runtime events {self._group}")
        self._ready.read_by(task)
        try:
            yield self._ready
        finally:
            await ended(task)

    async def _run(self) -> None:
        pause_s = 0.1
        while True:
            try:
                await self._consume()
            except (StoreError, KafkaError, OSError) as error:
                LOG.warning(
                    "the group %s cannot be read, tried again in %.1f s: %s",
                    self._group,
                    pause_s,
                    error,
                )
            self._give_up(list(self._open))
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def _begin(self) -> None:
        if self._start == "latest" and not self._begun:
            await self._broker.begin_at_the_end(self._group)
        self._begun = True

    async def _consume(self) -> None:
        await self._begin()
        async with self._joined() as subscriber:
            self._consumer = subscriber.consumer
            try:
                async for record in (
                    subscriber.consumer
                ):  # FastStream's own iterator fails on headers that are no text
                    await self._deliver(record)
            finally:
                self._consumer = None

    @asynccontextmanager
    async def _joined(self) -> AsyncIterator[Any]:
        async with self._broker.client() as connected:
            subscriber = connected.subscriber(
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
        """Make the group begin with the oldest event again.

        Raises StoreTimeout when another one has it all.
        """
        async with self._joined() as subscriber:
            consumer = subscriber.consumer
            async with asyncio.timeout(self._broker.timeout_s):
                while not consumer.assignment():  # noqa: ASYNC110 - the client tells nobody
                    await asyncio.sleep(0.05)
                await consumer.commit(await consumer.beginning_offsets(list(consumer.assignment())))

    async def _deliver(self, record: Any) -> None:
        partition = TopicPartition(record.topic, record.partition)
        self._open.setdefault(partition, {})[record.offset] = False
        position = f"{record.partition}:{record.offset}"
        event = read_event(record.value, position, self._broker.seal)
        self._ready.put(Delivery(event, position, self._ack, self._reading))
        while (
            sum(not acked for offsets in self._open.values() for acked in offsets.values())
            >= self._prefetch
        ):
            self._changed.clear()
            await self._changed.wait()

    async def _ack(self, delivery: Delivery) -> None:
        number, _, offset = delivery.position.partition(":")
        partition = TopicPartition(self._broker.topic.name, int(number))
        offsets = self._open.get(partition, {})
        if offsets.get(int(offset)) is not False:
            return
        offsets[int(offset)] = True
        self._changed.set()
        for each in list(offsets):
            if not offsets[each]:
                break
            del offsets[each]
            self._floors[partition] = each + 1
        self._changed.set()
        await self._commit()

    async def _commit(self) -> None:
        """Send how far everything is acknowledged.

        Who comes while a request is under way is served by the next one.
        """
        while self._floors:
            async with self._committing:
                floors = self._floors
                self._floors = {}
                if not floors or self._consumer is None:
                    return
                try:
                    async with asyncio.timeout(self._broker.timeout_s):
                        await self._consumer.commit(floors)
                except (CommitFailedError, IllegalStateError):
                    return  # the partition has gone to another consumer, and its events with it
                except (KafkaError, TimeoutError) as error:
                    self._floors = {**floors, **self._floors}
                    raise StoreUnavailable(
                        f"Kafka took no acknowledgement ({type(error).__name__})"
                    ) from error

    # -- the sharing of partitions, told by the client
    # -------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Forget what is open of them."""
        self._give_up(revoked)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """They begin at what is committed."""
        self._give_up(assigned)

    def _give_up(self, partitions: Any) -> None:
        numbers = {each.partition for each in partitions}
        for each in list(partitions):
            self._open.pop(each, None)
            self._floors.pop(each, None)
        self._reading += 1
        self._ready.drop(lambda delivery: int(delivery.position.partition(":")[0]) in numbers)
        self._changed.set()
