"""Match, count and wake subscribers with equal filters together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.event import DEFAULT_TENANT, Event
from agent_runtime.types import ALL_SESSIONS

if TYPE_CHECKING:
    from agent_runtime.types import Principal


MAX_PATTERNS = 100
MAX_PATTERN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Select events: types by `fnmatch` patterns, and other fields exactly, where set.

    Two tenants may use one session or run id, so a filter by either has a tenant; events without
    one belong to `default`.
    """

    patterns: tuple[str, ...] = ("*",)
    session_id: str | None = None
    run_id: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    requires_tenant: bool = False
    """Whether the event must name the tenant.

    Events without one are the application's, and no principal's.
    """

    @classmethod
    def of(
        cls,
        patterns: tuple[str, ...],
        session_id: str | None,
        run_id: str | None,
        tenant: str | None,
        principal: Principal | None,
    ) -> Self:
        """Return the requested filter, restricted to what `principal` may see.

        That is their own events or, with the scope `sessions:all`, their tenant's.
        """
        user_id = None
        if principal is not None:
            tenant = principal.tenant
            user_id = None if ALL_SESSIONS in principal.scopes else principal.id
        elif tenant is None and (session_id is not None or run_id is not None):
            tenant = DEFAULT_TENANT
        _check_patterns(patterns)
        return cls(patterns or ("*",), session_id, run_id, tenant, user_id, principal is not None)

    @property
    def key(self) -> str | None:
        """Return the key that its events are indexed by, or None for all events."""
        return self.session_id or self.run_id or self.tenant

    def matches_type(self, event_type: str) -> bool:
        """Return whether one of the patterns matches."""
        return any(fnmatchcase(event_type, pattern) for pattern in self.patterns)

    def matches_scope(self, event: Event) -> bool:
        """Return whether the event is of the requested session, run, tenant and user."""
        return (
            (self.session_id is None or event.session_id == self.session_id)
            and (self.run_id is None or event.run_id == self.run_id)
            and (self.tenant is None or self._tenant_of(event) == self.tenant)
            and (self.user_id is None or event.user_id == self.user_id)
        )

    def _tenant_of(self, event: Event) -> str | None:
        return event.tenant if self.requires_tenant else event.tenant or DEFAULT_TENANT

    def matches(self, event: Event) -> bool:
        """Return whether the subscriber gets this event."""
        return self.matches_scope(event) and self.matches_type(event.type)


def _check_patterns(patterns: tuple[str, ...]) -> None:
    """Raise ConfigurationError for too many or too long patterns."""
    if len(patterns) > MAX_PATTERNS or any(
        len(pattern) > MAX_PATTERN_CHARS for pattern in patterns
    ):
        raise ConfigurationError(
            f"a subscription has at most {MAX_PATTERNS} patterns of {MAX_PATTERN_CHARS} characters"
        )


class Subscriber(Protocol):
    """A member of a group: its buffer, and how it is woken."""

    buffer: deque[Event]

    @property
    def full(self) -> bool:
        """Return whether there is no room for the next event."""

    def wake(self) -> None:
        """Wake a waiting reader."""


S = TypeVar("S", bound=Subscriber)


class Group(Generic[S]):
    """The subscribers with the same filter: matched, counted and woken together."""

    __slots__ = (
        "_type_matches",
        "capacity_checked",
        "fast_appenders",
        "filter",
        "members",
        "pushed_count",
        "waiters",
    )

    def __init__(self, event_filter: Filter) -> None:
        self.filter = event_filter
        self.pushed_count = 0
        self._type_matches: dict[str, bool] = {}
        self.members: list[S] = []
        self.fast_appenders: list[Callable[[Event], None]] = []
        """Of the buffers that make room by themselves: a bounded deque drops its oldest."""
        self.capacity_checked: list[S] = []
        self.waiters: list[S] = []

    def matches_type(self, event_type: str) -> bool:
        """Return `Filter.matches_type`, cached."""
        is_match = self._type_matches.get(event_type)
        if is_match is None:
            is_match = self._type_matches[event_type] = self.filter.matches_type(event_type)
        return is_match

    def push(self, event: Event) -> None:
        """Append `event` to every buffer and wake waiting readers. The bus's lock is held."""
        for append in self.fast_appenders:
            append(event)
        if self.capacity_checked:
            for subscription in self.capacity_checked:
                if not subscription.full:
                    subscription.buffer.append(event)
        self.pushed_count += (
            1  # last, so that a reader without the lock never counts too many as missing
        )
        if self.waiters:
            waiters = self.waiters
            self.waiters = []
            for subscription in waiters:
                subscription.wake()
