"""The ledger on Redis or Valkey: any number of machines, one script, one slot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from typing_extensions import override

from agent_runtime.budgets.ledger.ledger import (
    ACCOUNT_RETENTION_S,
    OPERATION_RETENTION_S,
    SPEND_RETENTION_S,
    Amount,
    Answer,
    Balance,
    Charge,
    Ledger,
    Refusal,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.storage.operations import Steps, steps_operation
from agent_runtime.storage.redis_connection import RedisConnection
from agent_runtime.storage.store_url import StoreUrl

_TRANSACT = """
-- accounts: key -> 'spent held spentTokens heldTokens limit limitTokens end'; operations: id ->
-- 'state usd tokens keys'
local accounts, ends, operations, held, done, spends = unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keptMs, accountKeptMs = tonumber(ARGV[1]), tonumber(ARGV[2])
local at = 2
local function nextArg() at = at + 1 return ARGV[at] end
local function int(n) return string.format('%d', n) end
local function balance(key)
  local found = redis.call('HGET', accounts, key)
  local b = {0, 0, 0, 0, '-', '-', '-'}
  if found then
    local n = 0
    for part in string.gmatch(found, '%S+') do
      n = n + 1
      b[n] = n <= 4 and tonumber(part) or part
    end
  end
  return b
end
local function keep(key, b)
  redis.call('HSET', accounts, key, table.concat({int(b[1]), int(b[2]), int(b[3]), int(b[4]),
    b[5], b[6], b[7]}, ' '))
end
local charges = {}
local function charge(keys, usd, tokens, freeUsd, freeTokens, tell)
  for key in string.gmatch(keys, '%S+') do
    local b = balance(key)
    b[1], b[2], b[3], b[4] = b[1] + usd, b[2] - freeUsd, b[3] + tokens, b[4] - freeTokens
    keep(key, b)
    if tell then
      charges[#charges + 1] = key
      charges[#charges + 1] = table.concat({int(b[1]), int(b[3]), int(usd), int(tokens)}, ' ')
    end
  end
end
local function operation(id)
  local found = redis.call('HGET', operations, id)
  if not found then return nil end
  local state, usd, tokens, keys = string.match(found, '^(%a) (%-?%d+) (%-?%d+) ?(.*)$')
  return state, tonumber(usd), tonumber(tokens), keys
end
local function remember(id, state, usd, tokens, keys)
  redis.call('HSET', operations, id, table.concat({state, int(usd), int(tokens), keys}, ' '))
  if state ~= 'h' then
    redis.call('ZREM', held, id)
    redis.call('ZADD', done, int(now + keptMs), id)
  end
end

local swept = redis.call('ZRANGEBYSCORE', held, '-inf', int(now), 'LIMIT', 0, 100)
for _, id in ipairs(swept) do
  local state, usd, tokens, keys = operation(id)
  if state == 'h' then
    charge(keys, usd, tokens, usd, tokens, false)
    remember(id, 'x', usd, tokens, keys)
  else redis.call('ZREM', held, id) end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', done, '-inf', int(now), 'LIMIT', 0, 20)) do
  redis.call('HDEL', operations, id)
  redis.call('ZREM', done, id)
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', int(now - accountKeptMs), 'LIMIT',
  0, 20)) do
  redis.call('HDEL', accounts, key)
  redis.call('ZREM', ends, key)
end

for _ = 1, tonumber(nextArg()) do
  local id, usd, tokens, rows = nextArg(), tonumber(nextArg()), tonumber(nextArg()),
    tonumber(nextArg())
  local state, oldUsd, oldTokens, keys = operation(id)
  if state ~= 's' then
    if state == 'h' then charge(keys, usd, tokens, oldUsd, oldTokens, true) end
    if state == 'x' then charge(keys, usd - oldUsd, tokens - oldTokens, 0, 0, true) end
    remember(id, 's', usd, tokens, keys or '')
  elseif usd > oldUsd or tokens > oldTokens then -- settled at an estimate that was too low
    local mostUsd, mostTokens = math.max(usd, oldUsd), math.max(tokens, oldTokens)
    charge(keys or '', mostUsd - oldUsd, mostTokens - oldTokens, 0, 0, true)
    remember(id, 's', mostUsd, mostTokens, keys or '')
  end
  for _ = 1, rows do
    local labels, hour = nextArg(), math.floor(time[1] / 3600)
    for _, name in ipairs({CALLS}) do
      local count = nextArg()
      if state ~= 's' and count ~= '0' then
        redis.call('HINCRBY', spends, hour .. ' ' .. labels .. ' ' .. name, count)
      end
    end
  end
