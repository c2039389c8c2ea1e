"""The in-memory event bus."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Self

from agent_runtime.errors import ConfigurationError


@dataclass(slots=True)
class Event:
    """An envelope: `type` is dotted (`model.end`), `data` what happened, `time_s` Unix wall-clock seconds."""

    type: str
    data: Any = None
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    time_s: float = field(default_factory=time.time)


class Subscription:
    """One subscriber's view: `async with bus.subscribe("model.*") as events: async for event in events: ...`.

    When the buffer is full the oldest event makes room and `dropped` counts it: a slow subscriber loses
    its own events and never slows the publisher. Iteration ends when the bus or the subscription closes and
    the buffer is empty. Cancelling a waiting `async for` loses no event.
    """

    def __init__(self, bus: EventBus, pattern: str, buffer: int) -> None:
        self.pattern, self.dropped = pattern, 0
        self._bus = bus
        self._events: deque[Event] = deque(maxlen=buffer)
        self._matches: dict[str, bool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()
        self._thread = 0
        self._closed = False

    def push(self, event: Event) -> None:
        """Take `event` if its type matches the pattern. Any thread; never waits."""
        matches = self._matches.get(event.type)
        if matches is None:
            matches = self._matches[event.type] = fnmatchcase(event.type, self.pattern)
        if not matches:
            return
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """Stop receiving; events already buffered can still be read."""
        self._bus.remove(self)
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is None:  # nobody is iterating yet
            return
        if threading.get_ident() == self._thread:
            self._ready.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            # A publisher in another thread may have appended between the check and the clear.
            if not self._events and not self._closed:
                await self._ready.wait()
        return self._events.popleft()


class EventBus:
    """Publishes events to any number of subscribers, in memory, in one process.

    `publish` is a plain call from any thread: it never waits and never raises for a subscriber's sake.
    Each subscriber sees the events in the order in which they were published from one thread.
    """

    def __init__(self) -> None:
        self._subscriptions: tuple[Subscription, ...] = ()  # replaced, not changed: publish reads it unlocked
        self._lock = threading.Lock()
        self.published = 0
        self._dropped_by_closed = 0

    @property
    def active(self) -> bool:
        """Whether anybody listens; a publisher may skip building an event when nobody does."""
        return bool(self._subscriptions)

    @property
    def dropped(self) -> int:
        """Events lost to full buffers, over all subscribers, closed ones included."""
        return self._dropped_by_closed + sum(s.dropped for s in self._subscriptions)

    def subscribe(self, pattern: str = "*", *, buffer: int = 1000) -> Subscription:
        """Listen to event types that match `pattern` (`fnmatch`: `model.*`), from now on.

        `buffer` is how many events wait for this subscriber at most. Raises ConfigurationError when it is
        below 1.
        """
        if buffer < 1:
            raise ConfigurationError(f"buffer must be at least 1, not {buffer}")
        subscription = Subscription(self, pattern, buffer)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription; called by `Subscription.close`. Removing twice does nothing."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)
                self._dropped_by_closed += subscription.dropped

    def publish(self, event: Event) -> None:
        """Hand `event` to every matching subscriber's buffer. Any thread; never waits."""
        self.published += 1
        for subscription in self._subscriptions:
            subscription.push(event)

    def close(self) -> None:
        """End every subscription once its buffer has been read."""
        for subscription in self._subscriptions:
            subscription.close()
