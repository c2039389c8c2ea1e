"""Rate limits: how many calls in a window, for whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, cast

from agent_runtime.auth.caller_names import PARTS, Part, caller_of, part_name
from agent_runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from agent_runtime.auth.caller_names import Caller
    from agent_runtime.types import AgentContext

MAX_IN_WINDOW = 100_000
"""A sliding window stores the time of each call in it."""
UNIT_SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "month": 30 * 86_400,
    "year": 360 * 86_400,
}
_RATE = (
    r"(?P<amount>\d{1,9})\s*(?:/|\s+per\s+)\s*"
    rf"(?:(?P<multiple>[1-9]\d{{0,5}})\s*)?(?P<unit>{'|'.join(UNIT_SECONDS)})s?"
)
_LIMIT = re.compile(
    rf"\s*(?P<rate>{_RATE})(?:\s+per\s+(?P<parts>[a-z]+(?:\s*(?:,|\band\b)\s*[a-z]+)*))?\s*"
)


class Window(NamedTuple):
    """At most `amount` admissions in any `window_s` seconds, counted under `key`.

    `limit` is its text.
    """

    key: str
    amount: int
    window_s: int
    limit: str


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


KeyedLimit = TypeVar("KeyedLimit", bound=_Keyed)
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Limit the calls in any window, per user, tenant, key, template or session.

    `rate` is `60/minute` or `5 per 10 seconds`; a month has 30 days and a year 360. `per` names the
    parts; `global` is one window for all. `RateLimit.parse("60/minute per user")` reads a text. A
    user belongs to a tenant, which is part of the user's name. Raises ConfigurationError for an
    invalid limit.

    A caller without a key counts, per key, as the user. A limit per session does not count calls
    without one: add one per user.
    """

    rate: str
    per: tuple[str, ...] = ("global",)
    amount: int = field(init=False, repr=False, compare=False)
    window_s: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (match := re.fullmatch(_RATE, self.rate)) is None:
            raise ConfigurationError(f"'{self.rate}' is not a rate: 60/minute, or 5 per 10 seconds")
        window_s = int(match["multiple"] or 1) * UNIT_SECONDS[match["unit"]]
        object.__setattr__(self, "amount", int(match["amount"]))
        object.__setattr__(self, "window_s", window_s)
        if not 1 <= self.amount <= MAX_IN_WINDOW:
            raise ConfigurationError(
                f"a rate limit allows 1 to {MAX_IN_WINDOW} calls, not '{self.rate}'"
            )
        check_parts(self.per)

    @classmethod
    def parse(cls, text: str) -> RateLimit:
        """Parse `60/minute per user`, `1000/hour per tenant and template`, or `10/second`."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ConfigurationError(
                f"'{text}' is not a rate limit: 60/minute per user, or 5 per 10 seconds"
            )
        parts = match["parts"]
        return cls(
            match["rate"],
            ("global",) if parts is None else tuple(re.split(r"\s*(?:,|\band\b)\s*", parts)),
        )

    @classmethod
    def parse_many(cls, limits: str | Iterable[RateLimit | str]) -> list[RateLimit]:
        """Parse limits of any form; a text may have several, separated by `;`."""
        if isinstance(limits, str):
            return [cls.parse(text) for text in limits.split(";") if text.strip()]
        return [
            rate_limit
            for limit_or_text in limits
            for rate_limit in (
                [limit_or_text]
                if isinstance(limit_or_text, RateLimit)
                else cls.parse_many(limit_or_text)
            )
        ]

    def __str__(self) -> str:
        return self.rate if self.per == ("global",) else f"{self.rate} per {' and '.join(self.per)}"


def windows_of(limits: tuple[RateLimit, ...], context: AgentContext) -> list[Window]:
    """Return the windows that a call counts in; one by a missing part (a session) is left out."""
    caller = caller_of(context)
    windows: dict[str, Window] = {}  # a limit that is stated twice counts once
    for limit in limits:
        if (key := key_of(limit.per, caller)) is not None:
            name = f"{key}/{limit.amount}:{limit.window_s}"
            windows[name] = Window(name, limit.amount, limit.window_s, str(limit))
    return list(windows.values())


def check_parts(per: Iterable[str]) -> None:
    """Raise ConfigurationError for parts that a limit cannot be per."""
    parts = list(per)
    if not parts or not set(parts) <= set(PARTS):
        raise ConfigurationError(
            f"a limit is per one of {', '.join(PARTS)}, or several, not {parts}"
        )


def key_of(per: tuple[str, ...], caller: Caller) -> str | None:
    """Return the key a call is counted under by a limit, or None when it lacks a part of that."""
    names = [part_name(cast("Part", part), caller) for part in per]
    return (
        None
        if None in names
        else "/".join(f"{part}={name}" for part, name in zip(per, names, strict=True))
    )


class LimitKeys(Generic[KeyedLimit]):
    """Build the keys of calls for some limits.

    They are cached for each caller, because quoting names is slow. `build_keys` returns a call's
    keys: `windows_of`, `permits_of`.
    """

    def __init__(
        self,
        limits: tuple[Any, ...],
        build_keys: Callable[[tuple[Any, ...], AgentContext], list[KeyedLimit]],
    ) -> None:
        self._limits = limits
        self._build_keys = build_keys
        self._by_session = any("session" in limit.per for limit in limits)
        self._cache: dict[tuple[Any, ...], list[KeyedLimit]] = {}

    def keys_for(self, context: AgentContext, outer_keys: frozenset[str]) -> list[KeyedLimit]:
        """Return a call's keys, without those that the outer calls are counted under."""
        principal = context.principal
        session = context.session_id if self._by_session else None
        principal_key = () if principal is None else (principal.tenant, principal.id, principal.key)
        cache_key = (principal_key, context.agent_name, session)
        limit_keys = self._cache.get(cache_key)
        if limit_keys is None:
            if len(self._cache) >= MAX_REMEMBERED:
                self._cache.clear()
            limit_keys = self._cache[cache_key] = self._build_keys(self._limits, context)
        return (
            [limit_key for limit_key in limit_keys if limit_key.key not in outer_keys]
            if outer_keys
            else limit_keys
        )
