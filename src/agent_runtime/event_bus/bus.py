"""Publish events in an in-memory log, to all subscribers."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from typing import TYPE_CHECKING, Self

from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.event import (
    DEFAULT_TENANT,
    Event,
    current_cause,
    set_cause,
    set_depth,
    set_seq,
    set_source,
    stream_of,
)
from agent_runtime.event_bus.event_types import check_type
from agent_runtime.event_bus.group import Filter, Group
from agent_runtime.event_bus.subscription import POLICIES, EventHandler, Policy, Subscription

if TYPE_CHECKING:
    from agent_runtime.types import Principal

MAX_STREAMS = 100_000
"""Most streams with a counter; beyond it the least recently used one restarts."""


MAX_SEQ_DIGITS = 18
"""Of a `seq` in an id that a reader comes back with."""


class _Counter:
    __slots__ = ("seq", "source")

    def __init__(self, source: str) -> None:
        self.seq = 0
        self.source = source


class EventBus:
    """Keep one ordered log in one process. `publish` never waits, and works from any thread.

    Args:
        retain: how many of the last events are stored for late or returning subscribers.
        source: this bus's name in the events; a random one by default. With `seq` it identifies an
            event, so it must be unique across processes and restarts.
    """

    def __init__(self, *, retain: int = 4096, source: str | None = None) -> None:
        if retain < 0:
            raise ConfigurationError(f"retain is a number of events, not {retain}")
        self.retain = retain
        self.source = source or f"bus-{uuid.uuid4().hex[:12]}"
        self.lock = threading.Lock()
        self.published = 0
        self._log: deque[Event] = deque(maxlen=retain)
        self._groups: dict[Filter, Group[Subscription]] = {}
        self._routes: dict[
            str, tuple[Group[Subscription], ...]
        ] = {}  # by type, of the groups that want it whosever it is
        self._groups_by_key: dict[
            str, tuple[Group[Subscription], ...]
        ] = {}  # by the session, run or tenant that a group wants
        self._counters: dict[str, _Counter] = {}
        self._older_counters: dict[str, _Counter] = {}
        self._rotations = 0
        self._dropped_by_closed = 0
        self._tasks: dict[asyncio.Task[None], Subscription] = {}
        self._closed = False

    # -- publishing

    @property
    def active(self) -> bool:
        """Return whether events reach a subscriber or the log.

        If not, publishers need not build them.
        """
        return bool(self._groups or self._log.maxlen) and not self._closed

    @property
    def dropped(self) -> int:
        """Return how many events were lost to full buffers, of all present and past subscribers."""
        subscriptions = [
            subscription
            for group in list(self._groups.values())
            for subscription in list(group.members)
        ]
        return self._dropped_by_closed + sum(subscription.dropped for subscription in subscriptions)

    def publish(self, event: Event) -> Event:
        """Add source and sequence to `event`, retain it, and hand it to its subscribers.

        Any thread; never waits, never raises for a subscriber's sake. Returns the event. One that
        has a `seq` (it comes from elsewhere) keeps it. After `close` it goes nowhere. Raises
        ConfigurationError for an unknown type.
        """
        lock = self.lock
        lock.acquire()  # `with` takes twice as long, and every token passes here
        try:
            route = self._routes.get(event.type)
            if route is None:
                route = self._create_route(event.type)
            if not event.seq:
                self._stamp(event)
            self.published += 1
            self._log.append(event)
            for group in route:
                group.push(event)
            if self._groups_by_key:
                self._push_keyed(event)
        finally:
            lock.release()
        return event

    async def apublish(self, event: Event) -> Event:
        """Publish when every subscriber with the policy `block` has room.

        The only method that waits.
        """
        while True:
            capacity_checked = [
                subscription
                for group in list(self._groups.values())
                for subscription in group.capacity_checked
            ]
            full_subscriptions = [
                s
                for s in capacity_checked
                if s.policy == "block" and s.full and s.group.filter.matches(event)
            ]
            if not full_subscriptions:
                return self.publish(event)
            await full_subscriptions[0].wait_for_capacity()

    def stamp(self, event: Event) -> Event:
        """Assign `event` its sequence number without delivering it."""
        with self.lock:
            self._stamp(event)
        return event

    def _stamp(self, event: Event) -> None:
        stream = (
            event.stream if event.tenant is not None else event.session_id or event.run_id or ""
        )
        counter = self._counters.get(stream) or self._create_counter(stream)
        counter.seq += 1
        set_seq(event, counter.seq)
        set_source(event, counter.source)
        cause = current_cause.get()
        if cause is not None:
            if event.cause is None:
                set_cause(event, cause.event_id)
            set_depth(event, max(event.depth, cause.depth))  # also of one that names another cause

    def _create_counter(self, stream: str) -> _Counter:
        counter = self._older_counters.pop(stream, None)
        if len(self._counters) >= MAX_STREAMS // 2:
            self._older_counters = self._counters
            self._counters = {}
            self._rotations += 1
        if counter is None:
            # An evicted stream restarts at 1 as of another source, so no id is used twice.
            counter = _Counter(
                f"{self.source}.{self._rotations}" if self._rotations else self.source
            )
        self._counters[stream] = counter
        return counter

    def _create_route(self, event_type: str) -> tuple[Group[Subscription], ...]:
        check_type(event_type)
        matching_groups = [
            g for f, g in self._groups.items() if f.key is None and f.matches_type(event_type)
        ]
        route = self._routes[event_type] = tuple(matching_groups)
        return route

    def _push_keyed(self, event: Event) -> None:
        for key in {event.session_id, event.run_id, event.tenant or DEFAULT_TENANT}:
            for group in () if key is None else self._groups_by_key.get(key, ()):
                if group.filter.matches_scope(event) and group.matches_type(event.type):
                    group.push(event)

    # -- listening

    def subscribe(
        self,
        *patterns: str,
        session_id: str | None = None,
        run_id: str | None = None,
        tenant: str | None = None,
        principal: Principal | None = None,
        after: int | str | None = None,
        buffer: int = 1000,
        policy: Policy = "drop_oldest",
        handler: EventHandler | None = None,
        name: str = "",
    ) -> Subscription:
        """Subscribe to the types that match one of `patterns`, from now on.

        Patterns are those of `fnmatch` (`llm.*`); without one all types match. Raises
        ConfigurationError for invalid values, and RuntimeError for an async handler without a loop.

        Args:
            patterns: of types.
            session_id: only events of this session of `tenant`.
            run_id: only events of this run of `tenant`.
            tenant: only events of this tenant; with a session or run it is `default` unless set.
            principal: the subscriber: only events of their tenant, and of their own calls and
                sessions unless they have the scope `sessions:all`. None is the application's own
                code.
            after: start with the retained events of the session or run after this `seq`, or after
                the event of this `id`, without loss or repetition; a `bus.gap` first when some are
                not retained any more. A number of another bus (before a restart) gives a `bus.gap`
                and all that is retained, until the new count has passed it; an id is always
                recognised.
            buffer: the most events that wait for this subscriber.
            policy: for an event without room: `drop_oldest` makes room, `drop_newest` loses it,
                `block` lets `apublish` wait (and loses it where a plain `publish` cannot).
            handler: called with every event: an async function on this loop, a plain one in a
                thread of its own.
            name: of the handler, in logs.
        """
        if buffer < 1:
            raise ConfigurationError(f"buffer must be at least 1, not {buffer}")
        if policy not in POLICIES:
            raise ConfigurationError(f"policy is one of {', '.join(POLICIES)}, not '{policy}'")
        if after is not None and session_id is None and run_id is None:
            raise ConfigurationError("after counts within a session or run: say which")
        if isinstance(after, int) and after < 0:
            raise ConfigurationError(f"after is a seq of 0 or more, or an event's id, not {after}")
        event_filter = Filter.of(patterns, session_id, run_id, tenant, principal)
        with self.lock:
            backlog = [] if after is None else self._events_after(event_filter, after)
            subscription = self._add_subscription(event_filter, buffer, policy, backlog)
        if handler is not None:
            subscription.handle_with(
                handler, name or getattr(handler, "__qualname__", type(handler).__name__)
            )
        return subscription

    def _add_subscription(
        self, event_filter: Filter, buffer: int, policy: Policy, backlog: list[Event]
    ) -> Subscription:
        group = self._groups.get(event_filter)
        if group is None:
            group = Group[Subscription](event_filter)
            if not self._closed:
                self._groups[event_filter] = group
                self._index(event_filter, group)
        subscription = Subscription(self, group, buffer, policy, backlog)
        subscription.closed = self._closed
        group.members.append(subscription)
        if policy == "drop_oldest":
            group.fast_appenders.append(subscription.buffer.append)
        else:
            group.capacity_checked.append(subscription)
        return subscription

    def _index(self, event_filter: Filter, group: Group[Subscription]) -> None:
        key = event_filter.key
        if key is None:
            self._routes.clear()
        else:
            self._groups_by_key[key] = (*self._groups_by_key.get(key, ()), group)

    def unsubscribe(self, group: Group[Subscription], subscription: Subscription) -> None:
        """Remove a subscription; called by `Subscription.close`. Repetitions do nothing."""
        with self.lock:
            if subscription not in group.members:
                return
            group.members.remove(subscription)
            if subscription in group.capacity_checked:
                group.capacity_checked.remove(subscription)
            else:
                group.fast_appenders[:] = [
                    s.buffer.append for s in group.members if s.policy == "drop_oldest"
                ]
            subscription.final_offset = group.pushed_count
            if subscription in group.waiters:
                group.waiters.remove(subscription)
            if not group.members:
                self._remove_group(group)
        self._dropped_by_closed += subscription.dropped

    def _remove_group(self, group: Group[Subscription]) -> None:
        if self._groups.get(group.filter) is not group:
            return
        del self._groups[group.filter]
        key = group.filter.key
        if key is None:
            self._routes.clear()
        elif remaining_groups := tuple(g for g in self._groups_by_key[key] if g is not group):
            self._groups_by_key[key] = remaining_groups
        else:
            del self._groups_by_key[key]

    def retained(
        self,
        *patterns: str,
        session_id: str | None = None,
        run_id: str | None = None,
        tenant: str | None = None,
        principal: Principal | None = None,
    ) -> list[Event]:
        """Return the retained events that match, oldest first.

        The arguments are those of `subscribe`.
        """
        event_filter = Filter.of(patterns, session_id, run_id, tenant, principal)
        with self.lock:
            return [event for event in self._log if event_filter.matches(event)]

    def _events_after(self, event_filter: Filter, after: int | str) -> list[Event]:
        scoped_events = [event for event in self._log if event_filter.matches_scope(event)]
        # A subscriber with restricted access must not learn a stream's count.
        counter = None if event_filter.user_id is not None else self._find_counter(event_filter)
        last = max(scoped_events[-1].seq if scoped_events else 0, counter.seq if counter else 0)
        seq = after if isinstance(after, int) else self._resolve_seq(after, scoped_events, counter)
        if seq is None or seq > last:  # a number of another count: nothing of this one was read
            missed = max(1, scoped_events[0].seq - 1 if scoped_events else last)
            return [
                self._gap_event(event_filter, missed, "restart"),
                *(event for event in scoped_events if event_filter.matches_type(event.type)),
            ]
        events = [
            event
            for event in scoped_events
            if event.seq > seq and event_filter.matches_type(event.type)
        ]
        if missed := self._count_missed(event_filter, scoped_events, last, seq):
            return [self._gap_event(event_filter, missed, "retention"), *events]
        return events

    def _find_counter(self, event_filter: Filter) -> _Counter | None:
        stream = stream_of(event_filter.tenant, event_filter.session_id or event_filter.run_id)
        return self._counters.get(stream) or self._older_counters.get(stream)

    def _resolve_seq(
        self, event_id: str, scoped_events: list[Event], counter: _Counter | None
    ) -> int | None:
        """Return the sequence number of the event of this id; None when it is unknown."""
        for event in scoped_events:
            if event.id == event_id:
                return event.seq
        id_prefix, _, seq = event_id.rpartition(":")
        if not seq.isdecimal() or len(seq) > MAX_SEQ_DIGITS:
            return None
        sources = {event.source for event in scoped_events} if counter is None else {counter.source}
        streams = {event.stream for event in scoped_events} or {id_prefix.rpartition(":")[2]}
        return (
            int(seq)
            if any(id_prefix == f"{s}:{stream}" for s in sources for stream in streams)
            else None
        )

    def _gap_event(self, event_filter: Filter, missed: int, reason: str) -> Event:
        data = {"missed": missed, "policy": reason}
        return Event(
            "bus.gap",
            data,
            event_filter.run_id,
            event_filter.session_id,
            tenant=event_filter.tenant,
            source=self.source,
        )

    def _count_missed(
        self, event_filter: Filter, scoped_events: list[Event], last: int, seq: int
    ) -> int:
        if not scoped_events:
            return last - seq
        # The last events are retained, without holes. A run inside a session does not start at 1,
        # because earlier numbers belong to others.
        is_whole = event_filter.session_id is None and scoped_events[0].type == "run.start"
        return 0 if is_whole else max(0, scoped_events[0].seq - seq - 1)

    # -- the end

    def track_task(self, task: asyncio.Task[None], subscription: Subscription) -> None:
        """Hold a handler's task: the loop itself does not."""
        self._tasks[task] = subscription
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def close(self) -> None:
        """End every subscription after its buffered events. Later events are ignored."""
        with self.lock:
            self._closed = True
            self._routes.clear()
        for group in list(self._groups.values()):
            for subscription in list(group.members):
                subscription.close()

    async def aclose(self, grace_s: float = 5.0) -> int:
        """Close, and let handlers finish for `grace_s` seconds.

        Returns how many events were left.
        """
        tasks = {t: s for t, s in self._tasks.items() if t.get_loop() is asyncio.get_running_loop()}
        self.close()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        unfinished_tasks = [task for task in tasks if not task.done()]
        for task in unfinished_tasks:
            task.cancel()
        if unfinished_tasks:
            await asyncio.wait(unfinished_tasks)
        return sum(tasks[task].waiting for task in unfinished_tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