end

local id = nextArg()
if id == '' then return {'', #swept, charges} end
local ttl, leastUsd, leastTokens = nextArg(), tonumber(nextArg()), tonumber(nextArg())
local usd, tokens, count = tonumber(nextArg()), tonumber(nextArg()), tonumber(nextArg())
local keyed = nextArg() == '1'
local state, knownUsd, knownTokens, knownKeys = operation(id)
if state == 'h' then return {'granted', int(knownUsd) .. ' ' .. int(knownTokens), charges} end
if state == 's' and keyed and (knownUsd ~= 0 or knownTokens ~= 0) then
  return {'granted', int(usd) .. ' ' .. int(tokens), charges}
end
-- its lease ended before this repetition: no request was sent for it, or one with its id
local back = {}
if state == 'x' then for key in string.gmatch(knownKeys, '%S+') do back[key] = true end end
local names, rows = {}, {}
local function refused(key, b)
  return {'refused', key .. ' ' .. table.concat({int(b[1]), int(b[3]), int(b[2]), int(b[4])},
    ' '), charges}
end
for n = 1, count do
  local key, limit, limitTokens, ending = nextArg(), nextArg(), nextArg(), nextArg()
  local b = balance(key)
  -- it came after its own end: nothing is held for it any more
  if state == 's' and not keyed then return refused(key, b) end
  local backUsd, backTokens = back[key] and knownUsd or 0, back[key] and knownTokens or 0
  if limit ~= '-' then usd = math.min(usd, tonumber(limit) - b[1] - b[2] + backUsd) end
  if limitTokens ~= '-' then tokens = math.min(tokens,
    tonumber(limitTokens) - b[3] - b[4] + backTokens) end
  if usd < leastUsd or tokens < leastTokens then
    return refused(key, b)
  end
  names[n], rows[n] = key, {limit, limitTokens, ending}
end
if state == 'x' then charge(knownKeys, 0 - knownUsd, 0 - knownTokens, 0, 0, false) end
if state then
  redis.call('HDEL', operations, id)
  redis.call('ZREM', done, id)
end
for n, key in ipairs(names) do
  local b = balance(key)
  b[2], b[4] = b[2] + usd, b[4] + tokens
  b[5], b[6], b[7] = unpack(rows[n])
  keep(key, b)
  if b[7] ~= '-' then redis.call('ZADD', ends, b[7], key) end
end
remember(id, 'h', usd, tokens, table.concat(names, ' '))
redis.call('ZADD', held, int(now + tonumber(ttl)), id)
return {'granted', int(usd) .. ' ' .. int(tokens), charges}
"""
_COUNTS = Spend._fields[1:]
_SCRIPT = _TRANSACT.replace("CALLS", ", ".join(f"'{name}'" for name in _COUNTS))


class RedisLedger(RedisConnection, Ledger):
    """Every operation is one round trip. Takes RedisConnection's arguments.

    All keys share a slot, because one atomic step goes over a user's, a tenant's and the global
    account.
    """

    STORE = "ledger"

    def __init__(self, url: str | StoreUrl, **settings: Any) -> None:
        super().__init__(url, **settings)
        base = f"{self.prefix}:{{ledger}}"
        self._keys = [
            f"{base}:{part}"
            for part in ("accounts", "ends", "operations", "held", "done", "spends")
        ]

    @override
    @steps_operation
    def transact(
        self, settlements: Sequence[Settlement], reservation: ReservationRequest | None
    ) -> Steps[Answer]:
        args: list[Any] = [
            int(OPERATION_RETENTION_S * 1000),
            int(ACCOUNT_RETENTION_S * 1000),
            len(settlements),
        ]
        for settlement in settlements:
            args += [settlement.operation_id, *settlement.amount, len(settlement.spends)]
            for spend in settlement.spends:
                args += [
                    " ".join(quote(label, safe="") or "-" for label in spend.labels),
                    *spend[1:],
                ]
        args += [""] if reservation is None else _reservation_args(reservation)
        return _parse_answer((yield _SCRIPT, self._keys, args))

    @override
    @steps_operation
    def expire_holds(self) -> Steps[int]:
        _, swept, _ = yield (
            _SCRIPT,
            self._keys,
            [int(OPERATION_RETENTION_S * 1000), int(ACCOUNT_RETENTION_S * 1000), 0, ""],
        )
        oldest = (time.time() - SPEND_RETENTION_S) // 3600
        if expired_fields := [
            f for f in (yield "hkeys", self._keys[5]) if int(f.partition(b" ")[0]) < oldest
        ]:
            yield "hdel", self._keys[5], *expired_fields
        return int(swept)

    @override
    @steps_operation
    def balances(self) -> Steps[dict[str, Balance]]:
        balance_texts = yield "hgetall", self._keys[0]
        return {
            unquote(key.decode()): _parse_balance(value.decode())
            for key, value in sorted(balance_texts.items())
        }

    @override
    @steps_operation
    def report(self, since: float, until: float) -> Steps[list[tuple[int, Spend]]]:
        first = int(since // 3600)
        last = int(-(-until // 3600))
        rows: dict[tuple[int, SpendLabels], dict[str, int]] = {}
        for field, value in (yield "hgetall", self._keys[5]).items():
            hour, *labels, name = field.decode().split(" ")
            if first <= int(hour) < last:
                hour_and_labels = (
                    int(hour),
                    SpendLabels(*("" if label == "-" else unquote(label) for label in labels)),
                )
                rows.setdefault(hour_and_labels, {})[name] = int(value)
        return [
            (hour * 3600, Spend(labels, **{"calls": 0, **counts}))
            for (hour, labels), counts in sorted(rows.items())
        ]


def _reservation_args(reservation: ReservationRequest) -> list[Any]:
    args: list[Any] = [reservation.operation_id, max(1, round(reservation.ttl_s * 1000))]
    args += [
        *reservation.minimum,
        *reservation.requested,
        len(reservation.accounts),
        int(reservation.idempotent),
    ]
    for account in reservation.accounts:
        limits = (
            "-" if limit is None else limit
            for limit in (account.limit_micro_usd, account.limit_tokens)
        )
        args += [
            quote(account.key, safe=""),
            *limits,
            "-" if account.ends_at is None else int(account.ends_at * 1000),
        ]
    return args


def _parse_answer(reply: list[Any]) -> Answer:
    kind, detail, charge_fields = reply
    charges: list[Charge] = []
    for key, numbers in zip(charge_fields[::2], charge_fields[1::2], strict=True):
        usd, tokens, added_usd, added_tokens = map(int, numbers.split())
        charges.append(
            Charge(unquote(key.decode()), Amount(usd, tokens), Amount(added_usd, added_tokens))
        )
    if kind == b"granted":
        return Answer(Amount(*map(int, detail.split())), None, tuple(charges))
    if kind == b"refused":
        key, *numbers = detail.decode().split(" ")
        spent_usd, spent_tokens, held_usd, held_tokens = map(int, numbers)
        refusal = Refusal(
            unquote(key), Amount(spent_usd, spent_tokens), Amount(held_usd, held_tokens)
        )
        return Answer(None, refusal, tuple(charges))
    return Answer(None, None, tuple(charges))


def _parse_balance(text: str) -> Balance:
    *numbers, ends_at_ms = (None if part == "-" else int(part) for part in text.split(" "))
    return Balance(*numbers, None if ends_at_ms is None else ends_at_ms / 1000)  # type: ignore[arg-type, call-arg]
