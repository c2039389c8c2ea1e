"""Define events, which are immutable."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, NoReturn

DEFAULT_TENANT = "default"
"""The tenant of events and calls that name none."""


def stream_of(tenant: str | None, name: str | None) -> str:
    """Return the stream of a session, or of a run without one, of a tenant.

    A `/` in a name is quoted: no name of one tenant is a stream of another.
    """
    if not name:
        return ""
    quoted_name = _quote(name)
    return quoted_name if tenant in (None, DEFAULT_TENANT) else f"{_quote(tenant)}/{quoted_name}"


def _quote(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F") if "/" in name or "%" in name else name


@dataclass(slots=True)
class _EventFields:
    type: str
    data: Any = None
    run_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    occurred_at: float = field(default_factory=time.time)
    tenant: str | None = None
    agent: str = ""
    source: str = ""
    seq: int = 0
    cause: str | None = None
    depth: int = 0
    own_id: str = ""


class Event(_EventFields):
    """Describe an occurrence, as a frozen dataclass.

    Args:
        type: one of `EVENT_TYPES` (`run.end`), or `custom.` and a name of the application's own.
        data: its contents: a `CallbackEvent`, or plain data.
        run_id, session_id, user_id, tenant, agent: its origin, where known; `agent` is the agent's
            name.
        occurred_at: Unix wall-clock seconds.
        source: the bus that published it; stamped by `EventBus.publish`, as `seq`, `cause` and
            `depth` are.
        seq: its number in its stream, from 1, without gaps; 0 before it is published.
        cause: the id of the causing event, or None; `depth` is the length of that chain.
        own_id: a predefined id (a webhook's delivery); otherwise `id` consists of source, stream
            and seq.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Event:  # noqa: D102 - the class's own docstring
        # A frozen dataclass sets each field by object.__setattr__, four times as slow; this one
        # freezes at the end.
        event: Any = _EventFields(*args, **kwargs)
        event.__class__ = cls
        frozen_event: Event = event
        return frozen_event

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass  # made whole by __new__

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field '{name}': an event does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field '{name}': an event does not change")

    def __hash__(self) -> int:
        return hash((self.source, self.seq, self.own_id, self.type, self.occurred_at))

    def __reduce__(self) -> tuple[Any, ...]:
        return Event, tuple(getattr(self, name) for name in _EventFields.__slots__)

    @property
    def stream(self) -> str:
        """Return the scope of `seq`: the tenant's session, else the run, else ""."""
        return stream_of(self.tenant, self.session_id or self.run_id)

    @property
    def id(self) -> str:
        """Return the id, unique and stable over all deliveries."""
        return self.own_id or f"{self.source}:{self.stream}:{self.seq}"


set_source: Any = _EventFields.__dict__["source"].__set__
set_seq: Any = _EventFields.__dict__["seq"].__set__
set_cause: Any = _EventFields.__dict__["cause"].__set__
set_depth: Any = _EventFields.__dict__["depth"].__set__


@dataclass(frozen=True, slots=True)
class Cause:
    """Describe the cause of events in this context: an event's id, and the length of the chain."""

    event_id: str
    depth: int


current_cause: ContextVar[Cause | None] = ContextVar("agent_runtime_current_cause", default=None)
"""Set around the handling of an event, as the cause of events published inside."""
