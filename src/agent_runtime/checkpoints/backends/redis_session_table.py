"""Store session records on Redis: a hash for each tenant, and sorted sets for their order."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import ormsgpack
from typing_extensions import override

from agent_runtime.checkpoints.backends.session_table import SessionRow, SessionTable
from agent_runtime.storage.deletion_clock import ClockState
from agent_runtime.storage.operations import Steps, StorePart, steps_operation
from agent_runtime.storage.process_identity import boot_id
from agent_runtime.storage.redis_connection import RedisConnection

CLOCK_RETENTION_S = 30 * 86400
"""How long a machine that looked at the server's clock is remembered."""
_PUT = """
local records, ofTenant, ofUser, due = unpack(KEYS)
local key, value, created, expires, gone, old = unpack(ARGV)
if (redis.call('HGET', records, key) or '') ~= old then return 0 end
redis.call('HSET', records, key, value)
if gone == '' then
  redis.call('ZADD', ofTenant, created, key)
  redis.call('ZADD', ofUser, created, key)
else
  redis.call('ZREM', ofTenant, key)
  redis.call('ZREM', ofUser, key)
end
if gone == '' and expires ~= '' then redis.call('ZADD', due, expires, key) else redis.call('ZREM',
  due, key) end
return 1
"""


class RedisSessionTable(StorePart[RedisConnection], SessionTable):
    """Store session records; the keys of a tenant share a slot."""

    @override
    @steps_operation
    def put(self, row: SessionRow, old: SessionRow | None) -> Steps[bool]:
        expires = "" if row.expires_at is None else repr(row.expires_at)
        args = [
            row.key,
            _pack_row(row),
            repr(row.created_at),
            expires,
            row.deleted_reason,
            b"" if old is None else _pack_row(old),
        ]
        yield "sadd", f"{self.store.prefix}:tenants", row.tenant
        done = yield _PUT, self._tenant_keys(row.tenant, row.user), args
        return bool(done == 1)

    @override
    @steps_operation
    def get(self, key: str) -> Steps[SessionRow | None]:
        tenant = key.partition(":")[0]
        packed_row = yield "hget", self._tenant_keys(tenant)[0], key
        return None if packed_row is None else _unpack_row(key, tenant, packed_row)

    @override
    @steps_operation
    def page(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Steps[Sequence[SessionRow]]:
        keys = self._tenant_keys(tenant, user or "")
        order = keys[1] if user is None else keys[2]
        start = 0
        if before is not None:
            rank = yield "zrevrank", order, before[1]
            newer_count = (
                None if rank is not None else (yield "zcount", order, f"({before[0]!r}", "+inf")
            )
            start = rank + 1 if rank is not None else newer_count or 0
        names = yield "zrevrange", order, start, start + limit - 1
        if not names:
            return []
        values = yield "hmget", keys[0], names
        return [
            _unpack_row(n.decode(), tenant, v)
            for n, v in zip(names, values, strict=True)
            if v is not None
        ]

    @override
    @steps_operation
    def list_expired(self, limit: int) -> Steps[Sequence[SessionRow]]:
        now = yield from self._deletion_time(is_new=False)
        expired_rows: list[SessionRow] = []
        for tenant in sorted(
            t.decode() for t in (yield "smembers", f"{self.store.prefix}:tenants")
        ):
            keys = self._tenant_keys(tenant)
            names = yield "zrangebyscore", keys[3], "-inf", repr(now), 0, limit - len(expired_rows)
            values = (yield "hmget", keys[0], names) if names else []
            expired_rows += [
                _unpack_row(n.decode(), tenant, v)
                for n, v in zip(names, values, strict=True)
                if v is not None
            ]
            if len(expired_rows) >= limit:
                break
        return expired_rows

    def _tenant_keys(self, tenant: str, user: str = "") -> list[str]:
        base = f"{self.store.prefix}:s:{{{quote(tenant, safe='')}}}"
        return [
            f"{base}:records",
            f"{base}:all",
            f"{base}:user:{quote(user, safe='')}",
            f"{base}:due",
        ]

    def start_clock(self) -> Steps[None]:
        """Start the clock of deletions of a store without one."""
        is_new = not (yield "exists", f"{self.store.prefix}:tenants")
        yield from self._deletion_time(is_new=is_new)

    def _deletion_time(self, *, is_new: bool) -> Steps[float]:
        """Return the time, by the server's clock, up to which expired records may go."""
        seconds, microseconds = yield ("time",)
        wall_s = seconds + microseconds / 1e6
        key = f"{self.store.prefix}:clock:{boot_id()}"
        text = yield "get", key
        initial_state = (
            ClockState.for_new_store(wall_s) if is_new else ClockState.for_existing_store(wall_s)
        )
        state = initial_state if text is None else ClockState.from_json(text)
        state = state.observe(wall_s)
        yield "set", key, state.to_json(), CLOCK_RETENTION_S
        return state.deletion_time(wall_s)


def _pack_row(row: SessionRow) -> bytes:
    return ormsgpack.packb([row.user, row.created_at, row.expires_at, row.data, row.deleted_reason])


def _unpack_row(key: str, tenant: str, value: bytes) -> SessionRow:
    user, created_at, expires_at, data, deleted_reason = ormsgpack.unpackb(value)
    return SessionRow(key, tenant, user, created_at, expires_at, data, deleted_reason)
