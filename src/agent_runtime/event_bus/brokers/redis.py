"""A broker on Redis Streams, or Valkey's: consumer groups, one reader of each at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from agent_runtime.errors import InputInvalid
from agent_runtime.event_bus.brokers.broker import Start, Stored
from agent_runtime.event_bus.brokers.group_reader import LeasedGroups
from agent_runtime.event_bus.brokers.validation import stamped
from agent_runtime.event_bus.cloud_event import encoded, read_event
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.storage import RedisConnection, StoreUrl

BATCH_KEPT_S = 600
"""How long the same batch, sent again because an answer was lost, is known to have arrived."""
READER = "reader"
"""The one consumer of a group as Redis knows it: what is pending belongs to whoever has the lease.
"""

_PUBLISH = f"""
if redis.call('EXISTS', KEYS[2]) == 0 then
  for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
  -- last: a script that fails takes nothing back
  redis.call('SET', KEYS[2], '1', 'EX', {BATCH_KEPT_S})
end
return redis.call('XLEN', KEYS[1])
"""
_CLAIM = """
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local known = false
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if group[2] == ARGV[3] then known = true end
  end
end
if not known then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[3], ARGV[4], 'MKSTREAM') end
return 1
"""
_FETCH = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
return redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[5], 'COUNT', ARGV[3], 'STREAMS', KEYS[1],
  ARGV[4])
"""
_SETTLE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
for i = 3, #ARGV do redis.call('XACK', KEYS[1], ARGV[2], ARGV[i]) end
return 1
"""
_RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)
# A step of at most 1,000: a server stands still while a script runs.
_TRIM = """
local excess = redis.call('XLEN', KEYS[1]) - ARGV[1]
if excess <= 0 then return 0 end
local function before(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
  return a1 < b1 or (a1 == b1 and a2 < b2)
end
local slowest, pending = nil, false
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local oldest = redis.call('XPENDING', KEYS[1], group[2])
  local at, open = group[8], false
  if oldest[1] > 0 then at, open = oldest[2], true end
  if not slowest or before(at, slowest) or (at == slowest and open) then slowest, pending = at,
    open end
end
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(excess, 1000))
local removed = 0
for _, entry in ipairs(entries) do
  local id = entry[1]
  if slowest and not (before(id, slowest) or (id == slowest and not pending)) then break end
  redis.call('XDEL', KEYS[1], id)
  removed = removed + 1
