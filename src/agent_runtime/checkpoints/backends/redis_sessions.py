"""Session records on Redis: a hash for each tenant, and sorted sets for their order."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import ormsgpack

from agent_runtime.checkpoints.backends.backend import SessionRow
from agent_runtime.storage.deletion_clock import ClockState
from agent_runtime.storage.process_identity import boot_id

CLOCK_RETENTION_S = 30 * 86400
"""How long a machine that looked at the server's clock is remembered."""
_PUT_SCRIPT = """
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


class RedisSessions:
    """The part of RedisRecords about session records; the keys of a tenant share a slot."""

    prefix: str

    def _tenant_keys(self, tenant: str, user: str = "") -> list[str]:
        base = f"{self.prefix}:s:{{{quote(tenant, safe='')}}}"
        return [
            f"{base}:records",
            f"{base}:all",
            f"{base}:user:{quote(user, safe='')}",
            f"{base}:due",
        ]

    def _put_session(self, row: SessionRow, old: SessionRow | None) -> Any:
        expires = "" if row.expires_at is None else repr(row.expires_at)
        args = [
            row.key,
            _pack_row(row),
            repr(row.created_at),
            expires,
            row.deleted_reason,
            b"" if old is None else _pack_row(old),
        ]
        yield "sadd", f"{self.prefix}:tenants", row.tenant
        done = yield _PUT_SCRIPT, self._tenant_keys(row.tenant, row.user), args
        return done == 1

    def _get_session(self, key: str) -> Any:
        tenant = key.partition(":")[0]
        packed_row = yield "hget", self._tenant_keys(tenant)[0], key
        return None if packed_row is None else _unpack_row(key, tenant, packed_row)

    def _page_sessions(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Any:
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

    def _deletion_time(self, *, is_new: bool) -> Any:
        """Return the time, by the server's clock, up to which expired records may go."""
        seconds, microseconds = yield ("time",)
        wall_s = seconds + microseconds / 1e6
        key = f"{self.prefix}:clock:{boot_id()}"
        text = yield "get", key
        initial_state = (
            ClockState.for_new_store(wall_s) if is_new else ClockState.for_existing_store(wall_s)
        )
        state = initial_state if text is None else ClockState.from_json(text)
        state = state.observe(wall_s)
        yield "set", key, state.to_json(), CLOCK_RETENTION_S
        return state.deletion_time(wall_s)

    def _initialize_store(self) -> Any:
        is_new = not (yield "exists", f"{self.prefix}:tenants")
        yield from self._deletion_time(is_new=is_new)

    def _expired_sessions(self, limit: int) -> Any:
        now = yield from self._deletion_time(is_new=False)
        expired_rows: list[SessionRow] = []
        for tenant in sorted(t.decode() for t in (yield "smembers", f"{self.prefix}:tenants")):
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


def _pack_row(row: SessionRow) -> bytes:
    return ormsgpack.packb([row.user, row.created_at, row.expires_at, row.data, row.deleted_reason])


def _unpack_row(key: str, tenant: str, value: bytes) -> SessionRow:
    user, created_at, expires_at, data, deleted_reason = ormsgpack.unpackb(value)
    return SessionRow(key, tenant, user, created_at, expires_at, data, deleted_reason)
