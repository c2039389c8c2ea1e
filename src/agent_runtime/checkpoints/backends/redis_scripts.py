"""Define the Lua scripts of RedisCheckpointBackend.

Each is one atomic operation on the keys of one thread (one cluster slot). Keys: `t` lease and
counters (hash), `r` rows (hash), `i` their ids in order (sorted set), `c` chunks (hash), `w` writes
(hash), `v` their names in order (sorted set), `q` quarantine (hash), `x` tool effects (hash), `u`
its runs (set). US (0x1f) separates fields. Every script receives all keys, in this order. Only
commands of Redis 6.2 and Valkey are used.
"""

from __future__ import annotations

_HEAD = """
local t, r, i, c, w, v, q, x, u = unpack(KEYS)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function writable(token)
  local held = redis.call('HMGET', t, 'token', 'until')
  if token ~= '' and token ~= (held[1] or '0') then return 'another writer has the session' end
  if token == '' and tonumber(held[2] or '0') > now
    then return 'a turn of the session is running' end
  return nil
end
local function touch(ttl)
  for n = 2, 9 do
    if ttl == '' then redis.call('PERSIST', KEYS[n]) else redis.call('PEXPIRE', KEYS[n], ttl) end
  end
end
"""

SAVE = (
    _HEAD
    + """
local token, shared, ns, id, parent, value, ttl = unpack(ARGV, 1, 7)
local stale = writable(token)
if stale then return {'stale', stale} end
if redis.call('EXISTS', q) == 1 then return {'quarantined', redis.call('HKEYS', q)[1]} end
local field = ns .. '\\31' .. id
if redis.call('HGET', r, field) == value then return {'ok'} end
if token ~= '' and ns == '' then
  local head = redis.call('ZREVRANGEBYLEX', i, '(\\31\\255', '[\\31', 'LIMIT', 0, 1)[1]
  if (head and string.sub(head, 2) or '') ~= parent then
    return {'stale', 'the head of the session is another than this turn continues'}
  end
end
if shared == '1' and parent ~= '' and redis.call('HEXISTS', r, ns .. '\\31' .. parent) == 0
  then return {'gone'} end
for n = 8, #ARGV, 3 do
  if redis.call('HEXISTS', c, ns .. '\\31' .. ARGV[n] .. '\\31' .. ARGV[n + 1]) == 1
    then return {'taken'} end
end
for n = 8, #ARGV, 3 do
  redis.call('HSET', c, ns .. '\\31' .. ARGV[n] .. '\\31' .. ARGV[n + 1], ARGV[n + 2])
  local last = 'last\\31' .. ns .. '\\31' .. ARGV[n]
  local highest = tonumber(redis.call('HGET', t, last) or '-1')
  if highest < tonumber(ARGV[n + 1]) then redis.call('HSET', t, last, ARGV[n + 1]) end
end
redis.call('HSET', r, field, value)
redis.call('ZADD', i, 0, field)
if ttl ~= '' or redis.call('PTTL', r) > 0 then touch(ttl) end
return {'ok'}
"""
)

SAVE_WRITES = (
    _HEAD
    + """
local token, ttl, place = unpack(ARGV, 1, 3)
local stale = writable(token)
if stale then return {'stale', stale} end
if redis.call('EXISTS', q) == 1 then return {'quarantined', redis.call('HKEYS', q)[1]} end
for n = 4, #ARGV, 3 do
  local field = place .. '\\31' .. ARGV[n] .. '\\31' .. ARGV[n + 1]
  if tonumber(ARGV[n + 1]) < 0 then redis.call('HSET', w, field, ARGV[n + 2])
  else redis.call('HSETNX', w, field, ARGV[n + 2]) end
  redis.call('ZADD', v, 0, field)
end
if ttl ~= '' or redis.call('PTTL', w) > 0 then touch(ttl) end
return {'ok'}
"""
)

