"""What subscribers want, and those who want the same: matched, counted and woken together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.event import DEFAULT_TENANT, Event
from agent_runtime.types import ALL_SESSIONS

if TYPE_CHECKING:
    from agent_runtime.event_bus.subscription import Subscription
    from agent_runtime.types import Principal


MAX_PATTERNS = 100
MAX_PATTERN = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """What a subscriber wants: types by `fnmatch` patterns, and the rest exactly, where given.

    Two tenants may use one session or run id, so a filter by either has a tenant; `default` is
    whose everything is that names none.
    """

    patterns: tuple[str, ...] = ("*",)
    session_id: str | None = None
    run_id: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    is_named: bool = False
    """Whether an event has to name the tenant.

    What names none is the application's own, and no principal's.
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
        """Return the filter of what was asked for, within what `principal` may see.

        Those are their own events or, with the scope `sessions:all`, their tenant's.
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
        """What its events are found by, or None when they may be anybody's."""
        return self.session_id or self.run_id or self.tenant

    def wants(self, event_type: str) -> bool:
        """Whether one of the patterns matches."""
        return any(fnmatchcase(event_type, pattern) for pattern in self.patterns)

    def concerns(self, event: Event) -> bool:
        """Whether it is an event of the session, run, tenant and user asked for."""
        return (
            (self.session_id is None or event.session_id == self.session_id)
            and (self.run_id is None or event.run_id == self.run_id)
            and (self.tenant is None or self._tenant_of(event) == self.tenant)
            and (self.user_id is None or event.user_id == self.user_id)
        )

    def _tenant_of(self, event: Event) -> str | None:
        return event.tenant if self.is_named else event.tenant or DEFAULT_TENANT

    def matches(self, event: Event) -> bool:
        """Whether the subscriber gets this event."""
        return self.concerns(event) and self.wants(event.type)


def _check_patterns(patterns: tuple[str, ...]) -> None:
    """Raise ConfigurationError for too many or too long patterns."""
    if len(patterns) > MAX_PATTERNS or any(len(each) > MAX_PATTERN for each in patterns):
        raise ConfigurationError(
            f"a subscription has at most {MAX_PATTERNS} patterns of {MAX_PATTERN} characters"
        )


class Group:
    """The subscribers with the same filter: matched, counted and woken together."""

    __slots__ = ("_known", "appends", "checked", "filter", "members", "pushed", "sleeping")

    def __init__(self, wanted: Filter) -> None:
        self.filter = wanted
        self.pushed = 0
        self._known: dict[str, bool] = {}
        self.members: list[Subscription] = []
        self.appends: list[Callable[[Event], None]] = []
        """Of the buffers that make room by themselves: a bounded deque drops its oldest."""
        self.checked: list[Subscription] = []
        self.sleeping: list[Subscription] = []

    def wants(self, event_type: str) -> bool:
        """`Filter.wants`, remembered."""
        known = self._known.get(event_type)
        if known is None:
            known = self._known[event_type] = self.filter.wants(event_type)
        return known

    def push(self, event: Event) -> None:
        """Append `event` to every buffer, and wake who waits for one. The bus's lock is held."""
        for append in self.appends:
            append(event)
        if self.checked:
            for subscription in self.checked:
                if not subscription.full:
                    subscription.buffer.append(event)
        self.pushed += 1  # last: what a reader finds missing without the lock is never too much
        if self.sleeping:
            sleeping = self.sleeping
            self.sleeping = []
            for subscription in sleeping:
                subscription.wake()
