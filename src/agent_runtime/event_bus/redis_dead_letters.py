"""Dead letters on Redis or Valkey, for several machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent_runtime.event_bus.dead_letter import DeadLetter
from agent_runtime.storage import RedisConnection

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


class RedisDeadLetters(RedisConnection):
    """Keep dead letters on a Redis server; its keys share a slot.

    See RedisConnection for the arguments.
    """

    STORE = "dead_letters"

    def _key(self, part: str) -> str:
        return f"{{{self.prefix}:dead_letters}}:{part}"

    def _order(self, queue: str | None) -> str:
        return self._key("order") if queue is None else self._key(f"queue:{queue}")

    async def add(self, letter: DeadLetter) -> None:
        """Keep a letter; one with a known id changes nothing."""
        await self.acall("insert", letter)

    async def list(self, queue: str | None = None, *, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest letters first, of one queue or of all."""
        letters: Sequence[DeadLetter] = await self.acall("select", queue, limit)
        return letters

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return the letter, or None."""
        letter: DeadLetter | None = await self.acall("find", letter_id)
        return letter

    async def remove(self, letter_id: str) -> bool:
        """Throw a letter away; False when it is not there."""
        removed: bool = await self.acall("delete", letter_id)
        return removed

    async def count(self, queue: str | None = None) -> int:
        """Return how many letters a queue has, or all queues."""
        counted: int = await self.acall("count", queue)
        return counted

    def _insert(self, letter: DeadLetter) -> Any:
        text = json.dumps(letter.to_dict(), ensure_ascii=True)
        keys = [
            self._key("letters"),
            self._order(None),
            self._order(letter.queue),
            self._key("number"),
        ]
        yield _INSERT, keys, [letter.id, text]

    def _select(self, queue: str | None, limit: int) -> Any:
        if limit < 1:
            return []
        ids = yield "zrange", self._order(queue), 0, limit - 1
        texts = (yield "hmget", self._key("letters"), ids) if ids else []
        return [DeadLetter.from_dict(json.loads(text)) for text in texts if text is not None]

    def _find(self, letter_id: str) -> Any:
        text = yield "hget", self._key("letters"), letter_id
        return None if text is None else DeadLetter.from_dict(json.loads(text))

    def _delete(self, letter_id: str) -> Any:
        letter = yield from self._find(letter_id)
        if letter is None:
            return False
        keys = [self._key("letters"), self._order(None), self._order(letter.queue)]
        return bool((yield _DELETE, keys, [letter_id]))

    def _count(self, queue: str | None) -> Any:
        return (yield "zcard", self._order(queue))
