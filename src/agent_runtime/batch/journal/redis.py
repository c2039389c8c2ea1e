"""The journal on Redis or Valkey: for several machines.

One script for each step that must be whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from typing_extensions import override

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import (
    MUTABLE_COLUMNS,
    TASK_COLUMNS,
    Execution,
    RunnerRequest,
    StoredResult,
    TaskRow,
    TaskUpdate,
    execution_document,
    execution_from_document,
)
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.errors import ExecutionBusy, ExecutionLost, ExecutionNotFound
from agent_runtime.pool.task import TaskPriority
from agent_runtime.storage import RedisConnection
from agent_runtime.storage.operations import Steps, steps_operation

_FIELDS_OF_COLUMNS = {column: name for name, column in (TASK_COLUMNS | MUTABLE_COLUMNS).items()}
_CHECK_OWNER = """
local token, owner = unpack(redis.call('HMGET', KEYS[1], 'token', 'owner'))
if not token or token ~= ARGV[1] or owner == '' then return 'lost' end
"""
_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 'known' end
redis.call('HSET', KEYS[1], 'document', ARGV[1], 'owner', '', 'token', 0, 'lease_until_s', 0,
  'wanted', '')
redis.call('HSET', KEYS[1], 'progress', '{}')
return 'created'
"""
_ACK_REQUEST = """
if redis.call('HGET', KEYS[1], 'wanted') == ARGV[1] then redis.call('HSET', KEYS[1], 'wanted',
  '') end
return 'heard'
"""
_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""
_LEASE = f"""{_NOW}
local found = redis.call('HMGET', KEYS[1], 'document', 'owner', 'lease_until_s', 'token')
if not found[1] then return {{'none', '', ''}} end
local alive = found[2] ~= '' and found[2] ~= ARGV[3] and tonumber(found[3]) > now
if alive then return {{'busy', found[2], ''}} end
local token = tonumber(found[4]) + 1
local ends = string.format('%.3f', now + ARGV[2])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'lease_until_s', ends, 'token', token)
return {{'leased', '', tostring(token)}}
"""
_HEARTBEAT = f"""{_CHECK_OWNER}{_NOW}
redis.call('HSET', KEYS[1], 'lease_until_s', string.format('%.3f', now + ARGV[2]), 'progress',
  ARGV[3])
return '=' .. redis.call('HGET', KEYS[1], 'wanted')
"""
_SAVE = f"""{_CHECK_OWNER}
redis.call('HSET', KEYS[1], 'document', ARGV[2], 'progress', ARGV[3])
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'owner', '') end
return 'saved'
"""
_STORE_RESULT = """
local function keep(results, numbers, order, seq, result)
  local number = redis.call('HINCRBY', KEYS[1], 'number', 1)
  redis.call('HSET', results, seq, number .. ' ' .. result)
  redis.call('ZADD', numbers, number, seq)
  redis.call('ZADD', order, seq, seq)
end
"""
_ADD = f"""{_STORE_RESULT}
-- ids: id -> seq; rows and states: seq -> JSON; places: seq -> rank and agent; a sorted set for
-- each status and agent
local known = {{}}
for at = 1, #ARGV, 8 do
  local seq, id, agent, rank, row, state, status, result = unpack(ARGV, at, at + 7)
  if redis.call('HEXISTS', KEYS[2], id) == 1 or redis.call('HEXISTS', KEYS[3], seq) == 1 then
    known[#known + 1] = seq
  else
    redis.call('HSET', KEYS[2], id, seq)
    redis.call('HSET', KEYS[3], seq, row)
    redis.call('HSET', KEYS[4], seq, state)
    redis.call('HSET', KEYS[7], seq, rank .. ' ' .. agent)
    redis.call('ZADD', KEYS[1] .. ':' .. status .. ':' .. agent, rank, seq)
    redis.call('SADD', KEYS[5], agent)
    redis.call('HINCRBY', KEYS[6], status, 1)
    if result ~= '' then keep(KEYS[8], KEYS[9], KEYS[10], seq, result) end
  end
end
return known
"""
_UPDATE_STATE = """
local function move(seq, status, state)
  local rank, agent = string.match(redis.call('HGET', KEYS[2], seq), '^(%S+) (.*)$')
  local was = cjson.decode(redis.call('HGET', KEYS[3], seq))
  if was.status ~= status then
    redis.call('ZREM', KEYS[1] .. ':' .. was.status .. ':' .. agent, seq)
    redis.call('ZADD', KEYS[1] .. ':' .. status .. ':' .. agent, rank, seq)
    redis.call('HINCRBY', KEYS[4], was.status, -1)
    redis.call('HINCRBY', KEYS[4], status, 1)
  end
  if not state then
    was.status, was.attempts, was.starts, was.not_before_s, was.tries = status, 0, 0, 0,
      was.tries + 1
    state = cjson.encode(was)
  end
  redis.call('HSET', KEYS[3], seq, state)
end
"""
_WRITE = f"""{_CHECK_OWNER}{_UPDATE_STATE}{_STORE_RESULT}
for at = 2, #ARGV, 4 do
  local seq, status, state, result = unpack(ARGV, at, at + 3)
  move(seq, status, state)
  if result ~= '' then keep(KEYS[5], KEYS[6], KEYS[7], seq, result) end
end
return 'written'
"""
_RESET = f"""{_CHECK_OWNER}{_UPDATE_STATE}
local count = 0
for at = 2, #ARGV do
  for _, agent in ipairs(redis.call('SMEMBERS', KEYS[8])) do
    for _, seq in ipairs(redis.call('ZRANGE', KEYS[1] .. ':' .. ARGV[at] .. ':' .. agent, 0, -1)) do
      if cjson.decode(redis.call('HGET', KEYS[3], seq)).tries >= 0 then
        move(seq, 'pending', nil)
        redis.call('HDEL', KEYS[5], seq)
        redis.call('ZREM', KEYS[6], seq)
        redis.call('ZREM', KEYS[7], seq)
        count = count + 1
      end
    end
  end
end
return 'reset ' .. count
"""
STATUSES = ("pending", "running", "completed", "failed", "skipped", "poisoned", "interrupted")