end
return removed
"""


class RedisBroker(LeasedGroups, RedisConnection):
    """A `Broker` on one Redis stream, `{prefix}:events:{name}`.

    Args:
        url: `redis://`, `rediss://` or `unix://`; see `RedisConnection`, also for the other
        settings.
        name: of the log.
        lease_s: how long a group stays with a consumer that says nothing.
    """

    STORE = "events"

    def __init__(
        self,
        url: str | StoreUrl,
        *,
        name: str = "main",
        lease_s: float = 10.0,
        seal_key: bytes | None = None,
        **connection: Any,
    ) -> None:
        super().__init__(url, **connection)
        self.lease_s = lease_s
        self._seal = None if seal_key is None else EventSeal(seal_key, name)
        # One slot: a script has the log and what belongs to it.
        self._log = f"{{{self.prefix}:events:{name}}}"
        self._new_only: set[str] = set()  # readers that have come to the end of what was pending

    async def publish(self, events: Sequence[Event]) -> None:
        """See `Broker.publish`; one trip, the whole batch or nothing.

        The same batch again changes nothing.
        """
        if not stamped(events):
            return
        batch = hashlib.sha256("\n".join(event.id for event in events).encode()).hexdigest()[:32]
        payload = [encoded(event, self._seal) for event in events]

        def steps() -> Any:
            yield _PUBLISH, [self._log, f"{self._log}:batch:{batch}"], payload

        await self.arun(steps())

    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[Stored]:
        """See `Broker.read`."""
        start = "-" if after is None else f"({_checked(after)}"
        entries = await self._asked("xrange", self._log, start, "+", limit)
        if not entries and wait_s > 0:
            await self._wait(after or "0", wait_s)
            entries = await self._asked("xrange", self._log, start, "+", limit)
        return _stored(entries, self._seal)

    async def lag(self, group: str) -> int:
        """See `Broker.lag`."""
        known = await self._group(group)
        if known is None:
            return int(await self._asked("xlen", self._log))
        behind = known.get("lag")
        if behind is None:  # the server cannot say after removals; then they are counted
            behind = len(
                await self._asked(
                    "xrange", self._log, f"({known['last-delivered-id'].decode()}", "+"
                )
            )
        return int(behind) + int(known["pending"])

    async def trim(self, keep: int) -> int:
        """See `Broker.trim`; in steps of at most 1,000."""
        removed = 0
        while went := await self._script(_TRIM, [self._log], [max(keep, 0)]):
            removed += int(went)
        return removed

    async def delete_group(self, group: str) -> None:
        """See `Broker.delete_group`."""
        if await self._group(group) is not None:
            await self._asked("xgroup_destroy", self._log, group)

    # -- GroupLog
    # ------------------------------------------------------------------------------------------

    async def claim(self, group: str, owner: str, start: Start, lease_s: float) -> bool:
        """See `GroupLog.claim`."""
        first = "0" if start == "earliest" else "$"
        args = [owner, int(lease_s * 1000), group, first]
        return bool(await self._script(_CLAIM, self._keys(group), args))

    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[Stored]:
        """See `GroupLog.fetch`. Reading and the look at the lease are one step.

        A former owner takes nothing.
        """
        if after is None:
            self._new_only.discard(owner)
        if owner not in self._new_only:
            entries = await self._fetched(group, owner, limit, after or "0")
            if entries:
                return _stored(entries, self._seal)
            self._new_only.add(owner)
        entries = await self._fetched(group, owner, limit, ">")
        if not entries and (known := await self._group(group)) is not None:
            await self._wait(known["last-delivered-id"].decode(), wait_s)
        return _stored(entries, self._seal)

    async def settle(self, group: str, owner: str, done: list[str], floor: str | None) -> bool:
        """See `GroupLog.settle`."""
        return bool(await self._script(_SETTLE, self._keys(group), [owner, group, *done]))

    async def release(self, group: str, owner: str) -> None:
        """See `GroupLog.release`."""
        self._new_only.discard(owner)
        await self._script(_RELEASE, self._keys(group)[1:], [owner])

    # -- requests
    # ------------------------------------------------------------------------------------------

    async def _fetched(self, group: str, owner: str, limit: int, behind: str) -> list[Any]:
        answer = await self._script(
            _FETCH, self._keys(group), [owner, group, limit, behind, READER]
        )
        return [] if not answer else list(answer[0][1])

    async def _wait(self, after: str, wait_s: float) -> None:
        """Until something is behind `after`.

        Blocks a connection of its own, for less than its timeout.
        """
        limit_s = max(0.001, min(wait_s, self._timeout_s / 2))
        await self._asked("xread", {self._log: after}, 1, int(limit_s * 1000))

    async def _group(self, group: str) -> dict[str, Any] | None:
        if not await self._asked("exists", self._log):
            return None
        groups = await self._asked("xinfo_groups", self._log)
        return next((each for each in groups if each["name"] == group.encode()), None)

    def _keys(self, group: str) -> list[str]:
        return [self._log, f"{self._log}:lease:{group}"]

    async def _asked(self, *command: Any) -> Any:
        def steps() -> Any:
            return (yield command)

        return await self.arun(steps())

    async def _script(self, source: str, keys: list[str], args: list[Any]) -> Any:
        def steps() -> Any:
            return (yield source, keys, args)

        return await self.arun(steps())


def _checked(position: str) -> str:
    if not re.fullmatch(r"\d{1,20}-\d{1,20}", position):
        raise InputInvalid(f"not a position of this log: {position[:40]!r}", "after")
    return position


def _stored(entries: list[Any], seal: EventSeal | None) -> list[Stored]:
    found = []
    for entry_id, fields in entries:
        given = (
            fields
            if isinstance(fields, dict)
            else dict(zip(*[iter(fields or ())] * 2, strict=False))
        )
        content = given.get(
            b"e"
        )  # None: no entry of ours, or one that was removed by hand before it was acknowledged
        position = entry_id.decode()
        found.append(Stored(position, read_event(content, position, seal)))
    return found
