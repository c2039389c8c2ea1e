"""Dead letters on Redis or Valkey, for several machines."""

from __future__ import annotations

import json
from collections.abc import Sequence

from typing_extensions import override

from agent_runtime.event_bus.dead_letter import DeadLetter, DeadLetters
from agent_runtime.storage import RedisConnection
from agent_runtime.storage.operations import Steps, steps_operation

# letters: id -> JSON; order: ids by number; one more sorted set of ids for each queue
_INSERT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local number = redis.call('INCR', KEYS[4])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], number, ARGV[1])
redis.call('ZADD', KEYS[3], number, ARGV[1])
return 1
"""
_DELETE = """
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


class RedisDeadLetters(RedisConnection, DeadLetters):
    """Keep dead letters on a Redis server; its keys share a slot.

    Takes RedisConnection's arguments.
    """

    STORE = "dead_letters"

    def _key(self, part: str) -> str:
        return f"{{{self.prefix}:dead_letters}}:{part}"

    def _order(self, queue: str | None) -> str:
        return self._key("order") if queue is None else self._key(f"queue:{queue}")

    @override
    @steps_operation
    def add(self, letter: DeadLetter) -> Steps[None]:
        text = json.dumps(letter.to_dict(), ensure_ascii=True)
        keys = [
            self._key("letters"),
            self._order(None),
            self._order(letter.queue),
            self._key("number"),
        ]
        yield _INSERT, keys, [letter.id, text]

    @override
    @steps_operation
    def list(self, queue: str | None = None, *, limit: int = 100) -> Steps[Sequence[DeadLetter]]:
        if limit < 1:
            return []
        ids = yield "zrange", self._order(queue), 0, limit - 1
        texts = (yield "hmget", self._key("letters"), ids) if ids else []
        return [DeadLetter.from_dict(json.loads(text)) for text in texts if text is not None]

    @override
    @steps_operation
    def get(self, letter_id: str) -> Steps[DeadLetter | None]:
        return (yield from self._find(letter_id))

    @override
    @steps_operation
    def remove(self, letter_id: str) -> Steps[bool]:
        letter = yield from self._find(letter_id)
        if letter is None:
            return False
        keys = [self._key("letters"), self._order(None), self._order(letter.queue)]
        return bool((yield _DELETE, keys, [letter_id]))

    @override
    @steps_operation
    def count(self, queue: str | None = None) -> Steps[int]:
        return int((yield "zcard", self._order(queue)))

    def _find(self, letter_id: str) -> Steps[DeadLetter | None]:
        text = yield "hget", self._key("letters"), letter_id
        return None if text is None else DeadLetter.from_dict(json.loads(text))
