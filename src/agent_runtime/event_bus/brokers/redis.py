"""A broker on Redis Streams, or Valkey's: consumer groups, one reader of each at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from agent_runtime.errors import InputInvalid
from agent_runtime.event_bus.brokers.broker import StartPosition, StoredEvent
from agent_runtime.event_bus.brokers.group_reader import LeasedBroker
from agent_runtime.event_bus.brokers.validation import validate_events
from agent_runtime.event_bus.cloud_event import encode_event, read_event
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.storage import RedisConnection, StoreUrl

BATCH_ID_TTL_S = 600
"""Seconds a batch that is sent again after a lost reply is recognised."""
CONSUMER_NAME = "reader"
"""The only consumer name in Redis's groups: pending events belong to the owner of the lease."""

_PUBLISH = f"""
if redis.call('EXISTS', KEYS[2]) == 0 then
  for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
  -- last: a script that fails takes nothing back
  redis.call('SET', KEYS[2], '1', 'EX', {BATCH_ID_TTL_S})
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
# At most 1,000 per step: a server is blocked while a script runs.
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


class RedisBroker(RedisConnection, LeasedBroker):
    """Implement `Broker` on one Redis stream, `{prefix}:events:{name}`.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with the settings of `RedisConnection`.
        name: of the log.
        lease_s: how long a silent consumer keeps a group.
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
        # One slot: a script has the log and its groups.
        self._log = f"{{{self.prefix}:events:{name}}}"
        self._caught_up_owners: set[str] = set()  # readers at the end of the pending events

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish a batch in one script, all or nothing; repeating it changes nothing."""
        if not validate_events(events):
            return
        batch = hashlib.sha256("\n".join(event.id for event in events).encode()).hexdigest()[:32]
        payload = [encode_event(event, self._seal) for event in events]

        def steps() -> Any:
            yield _PUBLISH, [self._log, f"{self._log}:batch:{batch}"], payload

        await self.arun(steps())

    @override
    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        start = "-" if after is None else f"({_validate_position(after)}"
        entries = await self._run_command("xrange", self._log, start, "+", limit)
        if not entries and wait_s > 0:
            await self._wait_for_entry(after or "0", wait_s)
            entries = await self._run_command("xrange", self._log, start, "+", limit)
        return _to_stored_events(entries, self._seal)

    @override
    async def lag(self, group: str) -> int:
        group_info = await self._group_info(group)
        if group_info is None:
            return int(await self._run_command("xlen", self._log))
        undelivered_count = group_info.get("lag")
        if undelivered_count is None:  # the server cannot tell after removals, so they are counted
            undelivered_count = len(
                await self._run_command(
                    "xrange", self._log, f"({group_info['last-delivered-id'].decode()}", "+"
                )
            )
        return int(undelivered_count) + int(group_info["pending"])

    async def trim(self, keep: int) -> int:
        """Remove events in steps of at most 1,000."""
        removed = 0
        while removed_in_step := await self._run_script(_TRIM, [self._log], [max(keep, 0)]):
            removed += int(removed_in_step)
        return removed

    @override
    async def delete_group(self, group: str) -> None:
        if await self._group_info(group) is not None:
            await self._run_command("xgroup_destroy", self._log, group)

    # -- GroupLog

    @override
    async def claim(self, group: str, owner: str, start: StartPosition, lease_s: float) -> bool:
        start_id = "0" if start == "earliest" else "$"
        args = [owner, int(lease_s * 1000), group, start_id]
        return bool(await self._run_script(_CLAIM, self._group_keys(group), args))

    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[StoredEvent]:
        """Fetch events and check the lease in one step, so that a former owner gets none."""
        if after is None:
            self._caught_up_owners.discard(owner)
        if owner not in self._caught_up_owners:
            entries = await self._fetch_entries(group, owner, limit, after or "0")
            if entries:
                return _to_stored_events(entries, self._seal)
            self._caught_up_owners.add(owner)
        entries = await self._fetch_entries(group, owner, limit, ">")
        if not entries and (group_info := await self._group_info(group)) is not None:
            await self._wait_for_entry(group_info["last-delivered-id"].decode(), wait_s)
        return _to_stored_events(entries, self._seal)

    @override
    async def commit(
        self, group: str, owner: str, acked: list[str], committed_offset: str | None
    ) -> bool:
        return bool(
            await self._run_script(_SETTLE, self._group_keys(group), [owner, group, *acked])
        )

    @override
    async def release(self, group: str, owner: str) -> None:
        self._caught_up_owners.discard(owner)
        await self._run_script(_RELEASE, self._group_keys(group)[1:], [owner])

    # -- requests

    async def _fetch_entries(self, group: str, owner: str, limit: int, after_id: str) -> list[Any]:
        answer = await self._run_script(
            _FETCH, self._group_keys(group), [owner, group, limit, after_id, CONSUMER_NAME]
        )
        return [] if not answer else list(answer[0][1])

    async def _wait_for_entry(self, after: str, wait_s: float) -> None:
        """Wait for an event after `after`, on a blocking connection, for less than its timeout."""
        limit_s = max(0.001, min(wait_s, self._timeout_s / 2))
        await self._run_command("xread", {self._log: after}, 1, int(limit_s * 1000))

    async def _group_info(self, group: str) -> dict[str, Any] | None:
        if not await self._run_command("exists", self._log):
            return None
        group_infos = await self._run_command("xinfo_groups", self._log)
        return next((info for info in group_infos if info["name"] == group.encode()), None)

    def _group_keys(self, group: str) -> list[str]:
        return [self._log, f"{self._log}:lease:{group}"]

    async def _run_command(self, *command: Any) -> Any:
        def steps() -> Any:
            return (yield command)

        return await self.arun(steps())

    async def _run_script(self, source: str, keys: list[str], args: list[Any]) -> Any:
        def steps() -> Any:
            return (yield source, keys, args)

        return await self.arun(steps())


def _validate_position(position: str) -> str:
    if not re.fullmatch(r"\d{1,20}-\d{1,20}", position):
        raise InputInvalid(f"not a position of this log: {position[:40]!r}", "after")
    return position


def _to_stored_events(entries: list[Any], seal: EventSeal | None) -> list[StoredEvent]:
    stored_events = []
    for entry_id, fields in entries:
        fields_by_name = (
            fields
            if isinstance(fields, dict)
            else dict(zip(*[iter(fields or ())] * 2, strict=False))
        )
        content = fields_by_name.get(
            b"e"
        )  # None: no entry of ours, or one that was removed by hand before it was acknowledged
        position = entry_id.decode()
        stored_events.append(StoredEvent(position, read_event(content, position, seal)))
    return stored_events
