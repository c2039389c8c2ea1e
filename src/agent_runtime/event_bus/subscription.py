"""One subscriber's buffer, read as an async iterator or by a handler."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from agent_runtime.errors.user_code import contained
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.group import Group

if TYPE_CHECKING:
    from agent_runtime.event_bus.bus import EventBus

LOG = logging.getLogger("agent_runtime.events")

Policy: TypeAlias = Literal["drop_oldest", "drop_newest", "block"]
POLICIES: tuple[Policy, ...] = ("drop_oldest", "drop_newest", "block")
EventHandler: TypeAlias = Callable[[Event], Any]
"""An async function, awaited on the loop of the subscriber.

Or a plain one, called in a thread of its own.
"""


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
        self, bus: EventBus, group: Group, buffer: int, policy: Policy, backlog: list[Event]
    ) -> None:
        self.policy = policy
        self.size = buffer
        self.failed = 0
        self._bus = bus
        self.group = group
        self._seen = group.pushed  # `_seen`: how far into the group it has come
        self.end: int | None = None  # how far the group had come when this one left it
        self.buffer: deque[Event] = deque(maxlen=buffer if policy == "drop_oldest" else None)
        self._ready: deque[Event] = deque(backlog)
        self._lost = 0
        self._waiter: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._rooms: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._may_pop = (
            policy == "drop_oldest"
        )  # nobody waits for room: one event may be taken without the lock
        self.asleep = False
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether the next event has no room."""
        return len(self.buffer) >= self.size

    @property
    def dropped(self) -> int:
        """Events that had no room."""
        with self._bus.lock:
            return self._missing() + self._lost

    @property
    def waiting(self) -> int:
        """Events that have come and were not read yet."""
        return len(self.buffer) + len(self._ready)

    def _missing(self) -> int:
        pushed = self.group.pushed if self.end is None else self.end
        return pushed - self._seen - len(self.buffer)

    # -- reading
    # -------------------------------------------------------------------------------------------

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
            if not self._take():
                waiter = self._sleeper()
                if waiter is not None:
                    await waiter
                elif self.closed and not self.buffer:
                    raise StopAsyncIteration

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Everything that waits, as a list, each time something does: the fastest way to read."""
        while True:
            if self._ready or self._take():
                batch = list(self._ready)
                self._ready.clear()
                yield batch
                continue
            waiter = self._sleeper()
            if waiter is not None:
                await waiter
            elif self.closed and not self.buffer:
                return

    def _take(self) -> bool:
        """Move what waits to where it is read, with a gap event where something was lost.

        False when nothing waits.
        """
        buffer = self.buffer
        missing = self._missing()
        count = len(buffer)
        if not (missing or count):
            return False
        with self._bus.lock:
            missing = self._missing()
            count = len(buffer)
            self._ready.extend(buffer)
            buffer.clear()
            self._seen += count + missing
            self._lost += missing
            rooms = self._rooms
            self._rooms = []
        if missing:
            self._tell_gap(missing)
        _tell_all(rooms)
        return bool(self._ready)

    def _tell_gap(self, missing: int) -> None:
        wanted = self.group.filter
        gap = Event(
            "bus.gap",
            {"missed": missing, "policy": self.policy},
            wanted.run_id,
            wanted.session_id,
            tenant=wanted.tenant,
            source=self._bus.source,
        )
        if self.policy == "drop_oldest":
            self._ready.appendleft(gap)
        else:
            self._ready.append(gap)

    def _sleeper(self) -> asyncio.Future[None] | None:
        """What to wait for until something comes.

        None when something came meanwhile, or nothing will.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiter = waiter
        self._lie_down()
        # Another thread may have published between the look and the registration.
        return None if self.buffer or self.closed else waiter

    def _lie_down(self) -> None:
        if not self.asleep:  # a wait that was cancelled has left it in the list
            self.asleep = True
            self.group.sleeping.append(self)

    def wake(self) -> None:
        """Something is there to be read, or will never be. Any thread."""
        self.asleep = False
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
            _tell_all([(self._loop, waiter)])

    async def room(self) -> None:
        """Wait until the next event has room, or none is wanted any more."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._bus.lock:
            if not self.full or self.closed:
                return
            self._rooms.append((loop, waiter))
        await waiter

    def close(self) -> None:
        """Receive nothing more; what waits can still be read. Closing twice does nothing."""
        self._bus.remove(self.group, self)
        with self._bus.lock:
            self.closed = True
            rooms = self._rooms
            self._rooms = []
        _tell_all(rooms)
        self.wake()

    # -- handling
    # ------------------------------------------------------------------------------------------

    def handle_with(self, handler: EventHandler, name: str) -> None:
        """Have `handler` called with every event, from now on."""
        called: Any = (
            handler
            if inspect.isfunction(handler) or inspect.ismethod(handler)
            else type(handler).__call__
        )
        if inspect.iscoroutinefunction(called):
            self._bus.keep(
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
            elif self._may_pop and len(buffer) == 1 and group.pushed == self._seen + 1:
                event = buffer.popleft()  # one that came alone: nothing to sort out
                self._seen += 1
            elif self._take():
                continue
            else:
                waiter = self._sleeper()
                if waiter is not None:
                    await waiter
                elif self.closed and not buffer:
                    return
                continue
            try:
                await handler(event)
            except asyncio.CancelledError:
                if _asked_to_end():
                    raise
                self._failure(name, event)
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its own affair
                contained(error)
                self._failure(name, event)

    def _handle_in_thread(self, handler: EventHandler, name: str) -> None:
        while True:
            while self._ready:
                event = self._ready.popleft()
                try:
                    handler(event)
                except BaseException as error:  # noqa: BLE001 - the same
                    contained(error)
                    self._failure(name, event)
            if self._take():
                continue
            waiter = self._waiter = threading.Event()
            self._lie_down()
            if self.buffer:
                continue
            if self.closed:
                return
            waiter.wait()

    def _failure(self, name: str, event: Event) -> None:
        self.failed += 1
        LOG.exception("the handler %s failed on %s", name, event.type)


def _asked_to_end() -> bool:
    """Whether this task is being cancelled.

    A handler may raise CancelledError for reasons of its own.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _tell_all(waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, waiter in waiters:
        with suppress(RuntimeError):  # a loop that is closed: nobody waits there any more
            loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
