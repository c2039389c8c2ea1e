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
"""An async function, awaited on the subscriber's loop, or a plain one, called in a separate thread.
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
    """Receive events: `async with bus.subscribe("llm.*") as events: async for event in events.

    ...`.

    A handler may receive them instead. At most `buffer` events wait, besides those already taken
    for reading. Further ones are lost, reported by a `bus.gap` event at their position, and counted
    in `dropped`. Iteration ends when the bus or the subscription is closed and all waiting events
    are read. Cancelling a waiting `async for` loses no event. `failed` counts errors of a handler,
    which are logged before the next event is handled.
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
        )  # no publisher waits for room: one event may be taken without the lock
        self.is_registered = False
        self.closed = False

    @property
    def full(self) -> bool:
        """Return whether there is no room for the next event."""
        return len(self.buffer) >= self.size

    @property
    def dropped(self) -> int:
        """Return how many events were lost for lack of room."""
        with self._bus.lock:
            return self._count_missing() + self._lost_count

    @property
    def waiting(self) -> int:
        """Return how many received events are unread."""
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
        """Yield all waiting events as a list, whenever there are any: the fastest way to read."""
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
        """Move buffered events to the reader, with a gap event for lost ones; False without any."""
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
        """Return a future for the next event; None if one has arrived, or none will."""
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
        """Wake the reader, for an event or the end, from any thread."""
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
            except RuntimeError:  # its loop is closed, so there is no waiter
                pass
        else:
            _wake_all([(self._loop, waiter)])

    async def wait_for_capacity(self) -> None:
        """Wait until there is room for the next event, or the subscription is closed."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._bus.lock:
            if not self.full or self.closed:
                return
            self._capacity_waiters.append((loop, waiter))
        await waiter

    def close(self) -> None:
        """Close the subscription; waiting events can still be read. Repetitions do nothing."""
        self._bus.unsubscribe(self.group, self)
        with self._bus.lock:
            self.closed = True
            capacity_waiters = self._capacity_waiters
            self._capacity_waiters = []
        _wake_all(capacity_waiters)
        self.wake()

    # -- handling

    def handle_with(self, handler: EventHandler, name: str) -> None:
        """Call `handler` with every event, from now on."""
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
    """Return whether this task is being cancelled; a handler may raise its own CancelledError."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _wake_all(waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, waiter in waiters:
        with suppress(RuntimeError):  # a closed loop has no waiter
            loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
