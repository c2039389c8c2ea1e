"""EventBus: the in-memory log of what happens, and everybody who listens to it."""

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
"""Streams whose counters are kept; one that was not used while as many others were begins anew."""


MAX_DIGITS = 18
"""Of a `seq` in an id that a reader comes back with."""


class _Counter:
    __slots__ = ("seq", "source")

    def __init__(self, source: str) -> None:
        self.seq = 0
        self.source = source


class EventBus:
    """One ordered log in one process. `publish` is a plain call from any thread: it never waits.

    Args:
        retain: how many of the last events are kept for those who come later, or come back.
        source: this bus's name in the events; a random one by default. With `seq` it names an event
            for ever, so no other bus may have had it, one of an earlier process neither.
    """

    def __init__(self, *, retain: int = 4096, source: str | None = None) -> None:
        if retain < 0:
            raise ConfigurationError(f"retain is a number of events, not {retain}")
        self.retain = retain
        self.source = source or f"bus-{uuid.uuid4().hex[:12]}"
        self.lock = threading.Lock()
        self.published = 0
        self._log: deque[Event] = deque(maxlen=retain)
        self._groups: dict[Filter, Group] = {}
        self._routes: dict[
            str, tuple[Group, ...]
        ] = {}  # by type, of the groups that want it whosever it is
        self._keyed: dict[
            str, tuple[Group, ...]
        ] = {}  # by the session, run or tenant that a group wants
        self._counters: dict[str, _Counter] = {}
        self._older_counters: dict[str, _Counter] = {}
        self._rotations = 0
        self._dropped_by_closed = 0
        self._tasks: dict[asyncio.Task[None], Subscription] = {}
        self._closed = False

    # -- publishing
    # ----------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether an event goes anywhere.

        A publisher may skip making one when nobody listens and nothing is kept.
        """
        return bool(self._groups or self._log.maxlen) and not self._closed

    @property
    def dropped(self) -> int:
        """Events lost to full buffers, over all subscribers, closed ones included."""
        subscriptions = [
            each for group in list(self._groups.values()) for each in list(group.members)
        ]
        return self._dropped_by_closed + sum(each.dropped for each in subscriptions)

    def publish(self, event: Event) -> Event:
        """Add source and sequence to `event`, retain it, and hand it to its subscribers.

        Any thread; never waits, never raises for a subscriber's sake. Returns the event. One that
        has a `seq` (it comes from elsewhere) keeps it. After `close` it goes nowhere. Raises
        ConfigurationError for an unknown type.
        """
        lock = self.lock
        lock.acquire()  # `with` takes twice as long, and this is the way of every token
        try:
            route = self._routes.get(event.type)
            if route is None:
                route = self._route(event.type)
            if not event.seq:
                self._stamp(event)
            self.published += 1
            self._log.append(event)
            for group in route:
                group.push(event)
            if self._keyed:
                self._push_keyed(event)
        finally:
            lock.release()
        return event

    async def apublish(self, event: Event) -> Event:
        """`publish`, once every subscriber with the policy `block` has room for it.

        The one way in that may wait.
        """
        while True:
            blocking = [each for group in list(self._groups.values()) for each in group.checked]
            full = [
                s
                for s in blocking
                if s.policy == "block" and s.full and s.group.filter.matches(event)
            ]
            if not full:
                return self.publish(event)
            await full[0].room()

    def stamp(self, event: Event) -> Event:
        """Give `event` its place in its stream without handing it to anybody."""
        with self.lock:
            self._stamp(event)
        return event

    def _stamp(self, event: Event) -> None:
        stream = (
            event.stream if event.tenant is not None else event.session_id or event.run_id or ""
        )
        counter = self._counters.get(stream) or self._counter(stream)
        counter.seq += 1
        set_seq(event, counter.seq)
        set_source(event, counter.source)
        cause = current_cause.get()
        if cause is not None:
            if event.cause is None:
                set_cause(event, cause.event_id)
            set_depth(event, max(event.depth, cause.depth))  # also of one that names another cause

    def _counter(self, stream: str) -> _Counter:
        counter = self._older_counters.pop(stream, None)
        if len(self._counters) >= MAX_STREAMS // 2:
            self._older_counters = self._counters
            self._counters = {}
            self._rotations += 1
        if counter is None:
            # A stream that was forgotten begins at 1 again, as of another source: no id is given
            # twice.
            counter = _Counter(
                f"{self.source}.{self._rotations}" if self._rotations else self.source
            )
        self._counters[stream] = counter
        return counter

    def _route(self, event_type: str) -> tuple[Group, ...]:
        check_type(event_type)
        wanted = [g for f, g in self._groups.items() if f.key is None and f.wants(event_type)]
        route = self._routes[event_type] = tuple(wanted)
        return route

    def _push_keyed(self, event: Event) -> None:
        for key in {event.session_id, event.run_id, event.tenant or DEFAULT_TENANT}:
            for group in () if key is None else self._keyed.get(key, ()):
                if group.filter.concerns(event) and group.wants(event.type):
                    group.push(event)

    # -- listening
    # -----------------------------------------------------------------------------------------

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
        """Listen to the types that match one of `patterns` (`fnmatch`: `llm.*`.

        All by default), from now on.

        Args:
            patterns: of types.
            session_id: only events of this session of `tenant`.
            run_id: only events of this run of `tenant`.
            tenant: only events of this tenant; with a session or run it is `default` unless given.
            principal: who listens: only events of their tenant, and of their own calls and sessions
                unless they have the scope `sessions:all`. None is the application's own code.
            after: begin with the retained events of the session or run behind this `seq`, or behind
                the event of this `id`, without loss or repetition before the ones that follow; a
                `bus.gap` first when some are not retained any more. What another bus counted
                (before a restart) is no place here: then a `bus.gap` and all that is retained. A
                number cannot tell that once the new count has passed it; an id always does.
            buffer: how many events wait for this subscriber at most.
            policy: for an event without room: `drop_oldest` makes room, `drop_newest` loses it,
                `block` lets `apublish` wait (and loses it where a plain `publish` cannot).
            handler: called with every event: an async function on this loop, a plain one in a
            thread of its own.
            name: of the handler, in logs.

        Raises ConfigurationError for values that cannot work, and RuntimeError for an async handler
        without a loop.
        """
        if buffer < 1:
            raise ConfigurationError(f"buffer must be at least 1, not {buffer}")
        if policy not in POLICIES:
            raise ConfigurationError(f"policy is one of {', '.join(POLICIES)}, not '{policy}'")
        if after is not None and session_id is None and run_id is None:
            raise ConfigurationError("after counts within a session or run: say which")
        if isinstance(after, int) and after < 0:
            raise ConfigurationError(f"after is a seq of 0 or more, or an event's id, not {after}")
        wanted = Filter.of(patterns, session_id, run_id, tenant, principal)
        with self.lock:
            backlog = [] if after is None else self._after(wanted, after)
            subscription = self._join(wanted, buffer, policy, backlog)
        if handler is not None:
            subscription.handle_with(
                handler, name or getattr(handler, "__qualname__", type(handler).__name__)
            )
        return subscription

    def _join(
        self, wanted: Filter, buffer: int, policy: Policy, backlog: list[Event]
    ) -> Subscription:
        group = self._groups.get(wanted)
        if group is None:
            group = Group(wanted)
            if not self._closed:
                self._groups[wanted] = group
                self._index(wanted, group)
        subscription = Subscription(self, group, buffer, policy, backlog)
        subscription.closed = self._closed
        group.members.append(subscription)
        if policy == "drop_oldest":
            group.appends.append(subscription.buffer.append)
        else:
            group.checked.append(subscription)
        return subscription

    def _index(self, wanted: Filter, group: Group) -> None:
        key = wanted.key
        if key is None:
            self._routes.clear()
        else:
            self._keyed[key] = (*self._keyed.get(key, ()), group)

    def remove(self, group: Group, subscription: Subscription) -> None:
        """Forget a subscription; called by `Subscription.close`. Removing twice does nothing."""
        with self.lock:
            if subscription not in group.members:
                return
            group.members.remove(subscription)
            if subscription in group.checked:
                group.checked.remove(subscription)
            else:
                group.appends[:] = [
                    s.buffer.append for s in group.members if s.policy == "drop_oldest"
                ]
            subscription.end = group.pushed
            if subscription in group.sleeping:
                group.sleeping.remove(subscription)
            if not group.members:
                self._forget(group)
        self._dropped_by_closed += subscription.dropped

    def _forget(self, group: Group) -> None:
        if self._groups.get(group.filter) is not group:
            return
        del self._groups[group.filter]
        key = group.filter.key
        if key is None:
            self._routes.clear()
        elif left := tuple(g for g in self._keyed[key] if g is not group):
            self._keyed[key] = left
        else:
            del self._keyed[key]

    # -- what was
    # --------------------------------------------------------------------------------------------

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
        wanted = Filter.of(patterns, session_id, run_id, tenant, principal)
        with self.lock:
            return [event for event in self._log if wanted.matches(event)]

    def _after(self, wanted: Filter, after: int | str) -> list[Event]:
        own = [event for event in self._log if wanted.concerns(event)]
        # Whose events are not all theirs to see learns of no more than what they see: no count of a
        # stream.
        counter = None if wanted.user_id is not None else self._counter_of(wanted)
        last = max(own[-1].seq if own else 0, counter.seq if counter else 0)
        seq = after if isinstance(after, int) else self._seq_of(after, own, counter)
        if seq is None or seq > last:  # a place in another count: nothing of this one was read
            missed = max(1, own[0].seq - 1 if own else last)
            return [
                self._gap(wanted, missed, "restart"),
                *(event for event in own if wanted.wants(event.type)),
            ]
        events = [event for event in own if event.seq > seq and wanted.wants(event.type)]
        if missed := self._missed(wanted, own, last, seq):
            return [self._gap(wanted, missed, "retention"), *events]
        return events

    def _counter_of(self, wanted: Filter) -> _Counter | None:
        stream = stream_of(wanted.tenant, wanted.session_id or wanted.run_id)
        return self._counters.get(stream) or self._older_counters.get(stream)

    def _seq_of(self, event_id: str, own: list[Event], counter: _Counter | None) -> int | None:
        """Return the sequence number of the event of this id; None when it is unknown."""
        for event in own:
            if event.id == event_id:
                return event.seq
        place, _, seq = event_id.rpartition(":")
        if not seq.isdecimal() or len(seq) > MAX_DIGITS:
            return None
        sources = {event.source for event in own} if counter is None else {counter.source}
        streams = {event.stream for event in own} or {place.rpartition(":")[2]}
        return (
            int(seq)
            if any(place == f"{s}:{stream}" for s in sources for stream in streams)
            else None
        )

    def _gap(self, wanted: Filter, missed: int, reason: str) -> Event:
        data = {"missed": missed, "policy": reason}
        return Event(
            "bus.gap",
            data,
            wanted.run_id,
            wanted.session_id,
            tenant=wanted.tenant,
            source=self.source,
        )

    def _missed(self, wanted: Filter, own: list[Event], last: int, seq: int) -> int:
        if not own:
            return last - seq
        # Retained are the last ones, without holes. A run inside a session does not begin at 1:
        # what came before it is not its own.
        is_whole = wanted.session_id is None and own[0].type == "run.start"
        return 0 if is_whole else max(0, own[0].seq - seq - 1)

    # -- the end
    # ---------------------------------------------------------------------------------------------

    def keep(self, task: asyncio.Task[None], subscription: Subscription) -> None:
        """Hold a handler's task: the loop itself does not."""
        self._tasks[task] = subscription
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def close(self) -> None:
        """End every subscription once what waits has been read. Later events go nowhere."""
        with self.lock:
            self._closed = True
            self._routes.clear()
        for group in list(self._groups.values()):
            for subscription in list(group.members):
                subscription.close()

    async def aclose(self, grace_s: float = 5.0) -> int:
        """`close`, and let handlers finish what waits for `grace_s` seconds.

        Returns how many events were left.
        """
        tasks = {t: s for t, s in self._tasks.items() if t.get_loop() is asyncio.get_running_loop()}
        self.close()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        undone = [task for task in tasks if not task.done()]
        for task in undone:
            task.cancel()
        if undone:
            await asyncio.wait(undone)
        return sum(tasks[task].waiting for task in undone)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
