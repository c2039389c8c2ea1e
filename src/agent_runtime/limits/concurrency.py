"""Limit how many calls run at once, in memory or on Redis."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from agent_runtime.auth.caller_names import caller_of
from agent_runtime.errors import ConfigurationError, StoreError
from agent_runtime.limits.rate_limits import check_parts, key_of
from agent_runtime.storage import RedisConnection, StoreUrl
from agent_runtime.storage.operations import Steps, steps_operation
from agent_runtime.types import AgentContext


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """Limit concurrent calls to `calls` for each user, tenant, key, template, or combination.

    `global` is for all together. Raises ConfigurationError for an invalid limit.
    """

    calls: int
    per: tuple[str, ...] = ("global",)

    def __post_init__(self) -> None:
        if isinstance(self.calls, bool) or self.calls < 1:
            raise ConfigurationError(f"at least 1 call runs at once, not {self.calls}")
        check_parts(self.per)

    def __str__(self) -> str:
        return f"{self.calls} at once" + (
            "" if self.per == ("global",) else f" per {' and '.join(self.per)}"
        )


class Permit(NamedTuple):
    """Hold one of `amount` permits under `key`; `limit` is the limit's text."""

    key: str
    amount: int
    limit: str


def permits_of(limits: tuple[ConcurrencyLimit, ...], context: AgentContext) -> list[Permit]:
    """Return the permits that a call needs."""
    caller = caller_of(context)
    keys = ((limit, key_of(limit.per, caller)) for limit in limits)
    permits = [
        Permit(f"{key}/at-once:{limit.calls}", limit.calls, str(limit))
        for limit, key in keys
        if key is not None
    ]
    return list(
        {permit.key: permit for permit in permits}.values()
    )  # a limit that is stated twice counts once


class ConcurrencyStore(Protocol):
    """Count permits.

    A holder has one for all of its keys or, if one is exhausted, none. `lease_s` is how long they
    last without `renew`; None when renewing is not needed.
    """

    lease_s: float | None

    def acquire(self, permits: Sequence[Permit], holder: str) -> Awaitable[Permit | None]:
        """Take all permits, or return the first that is exhausted. Raises StoreError."""

    async def release(self, permits: Sequence[Permit], holder: str) -> None:
        """Release the permits, or start to; never fails."""

    def renew(self, permits: Sequence[Permit], holder: str) -> Awaitable[None]:
        """Keep them for another `lease_s`; raises StoreError."""

    async def aclose(self) -> None:
        """Close the store."""


class MemoryConcurrencyStore:
    """Count permits in this process."""

    lease_s: float | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage_by_key = Counter[str]()

    async def acquire(self, permits: Sequence[Permit], holder: str) -> Permit | None:
        """Take all permits, or return the first that is exhausted."""
        with self._lock:
            for permit in permits:
                if self._usage_by_key[permit.key] >= permit.amount:
                    return permit
            self._usage_by_key.update(permit.key for permit in permits)
        return None

    async def release(self, permits: Sequence[Permit], holder: str) -> None:
        """Release the permits."""
        with self._lock:
            for permit in permits:
                self._usage_by_key[permit.key] -= 1
                if self._usage_by_key[permit.key] <= 0:
                    del self._usage_by_key[permit.key]

    async def renew(self, permits: Sequence[Permit], holder: str) -> None:
        """Do nothing: permits last until their release."""

    @property
    def usage_by_key(self) -> dict[str, int]:
        """Return how many permits are in use, by key."""
        return dict(self._usage_by_key)

    async def aclose(self) -> None:
        """Do nothing: there is no resource to close."""


_ACQUIRE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder, lease, only = ARGV[1], tonumber(ARGV[2]), ARGV[3]
for n, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
  if only == '' and not redis.call('ZSCORE', key, holder)
    and redis.call('ZCARD', key) >= tonumber(ARGV[3 + n]) then return n end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format('%.0f', now + lease), holder)
  redis.call('PEXPIRE', key, string.format('%.0f', lease * 2))
end
return 0
"""
"""A repetition by a holder that has its permit succeeds: its reply may have been lost.

ARGV[3] 'renew' does not count.
"""


class RedisConcurrencyStore(RedisConnection):
    """Count permits that processes share; those of a dead process return when their lease ends.

    Takes RedisConnection's arguments.
    """

    lease_s: float | None = 30.0

    def __init__(self, url: str | StoreUrl, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._release_tasks: set[asyncio.Task[None]] = set()

    async def acquire(self, permits: Sequence[Permit], holder: str) -> Permit | None:
        """Take all permits, or return the first that is exhausted. Raises StoreError."""
        await self._wait_for_releases()
        number = await self._hold(permits, holder, "")
        return permits[number - 1] if number else None

    async def renew(self, permits: Sequence[Permit], holder: str) -> None:
        """Keep them for another lease; raises StoreError."""
        await self._hold(permits, holder, "renew")

    async def release(self, permits: Sequence[Permit], holder: str) -> None:
        """Start to release permits: the caller does not wait, but the next acquire here does."""
        release_task = asyncio.create_task(self._release_now(permits, holder))
        self._release_tasks.add(release_task)
        release_task.add_done_callback(self._release_tasks.discard)

    async def aclose(self) -> None:
        """Finish releasing permits, and close."""
        await self._wait_for_releases()
        await super().aclose()

    async def _wait_for_releases(self) -> None:
        loop = asyncio.get_running_loop()
        if loop_releases := [task for task in self._release_tasks if task.get_loop() is loop]:
            await asyncio.wait(loop_releases)

    async def _release_now(self, permits: Sequence[Permit], holder: str) -> None:
        with suppress(StoreError):  # the lease ends by itself
            await self._give_back(permits, holder)

    @steps_operation
    def _hold(self, permits: Sequence[Permit], holder: str, renew: str) -> Steps[int]:
        args = [
            holder,
            int((self.lease_s or 0) * 1000),
            renew,
            *(permit.amount for permit in permits),
        ]
        return int((yield _ACQUIRE, [self._key(permit) for permit in permits], args))

    @steps_operation
    def _give_back(self, permits: Sequence[Permit], holder: str) -> Steps[None]:
        yield [("zrem", self._key(permit), holder) for permit in permits]

    def _key(self, permit: Permit) -> str:
        return f"{self.prefix}:{{limits}}:{permit.key}"