class RedisJournal(RedisConnection, Journal):
    """Every operation is one round trip, or a few for those that only read.

    Takes RedisConnection's arguments.

    All keys of an execution share a slot.
    """

    STORE = "batches"

    def _key(self, execution_id: str, part: str = "") -> str:
        return f"{self.prefix}:batch:{{{execution_id}}}{':' + part if part else ''}"

    @property
    def _index_key(self) -> str:
        return f"{self.prefix}:batches"

    @override
    @steps_operation
    def create(self, execution: Execution) -> Steps[bool]:
        if (yield _CREATE, [self._key(execution.id)], [execution_document(execution)]) == b"known":
            return False
        yield "execute_command", "ZADD", self._index_key, execution.created_at, execution.id
        return True

    @override
    @steps_operation
    def get(self, execution_id: str) -> Steps[Execution]:
        fields, now = yield [("hgetall", self._key(execution_id)), ("time",)]
        if not fields:
            raise ExecutionNotFound(execution_id)
        return _decode_execution(execution_id, fields, now)

    @override
    @steps_operation
    def list(self, limit: int = 100) -> Steps[Sequence[Execution]]:
        names = [name.decode() for name in (yield "zrevrange", self._index_key, 0, limit - 1)]
        executions: list[Execution] = []
        for name in names:
            values, now = yield [("hgetall", self._key(name)), ("time",)]
            if values:
                executions += [_decode_execution(name, values, now)]
        return executions

    @override
    @steps_operation
    def delete(self, execution_id: str) -> Steps[None]:
        agents = yield "smembers", self._key(execution_id, "agents")
        parts = [
            "ids",
            "rows",
            "states",
            "places",
            "agents",
            "counts",
            "results",
            "numbers",
            "order",
        ]
        parts += [f"{status}:{agent.decode()}" for agent in agents for status in STATUSES]
        yield "unlink", self._key(execution_id), *(self._key(execution_id, part) for part in parts)
        yield "zrem", self._index_key, execution_id

    @override
    @steps_operation
    def lease(self, execution_id: str, owner: str, lease_s: float, *, dead: str = "") -> Steps[int]:
        status, holder, token = yield _LEASE, [self._key(execution_id)], [owner, lease_s, dead]
        if status == b"none":
            raise ExecutionNotFound(execution_id)
        if status == b"busy":
            raise ExecutionBusy(execution_id, holder.decode())
        return int(token)

    @override
    @steps_operation
    def heartbeat(
        self, execution_id: str, token: int, lease_s: float, progress: str
    ) -> Steps[RunnerRequest]:
        reply = yield _HEARTBEAT, [self._key(execution_id)], [token, lease_s, progress]
        return cast("RunnerRequest", _decode_reply(reply, execution_id)[1:])

    @override
    @steps_operation
    def save(self, execution: Execution, *, release: bool = False) -> Steps[None]:
        args = [
            execution.token,
            execution_document(execution),
            json.dumps(execution.progress),
            int(release),
        ]
        _decode_reply((yield _SAVE, [self._key(execution.id)], args), execution.id)

    @override
    @steps_operation
    def request(self, execution_id: str, request: RunnerRequest) -> Steps[None]:
        if not (yield "hexists", self._key(execution_id), "document"):
            raise ExecutionNotFound(execution_id)
        yield "hset", self._key(execution_id), "wanted", request

    @override
    @steps_operation
    def ack_request(self, execution_id: str, request: RunnerRequest) -> Steps[None]:
        yield _ACK_REQUEST, [self._key(execution_id)], [request]

    @override
    @steps_operation
    def add(self, execution_id: str, rows: Sequence[TaskRow]) -> Steps[Sequence[int]]:
        args: list[Any] = []
        for row in rows:
            immutable_json = _columns_json(row, TASK_COLUMNS)
            mutable_json = _columns_json(row, MUTABLE_COLUMNS)
            args += [
                row.seq,
                row.id,
                row.agent,
                repr(row.rank),
                immutable_json,
                mutable_json,
                row.status,
                _result_json(row.result),
            ]
        parts = (
            "",
            "ids",
            "rows",
            "states",
            "agents",
            "counts",
            "places",
            "results",
            "numbers",
            "order",
        )
        duplicate_seqs = yield _ADD, [self._key(execution_id, part) for part in parts], args
        return [int(seq) for seq in duplicate_seqs]

    def _update_keys(self, execution_id: str) -> Sequence[str]:
        parts = ("", "places", "states", "counts", "results", "numbers", "order", "agents")
        return [self._key(execution_id, part) for part in parts]

    @override
    @steps_operation
    def write(self, execution_id: str, token: int, changes: Sequence[TaskUpdate]) -> Steps[None]:
        args: list[Any] = [token]
        for change in changes:
            state = _columns_json(change, MUTABLE_COLUMNS)
            args += [change.seq, change.status, state, _result_json(change.result)]
        _decode_reply((yield _WRITE, self._update_keys(execution_id), args), execution_id)

    @override
    @steps_operation
    def reset(self, execution_id: str, token: int, statuses: Sequence[TaskStatus]) -> Steps[int]:
        reply = yield _RESET, self._update_keys(execution_id), [token, *statuses]
        return int(_decode_reply(reply, execution_id).split(" ")[1])

    @override
    @steps_operation
    def rows(
        self, execution_id: str, status: TaskStatus, limit: int, *, agent: str | None = None
    ) -> Steps[Sequence[TaskRow]]:
        agents = [agent] if agent is not None else (yield from self._read_agents(execution_id))
        seqs: list[tuple[float, int]] = []
        for name in agents:
            key = self._key(execution_id, f"{status}:{name}")
            ranked_seqs = yield "zrange", key, 0, limit - 1, False, True
            seqs += [(float(rank), int(seq)) for seq, rank in ranked_seqs]
        return (yield from self._fetch_rows(execution_id, [seq for _, seq in sorted(seqs)[:limit]]))

    @override
    @steps_operation
    def get_tasks(self, execution_id: str, seqs: Sequence[int]) -> Steps[Sequence[TaskRow]]:
        return (yield from self._fetch_rows(execution_id, sorted(seqs)))

    def _fetch_rows(self, execution_id: str, seqs: Sequence[int]) -> Steps[Sequence[TaskRow]]:
        if not seqs:
            return []
        immutable_parts = yield "hmget", self._key(execution_id, "rows"), *seqs
        mutable_parts = yield "hmget", self._key(execution_id, "states"), *seqs
        return [
            _decode_row(*encoded_parts)
            for encoded_parts in zip(immutable_parts, mutable_parts, strict=True)
            if encoded_parts[0] is not None
        ]

    @override
    @steps_operation
    def counts(self, execution_id: str) -> Steps[dict[TaskStatus, int]]:
        if not (yield "hexists", self._key(execution_id), "document"):
            raise ExecutionNotFound(execution_id)
        counts = yield "hgetall", self._key(execution_id, "counts")
        return {status.decode(): int(count) for status, count in counts.items() if int(count)}

    @override
    @steps_operation
    def agents(self, execution_id: str) -> Steps[Sequence[str]]:
        return (yield from self._read_agents(execution_id))

    def _read_agents(self, execution_id: str) -> Steps[Sequence[str]]:
        return sorted(
            agent.decode() for agent in (yield "smembers", self._key(execution_id, "agents"))
        )

    @override
    @steps_operation
    def results(
        self,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        by: Literal["number", "seq"] = "number",
    ) -> Steps[Sequence[StoredResult]]:
        key = self._key(execution_id, "numbers" if by == "number" else "order")
        seqs = yield "zrangebyscore", key, f"({after}", "+inf", 0, limit
        if not seqs:
            return []
        encoded_results = yield "hmget", self._key(execution_id, "results"), *seqs
        pairs = [
            (int(seq), text.decode().partition(" "))
            for seq, text in zip(seqs, encoded_results, strict=True)
            if text
        ]
        return [
            StoredResult(int(number), seq, TaskResult.from_json(result))
            for seq, (number, _, result) in pairs
        ]