LOAD = (
    _HEAD
    + """
local ns, id, known = unpack(ARGV)
local field = ns .. '\\31' .. id
if id == '' then
  field = redis.call('ZREVRANGEBYLEX', i, '(' .. ns .. '\\31\\255', '[' .. ns .. '\\31', 'LIMIT',
    0, 1)[1]
  if not field then return nil end
  id = string.sub(field, #ns + 2)
end
local value = redis.call('HGET', r, field)
if not value then return nil end
local names = redis.call('ZRANGEBYLEX', v, '[' .. field .. '\\31', '(' .. field .. '\\31\\255')
local writes = {}
for start = 1, #names, 1000 do
  local part = redis.call('HMGET', w, unpack(names, start, math.min(start + 999, #names)))
  for n = 1, #part do writes[start + n - 1] = part[n] end
end
local wanted, chunks = {}, {}
if id ~= known then
  local refs = string.match(value, '^[^\\30]*\\30([^\\30]*)\\30')
  for channel, ranges in string.gmatch(refs, '([^;=]+)=([^;]*)') do
    for first, last in string.gmatch(ranges, '(%d+)%-?(%d*)') do
      for number = tonumber(first), tonumber(last ~= '' and last or first) do
        wanted[#wanted + 1] = ns .. '\\31' .. channel .. '\\31' .. string.format('%d', number)
      end
    end
  end
  for start = 1, #wanted, 1000 do
    local part = redis.call('HMGET', c, unpack(wanted, start, math.min(start + 999, #wanted)))
    for n = 1, #part do chunks[start + n - 1] = part[n] end
  end
end
return {id, value, names, writes, wanted, chunks}
"""
)

DROP = (
    _HEAD
    + """
local rows = tonumber(ARGV[1])
for n = 2, rows + 1 do
  redis.call('HDEL', r, ARGV[n])
  redis.call('ZREM', i, ARGV[n])
  for _, name in ipairs(redis.call('ZRANGEBYLEX', v, '[' .. ARGV[n] .. '\\31',
    '(' .. ARGV[n] .. '\\31\\255')) do
    redis.call('HDEL', w, name)
    redis.call('ZREM', v, name)
  end
end
for n = rows + 2, #ARGV do redis.call('HDEL', c, ARGV[n]) end
return {'ok'}
"""
)

ACQUIRE = (
    _HEAD
    + """
local owner, ttl = unpack(ARGV)
local held = redis.call('HMGET', t, 'owner', 'until', 'token')
if tonumber(held[2] or '0') > now then return nil end
redis.call('HSET', t, 'owner', owner, 'until', string.format('%d', now + tonumber(ttl)))
return {redis.call('HINCRBY', t, 'token', 1), (held[1] or '') == '' and 1 or 0}
"""
)

RENEW = (
    _HEAD
    + """
local owner, token, ttl, clean = unpack(ARGV)
local held = redis.call('HMGET', t, 'owner', 'token')
if held[1] ~= owner or held[2] ~= token then return 0 end
redis.call('HSET', t, 'until', ttl == '0' and '0' or string.format('%d', now + tonumber(ttl)))
if ttl == '0' and clean == '1' then redis.call('HSET', t, 'owner', '') end
return 1
"""
)

TOOL_START = (
    _HEAD
    + """
local token, name = unpack(ARGV)
local stale = writable(token)
if stale then return {'stale', stale} end
if redis.call('HSETNX', x, name, '') == 1 then return {'new'} end
return {'old', redis.call('HGET', x, name)}
"""
)

TOOL_PUT = (
    _HEAD
    + """
local token, how, name, value = unpack(ARGV)
local stale = writable(token)
if stale then return {'stale', stale} end
if how == 'put' then redis.call('HSET', x, name, value) end
if how == 'clear' then redis.call('HDEL', x, name) end
if how == 'forget' then redis.call('DEL', x) end
return {'ok'}
"""
)
