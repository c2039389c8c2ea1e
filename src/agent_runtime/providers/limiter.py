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
from agent_runtime.providers.errors import headers_of, is_overloaded, retry_after_s
from agent_runtime.providers.headers import pause_s
from agent_runtime.providers.rate_estimate import RateEstimator

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_runtime.event_bus import EventBus

RAISE_AFTER_S = 10.0
"""So long without an overload, and the limit is raised by one."""
MAX_PAUSE_S = 600.0


class _Waiter:
    """Wait for a permit; `wake` is safe from any thread."""

    __slots__ = ("granted", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.granted = False


class ProviderAccount:
    """Limit the calls of one provider's account; permits are granted in the order of requests.

    `limit` is how many calls may be in flight, None without one; `in_flight` how many are.
    `rate_estimator` bounds how often they start, once the provider has revealed a rate.
    """

    def __init__(
        self,
        name: str,
        on_limit_change: Callable[[ProviderAccount, int | None, str], None],
        base_url: str = "",
    ) -> None:
        self.name = name
        self._on_limit_change = on_limit_change
        self.base_url = base_url
        self.maximum: int | None = None
        self.limit: int | None = None
        self.codes: frozenset[int | str] = frozenset()
        self.in_flight = 0
        self.peak = 0
        self.overloads = 0
        self.rate_estimator = RateEstimator()
        self._paused_until = self._lowered_at = self._raised_at = 0.0
        self._lock = threading.Lock()
        self._waiters: deque[_Waiter] = deque()

    def allow(self, maximum: int | None, codes: Collection[int | str]) -> None:
        """Apply a template's account settings: the lowest maximum and the codes of all of them."""
        self.codes |= frozenset(codes)
        if maximum is not None and (self.maximum is None or maximum < self.maximum):
            self.maximum = maximum
            self.limit = maximum if self.limit is None else min(self.limit, maximum)

    @property
    def waiting(self) -> int:
        """Return how many calls wait for a permit."""
        return len(self._waiters)

    async def aacquire(self) -> Permit:
        """Acquire a permit, after a wait if necessary. Cancelling gives it up."""
        with self._lock:
            if not self._waiters and self._has_capacity():
                return self._acquire_locked()
            loop = asyncio.get_running_loop()
            woken = asyncio.Event()
            waiter = _Waiter(lambda: loop.call_soon_threadsafe(woken.set))
            self._waiters.append(waiter)
        try:
            while not self._try_grant(waiter):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wake_timeout_s(waiter)):
                        await woken.wait()
                woken.clear()
        except BaseException:
            self._cancel_wait(waiter)
            raise
        return Permit(self)

    def acquire(self) -> Permit:
        """Acquire a permit for sync callers; blocks."""
        with self._lock:
            if not self._waiters and self._has_capacity():
                return self._acquire_locked()
            woken = threading.Event()
            waiter = _Waiter(woken.set)
            self._waiters.append(waiter)
        try:
            while not self._try_grant(waiter):
                woken.wait(self._wake_timeout_s(waiter))
                woken.clear()
        except BaseException:
            self._cancel_wait(waiter)
            raise
        return Permit(self)

    def acquire_nowait(self) -> Permit:
        """Acquire a permit without waiting, for calls that cannot wait; it is counted."""
        with self._lock:
            return self._acquire_locked()

    def _acquire_locked(self) -> Permit:
        self._count_start()
        return Permit(self)

    def _count_start(self) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.rate_estimator.on_start(time.monotonic())

    def _has_capacity(self) -> bool:
        is_below_limit = self.limit is None or self.in_flight < self.limit
        return is_below_limit and self._pause_remaining_s() is None

    def _wake_timeout_s(self, waiter: _Waiter) -> float | None:
        """Return the longest wait for a wake-up; only the first waiter watches the clock."""
        with self._lock:
            first = bool(self._waiters) and self._waiters[0] is waiter
        return self._pause_remaining_s() if first else None

    def _pause_remaining_s(self) -> float | None:
        """Return the seconds until calls may start, after a pause or by the rate; None for now."""
        if self._paused_until == 0.0 and self.rate_estimator.rate is None:
            return None
        now_s = time.monotonic()
        remaining_s = max(self._paused_until - now_s, self.rate_estimator.wait_s(now_s))
        return remaining_s if remaining_s > 0 else None

    def _try_grant(self, waiter: _Waiter) -> bool:
        """Grant free permits; return whether that waiter has one."""
        with self._lock:
            self._grant_waiters()
            if waiter.granted:
                self._wake_first_waiter()
            return waiter.granted

    def _grant_waiters(self) -> None:
        while self._waiters and self._has_capacity():
            waiter = self._waiters.popleft()
            try:
                waiter.wake()
            except RuntimeError:  # its loop is closed, so there is no waiter
                continue
            waiter.granted = True
            self._count_start()

    def _wake_first_waiter(self) -> None:
        """Wake the first waiter, which watches the clock, to update its timeout."""
        while self._waiters:
            try:
                self._waiters[0].wake()
            except RuntimeError:
                self._waiters.popleft()
            else:
                return

    def _cancel_wait(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.granted:
                self.in_flight -= 1
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            self._grant_waiters()
            self._wake_first_waiter()

    def _on_call_end(
        self, permit: Permit, error: BaseException | None, headers: Mapping[str, str] | None
    ) -> None:
        """Release a call's permit, and adapt the limit to the provider's answer."""
        now = time.monotonic()
        change_reason = None
        is_overload = error is not None and is_overloaded(error, self.codes)
        requested_pause_s = None if error is None else retry_after_s(error)
        requested_pause_s = (
            None if requested_pause_s is None else min(requested_pause_s, MAX_PAUSE_S)
        )
        pause_for_s = (
            max(requested_pause_s or 0.0, pause_s(headers_of(error)) or 0.0)
            if error is not None and is_overload
            else 0.0
        )
        with self._lock:
            self.in_flight -= 1
            previous_limit = self.limit
            if error is not None and is_overload:
                self.overloads += 1
                if (
                    permit.acquired_at >= self._lowered_at
                ):  # of calls that were in flight together one counts
                    self._lowered_at = self._raised_at = now
                    if not self.rate_estimator.on_reject(error, now, requested_pause_s):
                        self.limit = max(1, (self.limit or self.peak) // 2)
                        change_reason = "overload"
            elif error is None:
                change_reason = self._on_success(now)
                pause_for_s = max(pause_for_s, pause_s(headers or {}, self.in_flight) or 0.0)
            self._pause_for(pause_for_s)
            self._grant_waiters()
            self._wake_first_waiter()
        if change_reason is not None and self.limit != previous_limit:
            self._on_limit_change(self, previous_limit, change_reason)

    def _on_success(self, now: float) -> str | None:
        self.rate_estimator.on_success(now, RAISE_AFTER_S)
        if self.limit is None or now - self._raised_at < RAISE_AFTER_S:
            return None
        self._raised_at = now
        if self.maximum is not None and self.limit >= self.maximum:
            return None
        self.limit += 1
        return "clean window"

    def _pause_for(self, seconds: float | None) -> None:
        if seconds:
            paused_until = time.monotonic() + min(seconds, MAX_PAUSE_S)
            self._paused_until = max(self._paused_until, paused_until)

    def status(self) -> dict[str, Any]:
        """Return the account's figures."""
        return {
            "provider": self.name,
            "limit": self.limit,
            "in_flight": self.in_flight,
            "waiting": len(self._waiters),
            "overloads": self.overloads,
            "blocked_s": round(self._pause_remaining_s() or 0.0, 3),
            "calls_per_s": None
            if self.rate_estimator.rate is None
            else round(self.rate_estimator.rate, 3),
        }


class Permit:
    """Hold one call's permit, which is released once."""

    __slots__ = ("_account", "acquired_at")

    def __init__(self, account: ProviderAccount) -> None:
        self._account: ProviderAccount | None = account
        self.acquired_at = time.monotonic()

    def release(
        self, error: BaseException | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Release the permit after a call, with its `error` and the answer's `headers`."""
        account = self._account
        self._account = None
        if account is not None:
            account._on_call_end(self, error, headers)


_ADDRESS_FIELDS = (
    "base_url", "openai_api_base", "anthropic_api_url", "azure_endpoint", "groq_api_base",
    "fireworks_api_base",
    "mistral_api_url", "openrouter_api_base", "xai_api_base", "api_base", "endpoint_url",
    "endpoint",
)  # fmt: skip
"""Names of the server's address in chat models."""


def address_of(model: BaseChatModel) -> str:
    """Return the address of the model's server, empty where its client knows it by itself."""
    for name in _address_fields(type(model)):
        if address := getattr(model, name):
            return str(address)
    return ""


@lru_cache(maxsize=256)
def _address_fields(kind: type[BaseChatModel]) -> tuple[str, ...]:
    # A missing attribute of a pydantic model takes 7 us, and there are twelve names.
    return tuple(
        name for name in _ADDRESS_FIELDS if name in kind.model_fields or hasattr(kind, name)
    )


class ProviderLimiter:
    """Hold the accounts of a process, by provider, address and key.

    Changes of limits are published on the registered buses.
    """

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str, str], ProviderAccount] = {}
        self._lock = threading.Lock()
        self._buses: weakref.WeakSet[EventBus] = weakref.WeakSet()

    def account(self, provider: str, base_url: str = "", key: str = "") -> ProviderAccount:
        """Return the account of `key`, a digest of the credential; created at its first use."""
        account_key = (provider, base_url, key)
        with self._lock:
            if account_key not in self._accounts:
                name = f"{provider}@{base_url}" if base_url else provider
                self._accounts[account_key] = ProviderAccount(
                    f"{name}#{key[:6]}" if key else name, self._publish_change, base_url
                )
            return self._accounts[account_key]

    def account_of(self, model: BaseChatModel) -> ProviderAccount:
        """Return the account of a model: its provider, its address, and a digest of its key."""
        provider = str(model._get_ls_params().get("ls_provider") or "unknown")
        address = address_of(model)
        secrets: list[Any] = [getattr(model, name, None) for name in sorted(model.lc_secrets)]
        secret_values = [
            secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret
            for secret in secrets
        ]
        digest = (
            hashlib.sha256(repr(secret_values).encode()).hexdigest() if any(secret_values) else ""
        )
        return self.account(provider, address, digest)

    def add_bus(self, bus: EventBus) -> None:
        """Publish changes there."""
        self._buses.add(bus)

    def status(self) -> list[dict[str, Any]]:
        """Return every account's figures."""
        return [account.status() for account in list(self._accounts.values())]

    def _publish_change(
        self, account: ProviderAccount, previous_limit: int | None, reason: str
    ) -> None:
        data = {
            "provider": account.name,
            "limit": account.limit,
            "reason": reason,
            **({"before": previous_limit} if previous_limit else {}),
        }
        for bus in list(self._buses):
            bus.publish(Event("provider.limit", data))


PROVIDERS = ProviderLimiter()
"""One for the process: an account is the same, whichever factory, pool or batch calls it."""