def _columns_json(row: TaskRow | TaskUpdate, columns: Mapping[str, str]) -> str:
    """Return fields of a row as JSON under their stored names."""
    return json.dumps({column: getattr(row, name) for name, column in columns.items()})


def _result_json(result: TaskResult | None) -> str:
    return "" if result is None else result.to_json()


def _decode_reply(reply: bytes, execution_id: str) -> str:
    if reply == b"lost":
        raise ExecutionLost(execution_id)
    return reply.decode()


def _decode_execution(
    execution_id: str, values: dict[bytes, bytes], now: tuple[int, int]
) -> Execution:
    fields = {name.decode(): value.decode() for name, value in values.items()}
    execution = execution_from_document(
        execution_id,
        fields["document"],
        owner=fields["owner"],
        token=int(fields["token"]),
        requested=fields["wanted"],
        progress=json.loads(fields["progress"]),
    )
    execution.is_leased = (
        bool(execution.owner) and float(fields["lease_until_s"]) > now[0] + now[1] / 1e6
    )
    return execution


def _decode_row(immutable_json: bytes, mutable_json: bytes) -> TaskRow:
    columns = {**json.loads(immutable_json), **json.loads(mutable_json)}
    row = TaskRow(**{_FIELDS_OF_COLUMNS[column]: value for column, value in columns.items()})
    row.priority = TaskPriority(row.priority)
    return row
