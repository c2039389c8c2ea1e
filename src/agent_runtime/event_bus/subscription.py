"""One subscriber's buffer, read as an async iterator or by a handler."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Literal, Protocol, Self, TypeAlias

from agent_runtime.errors.user_code import as_user_exception
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.group import Group

LOG = logging.getLogger("agent_runtime.events")

Policy: TypeAlias = Literal["drop_oldest", "drop_newest", "block"]
POLICIES: tuple[Policy, ...] = ("drop_oldest", "drop_newest", "block")
EventHandler: TypeAlias = Callable[[Event], Any]
"""An async function, awaited on the loop of the subscriber.

Or a plain one, called in a thread of its own.
"""


class SubscriptionHub(Protocol):
    """The bus of a subscription."""

    lock: threading.Lock
    source: str

    def unsubscribe(self, group: Group[Subscription], subscription: Subscription) -> None:
        """Remove a subscription from its group."""

    def track_task(self, task: asyncio.Task[Any], subscription: Subscription) -> None:
        """Hold a handler's task until it has ended."""


class Subscription:
    """`async with bus.subscribe("llm.*") as events: async for event in events: ...`.

    Or a handler's.

    At most `buffer` events wait, and as many have been taken and are being read. What is lost
    beyond that is told by a `bus.gap` event at its place in the order, and counted in `dropped`.
    Iteration ends when the bus or the subscription is closed and what waits has been read.
    Cancelling a waiting `async for` loses no event.

    `failed` counts what a handler raised; it is logged, and the next event is handled.
    """

    def __init__(
        self,
        bus: SubscriptionHub,
        group: Group[Subscription],
        buffer: int,
        policy: Policy,
        backlog: list[Event],
    ) -> None:
        self.policy = policy
        self.size = buffer
        self.failed = 0
        self._bus = bus
        self.group = group
        # `_group_offset`: how far into the group it has come
        self._group_offset = group.pushed_count
        self.final_offset: int | None = None  # how far the group had come when this one left it
        self.buffer: deque[Event] = deque(maxlen=buffer if policy == "drop_oldest" else None)
        self._ready: deque[Event] = deque(backlog)
        self._lost_count = 0
        self._waiter: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._capacity_waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._can_pop_unlocked = (
            policy == "drop_oldest"
        )  # nobody waits for room: one event may be taken without the lock
        self.is_registered = False
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether the next event has no room."""
        return len(self.buffer) >= self.size

    @property
    def dropped(self) -> int:
        """Events that had no room."""
        with self._bus.lock:
            return self._count_missing() + self._lost_count

    @property
    def waiting(self) -> int:
        """Events that have come and were not read yet."""
        return len(self.buffer) + len(self._ready)

    def _count_missing(self) -> int:
        pushed_count = self.group.pushed_count if self.final_offset is None else self.final_offset
        return pushed_count - self._group_offset - len(self.buffer)

    # -- reading

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._ready:
                return self._ready.popleft()
            if not self._drain_buffer():
                waiter = self._create_waiter()
                if waiter is not None:
                    await waiter
                elif self.closed and not self.buffer:
                    raise StopAsyncIteration

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Everything that waits, as a list, each time something does: the fastest way to read."""
        while True:
            if self._ready or self._drain_buffer():
                batch = list(self._ready)
                self._ready.clear()
                yield batch
                continue
            waiter = self._create_waiter()
            if waiter is not None:
                await waiter
            elif self.closed and not self.buffer:
                return

    def _drain_buffer(self) -> bool:
        """Move what waits to where it is read, with a gap event where something was lost.

        False when nothing waits.
        """
        buffer = self.buffer
        missing = self._count_missing()
        count = len(buffer)
        if not (missing or count):
            return False
        with self._bus.lock:
            missing = self._count_missing()
            count = len(buffer)
            self._ready.extend(buffer)
            buffer.clear()
            self._group_offset += count + missing
            self._lost_count += missing
            capacity_waiters = self._capacity_waiters
            self._capacity_waiters = []
        if missing:
            self._insert_gap_event(missing)
        _wake_all(capacity_waiters)
        return bool(self._ready)

    def _insert_gap_event(self, missing: int) -> None:
        event_filter = self.group.filter
        gap = Event(
            "bus.gap",
            {"missed": missing, "policy": self.policy},
            event_filter.run_id,
            event_filter.session_id,
            tenant=event_filter.tenant,
            source=self._bus.source,
        )
        if self.policy == "drop_oldest":
            self._ready.appendleft(gap)
        else:
            self._ready.append(gap)

    def _create_waiter(self) -> asyncio.Future[None] | None:
        """What to wait for until something comes.

        None when something came meanwhile, or nothing will.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiter = waiter
        self._register_waiter()
        # Another thread may have published between the look and the registration.
        return None if self.buffer or self.closed else waiter

    def _register_waiter(self) -> None:
        if not self.is_registered:  # a wait that was cancelled has left it in the list
            self.is_registered = True
            self.group.waiters.append(self)

    def wake(self) -> None:
        """Something is there to be read, or will never be. Any thread."""
        self.is_registered = False
        waiter = self._waiter
        if waiter is None:
            return
        self._waiter = None
        if self._loop is None:
            waiter.set()
        elif threading.get_ident() == self._thread:
            try:
                if not waiter.done():
                    waiter.set_result(None)
            except RuntimeError:  # its loop is closed: nobody waits there any more
                pass
        else:
            _wake_all([(self._loop, waiter)])

    async def wait_for_capacity(self) -> None:
        """Wait until the next event has room, or none is wanted any more."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._bus.lock:
            if not self.full or self.closed:
                return
            self._capacity_waiters.append((loop, waiter))
        await waiter

    def close(self) -> None:
        """Receive nothing more; what waits can still be read. Closing twice does nothing."""
        self._bus.unsubscribe(self.group, self)
        with self._bus.lock:
            self.closed = True
            capacity_waiters = self._capacity_waiters
            self._capacity_waiters = []
        _wake_all(capacity_waiters)
        self.wake()

    # -- handling

    def handle_with(self, handler: EventHandler, name: str) -> None:
        """Have `handler` called with every event, from now on."""
        function: Any = (
            handler
            if inspect.isfunction(handler) or inspect.ismethod(handler)
            else type(handler).__call__
        )
        if inspect.iscoroutinefunction(function):
            self._bus.track_task(
                asyncio.get_running_loop().create_task(self._handle(handler, name), name=name), self
            )
            return
        threading.Thread(
            target=self._handle_in_thread, args=(handler, name), daemon=True, name=name
        ).start()

    async def _handle(self, handler: EventHandler, name: str) -> None:
        ready = self._ready
        buffer = self.buffer
        group = self.group
        while True:
            if ready:
                event = ready.popleft()
            elif (
                self._can_pop_unlocked
                and len(buffer) == 1
                and group.pushed_count == self._group_offset + 1
            ):
                event = buffer.popleft()  # one that came alone: nothing to sort out
                self._group_offset += 1
            elif self._drain_buffer():
                continue
            else:
                waiter = self._create_waiter()
                if waiter is not None:
                    await waiter
                elif self.closed and not buffer:
                    return
                continue
            try:
                await handler(event)
            except asyncio.CancelledError:
                if _is_task_cancelling():
                    raise
                self._record_failure(name, event)
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its own affair
                as_user_exception(error)
                self._record_failure(name, event)

    def _handle_in_thread(self, handler: EventHandler, name: str) -> None:
        while True:
            while self._ready:
                event = self._ready.popleft()
                try:
                    handler(event)
                except BaseException as error:  # noqa: BLE001 - the same
                    as_user_exception(error)
                    self._record_failure(name, event)
            if self._drain_buffer():
                continue
            waiter = self._waiter = threading.Event()
            self._register_waiter()
            if self.buffer:
                continue
            if self.closed:
                return
            waiter.wait()

    def _record_failure(self, name: str, event: Event) -> None:
        self.failed += 1
        LOG.exception("the handler %s failed on %s", name, event.type)


def _is_task_cancelling() -> bool:
    """Whether this task is being cancelled.

    A handler may raise CancelledError for reasons of its own.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _wake_all(waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, waiter in waiters:
        with suppress(RuntimeError):  # a loop that is closed: nobody waits there any more
            loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
