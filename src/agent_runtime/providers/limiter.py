"""How many calls may be in flight at a provider.

Never more than an account allows, fewer after an overload.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agent_runtime.event_bus import Event
from agent_runtime.providers.errors import headers_of, overloaded, retry_after_s
from agent_runtime.providers.headers import pause_s
from agent_runtime.providers.rate_estimate import Pace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_runtime.event_bus import EventBus

WINDOW_S = 10.0
"""So long without an overload, and the limit is raised by one."""
LONGEST_BLOCK_S = 600.0


class _Waiter:
    """One call that waits for a place; `wake` is safe from any thread."""

    __slots__ = ("granted", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.granted = False


class ProviderAccount:
    """One provider's account. Places are handed on in the order in which they were asked for.

    `limit` is how many calls may be in flight now, None without one; `in_flight` how many are.
    `pace` bounds how often they begin, once the provider has told how often they may.
    """

    def __init__(
        self,
        name: str,
        told: Callable[[ProviderAccount, int | None, str], None],
        base_url: str = "",
    ) -> None:
        self.name = name
        self._told = told
        self.base_url = base_url
        self.maximum: int | None = None
        self.limit: int | None = None
        self.codes: frozenset[int | str] = frozenset()
        self.in_flight = 0
        self.peak = 0
        self.overloads = 0
        self.pace = Pace()
        self._blocked_until_s = self._lowered_s = self._raised_s = 0.0
        self._lock = threading.Lock()
        self._waiters: deque[_Waiter] = deque()

    def allow(self, maximum: int | None, codes: Collection[int | str]) -> None:
        """A template's account settings; the lowest maximum and all codes of several count."""
        self.codes |= frozenset(codes)
        if maximum is not None and (self.maximum is None or maximum < self.maximum):
            self.maximum = maximum
            self.limit = maximum if self.limit is None else min(self.limit, maximum)

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiters)

    # -- a place
    # -------------------------------------------------------------------------------------------

    async def aenter(self) -> Place:
        """A place, after a wait if need be. Cancelling gives it up."""
        with self._lock:
            if not self._waiters and self._free():
                return self._place()
            loop = asyncio.get_running_loop()
            woken = asyncio.Event()
            waiter = _Waiter(lambda: loop.call_soon_threadsafe(woken.set))
            self._waiters.append(waiter)
        try:
            while not self._served(waiter):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._watch_s(waiter)):
                        await woken.wait()
                woken.clear()
        except BaseException:
            self._give_up(waiter)
            raise
        return Place(self)

    def enter(self) -> Place:
        """`aenter` for sync callers; blocks."""
        with self._lock:
            if not self._waiters and self._free():
                return self._place()
            woken = threading.Event()
            waiter = _Waiter(woken.set)
            self._waiters.append(waiter)
        try:
            while not self._served(waiter):
                woken.wait(self._watch_s(waiter))
                woken.clear()
        except BaseException:
            self._give_up(waiter)
            raise
        return Place(self)

    def counted(self) -> Place:
        """A place without a wait, for calls that cannot wait; it counts all the same."""
        with self._lock:
            return self._place()

    def _place(self) -> Place:
        self._begin()
        return Place(self)

    def _begin(self) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.pace.begun(time.monotonic())

    def _free(self) -> bool:
        room = self.limit is None or self.in_flight < self.limit
        return room and self._block_left_s() is None

    def _watch_s(self, waiter: _Waiter) -> float | None:
        """How long to wait for being woken: only the first one watches the clock, for all."""
        with self._lock:
            first = bool(self._waiters) and self._waiters[0] is waiter
        return self._block_left_s() if first else None

    def _block_left_s(self) -> float | None:
        """How long nothing may begin, for a pause or for the pace; None when it may now."""
        if self._blocked_until_s == 0.0 and self.pace.rate is None:
            return None
        now_s = time.monotonic()
        left_s = max(self._blocked_until_s - now_s, self.pace.wait_s(now_s))
        return left_s if left_s > 0 else None

    def _served(self, waiter: _Waiter) -> bool:
        """Hand on what is free, and say whether that waiter has a place now."""
        with self._lock:
            self._hand_on()
            if waiter.granted:
                self._wake_first()
            return waiter.granted

    def _hand_on(self) -> None:
        while self._waiters and self._free():
            waiter = self._waiters.popleft()
            try:
                waiter.wake()
            except RuntimeError:  # its loop is closed: nobody waits there any more
                continue
            waiter.granted = True
            self._begin()

    def _wake_first(self) -> None:
        """The first one watches the clock while the provider asks for a pause.

        It has to know for how long.
        """
        while self._waiters:
            try:
                self._waiters[0].wake()
            except RuntimeError:
                self._waiters.popleft()
            else:
                return

    def _give_up(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.granted:
                self.in_flight -= 1
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            self._hand_on()
            self._wake_first()

    # -- what comes of a call
    # ------------------------------------------------------------------------------

    def left(
        self, place: Place, error: BaseException | None, headers: Mapping[str, str] | None
    ) -> None:
        """A call has ended: its place is free, and the limit follows what the provider said."""
        now = time.monotonic()
        told = None
        is_overload = error is not None and overloaded(error, self.codes)
        asked_s = None if error is None else retry_after_s(error)
        asked_s = None if asked_s is None else min(asked_s, LONGEST_BLOCK_S)
        pause = (
            max(asked_s or 0.0, pause_s(headers_of(error)) or 0.0)
            if error is not None and is_overload
            else 0.0
        )
        with self._lock:
            self.in_flight -= 1
            before = self.limit
            if error is not None and is_overload:
                self.overloads += 1
                if (
                    place.began_s >= self._lowered_s
                ):  # of calls that were in flight together one counts
                    self._lowered_s = self._raised_s = now
                    if not self.pace.refused(error, now, asked_s):
                        self.limit = max(1, (self.limit or self.peak) // 2)
                        told = "overload"
            elif error is None:
                told = self._answered(now)
                pause = max(pause, pause_s(headers or {}, self.in_flight) or 0.0)
            self._block(pause)
            self._hand_on()
            self._wake_first()
        if told is not None and self.limit != before:
            self._told(self, before, told)

    def _answered(self, now: float) -> str | None:
        self.pace.answered(now, WINDOW_S)
        if self.limit is None or now - self._raised_s < WINDOW_S:
            return None
        self._raised_s = now
        if self.maximum is not None and self.limit >= self.maximum:
            return None
        self.limit += 1
        return "clean window"

    def _block(self, seconds: float | None) -> None:
        if seconds:
            until_s = time.monotonic() + min(seconds, LONGEST_BLOCK_S)
            self._blocked_until_s = max(self._blocked_until_s, until_s)

    def status(self) -> dict[str, Any]:
        """The account in numbers."""
        return {
            "provider": self.name,
            "limit": self.limit,
            "in_flight": self.in_flight,
            "waiting": len(self._waiters),
            "overloads": self.overloads,
            "blocked_s": round(self._block_left_s() or 0.0, 3),
            "calls_per_s": None if self.pace.rate is None else round(self.pace.rate, 3),
        }


class Place:
    """One call's place; it is left once."""

    __slots__ = ("_account", "began_s")

    def __init__(self, account: ProviderAccount) -> None:
        self._account: ProviderAccount | None = account
        self.began_s = time.monotonic()

    def leave(
        self, error: BaseException | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """The call has ended, with `error` if it failed; `headers` are the provider's answer's."""
        account = self._account
        self._account = None
        if account is not None:
            account.left(self, error, headers)


_ADDRESSES = (
    "base_url", "openai_api_base", "anthropic_api_url", "azure_endpoint", "groq_api_base",
    "fireworks_api_base",
    "mistral_api_url", "openrouter_api_base", "xai_api_base", "api_base", "endpoint_url",
    "endpoint",
)  # fmt: skip
"""What chat models call the address of their server."""


def address_of(model: BaseChatModel) -> str:
    """Return the address of the model's server, empty where its client knows it by itself."""
    for name in _address_fields(type(model)):
        if address := getattr(model, name):
            return str(address)
    return ""


@lru_cache(maxsize=256)
def _address_fields(kind: type[BaseChatModel]) -> tuple[str, ...]:
    # Asking a pydantic model for an attribute that it has not takes 7 us, and there are twelve
    # names.
    return tuple(name for name in _ADDRESSES if name in kind.model_fields or hasattr(kind, name))


class ProviderLimiter:
    """The accounts of a process, by provider, address and key.

    Each change of a limit is told to the buses given.
    """

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str, str], ProviderAccount] = {}
        self._lock = threading.Lock()
        self._buses: weakref.WeakSet[EventBus] = weakref.WeakSet()

    def account(self, provider: str, base_url: str = "", key: str = "") -> ProviderAccount:
        """The account behind `key`, which is a digest of the credential; made at its first use."""
        place = (provider, base_url, key)
        with self._lock:
            if place not in self._accounts:
                name = f"{provider}@{base_url}" if base_url else provider
                self._accounts[place] = ProviderAccount(
                    f"{name}#{key[:6]}" if key else name, self._changed, base_url
                )
            return self._accounts[place]

    def account_of(self, model: BaseChatModel) -> ProviderAccount:
        """The account that a model's calls count on.

        Its provider, its address, and a digest of its key.
        """
        provider = str(model._get_ls_params().get("ls_provider") or "unknown")
        address = address_of(model)
        secrets: list[Any] = [getattr(model, name, None) for name in sorted(model.lc_secrets)]
        shown = [
            each.get_secret_value() if hasattr(each, "get_secret_value") else each
            for each in secrets
        ]
        digest = hashlib.sha256(repr(shown).encode()).hexdigest() if any(shown) else ""
        return self.account(provider, address, digest)

    def tell(self, bus: EventBus) -> None:
        """Publish changes there."""
        self._buses.add(bus)

    def status(self) -> list[dict[str, Any]]:
        """Every account."""
        return [account.status() for account in list(self._accounts.values())]

    def _changed(self, account: ProviderAccount, before: int | None, why: str) -> None:
        data = {
            "provider": account.name,
            "limit": account.limit,
            "why": why,
            **({"before": before} if before else {}),
        }
        for bus in list(self._buses):
            bus.publish(Event("provider.limit", data))


PROVIDERS = ProviderLimiter()
"""One for the process: an account is the same, whichever factory, pool or batch calls it."""
