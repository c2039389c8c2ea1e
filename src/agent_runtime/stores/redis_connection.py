"""A connection to Redis or Valkey that runs operations for sync and async callers."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Generator
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from weakref import WeakKeyDictionary

import redis
import redis.asyncio as aioredis

from agent_runtime.errors import ConfigurationError, StoreTimeout, StoreUnavailable
from agent_runtime.redaction import SECRETS
from agent_runtime.stores.redis_server import adriven, check_server, connect_settings, driven, store_error

Steps: TypeAlias = Generator[Any, Any, Any]
_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_LOST = (redis.ConnectionError, redis.TimeoutError)


class RedisConnection:
    """Runs operations (methods named after them, with an underscore) that yield one request after another.

    Sync and async callers have clients of their own, async ones one for each loop.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        prefix: of every key.
        durable: refuse a server that would lose acknowledged writes when it is killed (append-only file off).
            With False such a loss is reported as StoreUnavailable when it is noticed, once.
        timeout_s: for connecting and for each answer.
        max_connections: of each client; a caller waits `timeout_s` for a free one.

    The server is checked at the first use: StoreUnavailable when it would evict keys, or is not durable.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "agent_runtime",
        durable: bool = True,
        timeout_s: float = 3.0,
        max_connections: int = 64,
    ) -> None:
        SECRETS.add_address(url)
        self.prefix, self._durable = prefix, durable
        self._settings = connect_settings(url, timeout_s, max_connections)
        self._timeout_s, self._max_connections = timeout_s, max_connections
        self._url, self._epoch = url, b""
        self._sync: Any = None
        self._sync_lock, self._sync_slots = threading.Lock(), threading.Semaphore(max_connections)
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._opening: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    @classmethod
    def from_url(cls, url: str, *, durable: bool = True) -> Self:
        """A connection to the server at `url`, whose query may have `prefix`, `durable` (yes, no) and `timeout_s`."""
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        said = query.pop("durable", "yes" if durable else "no")
        if said not in _YES_NO:
            raise ConfigurationError(f"durable is yes or no, not '{said}'")
        own: dict[str, Any] = {"durable": _YES_NO[said]}
        if "prefix" in query:
            own["prefix"] = query.pop("prefix")
        if "timeout_s" in query:
            own["timeout_s"] = float(query.pop("timeout_s"))
        return cls(urlunsplit(parts._replace(query=urlencode(query))), **own)

    def call(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name; blocks for the round trip."""
        return self.run(getattr(self, f"_{operation}")(*args))

    async def acall(self, operation: str, *args: Any) -> Any:
        """Run the operation of this name. A cancelled one may or may not have arrived; none is half done."""
        return await self.arun(getattr(self, f"_{operation}")(*args))

    def run(self, steps: Steps) -> Any:
        """The result of `steps`, which yield requests; raises StoreError."""
        if not self._sync_slots.acquire(timeout=self._timeout_s):
            raise self._no_connection()
        client = None
        try:
            with self._sync_lock:
                client = self._sync = self._sync or self._opened_sync()
            return driven(steps, client)
        except redis.RedisError as error:
            if isinstance(error, _LOST):
                # The next call checks the server anew: it may have come back empty.
                with self._sync_lock:
                    self._sync = None if self._sync is client else self._sync
            raise store_error(error) from error
        finally:
            if client is not None and client is not self._sync:  # what others wait for may still come
                client.connection_pool.disconnect(inuse_connections=False)
            self._sync_slots.release()

    def _opened_sync(self) -> Any:
        client = redis.Redis(connection_pool=redis.ConnectionPool.from_url(self._url, **self._settings))
        check_server({n: client.info(n) for n in ("memory", "persistence")}, durable=self._durable)
        client.set(self._epoch_key, uuid.uuid4().hex, nx=True)
        self._check_epoch(client.get(self._epoch_key))
        return client

    async def arun(self, steps: Steps) -> Any:
        """`run` for async callers."""
        task = asyncio.current_task()
        cancelled = 0 if task is None else task.cancelling()
        try:
            return await self._arun(steps)
        finally:
            # redis-py sends by `asyncio.wait_for`, which on Python 3.11 loses a cancellation that comes as it ends.
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError

    async def _arun(self, steps: Steps) -> Any:
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop) or self._slots.setdefault(loop, asyncio.Semaphore(self._max_connections))
        await self._wait_for(slots)
        client = self._async.get(loop)
        try:
            if client is None:
                async with self._opening.setdefault(loop, asyncio.Lock()):
                    client = self._async.get(loop) or await self._opened(loop)
            return await adriven(steps, client)
        except redis.RedisError as error:
            if isinstance(error, _LOST) and client is not None and self._async.get(loop) is client:
                del self._async[loop]
            raise store_error(error) from error
        finally:
            slots.release()
            if client is not None and client is not self._async.get(loop):
                await client.connection_pool.disconnect(inuse_connections=False)

    async def _wait_for(self, slots: asyncio.Semaphore) -> None:
        # Not redis-py's BlockingConnectionPool: its lock and timer cost each command a fifth of its round trip.
        if not slots.locked():
            await slots.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await slots.acquire()
        except TimeoutError:
            raise self._no_connection() from None

    def _no_connection(self) -> StoreTimeout:
        return StoreTimeout(f"no connection to the store was free for {self._timeout_s} s")

    async def _opened(self, loop: asyncio.AbstractEventLoop) -> Any:
        for other in [each for each in list(self._async) if each.is_closed()]:
            del self._async[other]  # its client would keep it for ever
        pool = aioredis.ConnectionPool.from_url(self._url, **self._settings)
        client = aioredis.Redis(connection_pool=pool)
        try:
            check_server({n: await client.info(n) for n in ("memory", "persistence")}, durable=self._durable)
            await client.set(self._epoch_key, uuid.uuid4().hex, nx=True)
            self._check_epoch(await client.get(self._epoch_key))
        except BaseException:
            await pool.disconnect()
            raise
        self._async[loop] = client
        return client

    async def aclose(self) -> None:
        """Close this loop's connections and the sync ones."""
        client = self._async.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.connection_pool.disconnect()
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.connection_pool.disconnect()

    @property
    def _epoch_key(self) -> str:
        return f"{self.prefix}:epoch"

    def _check_epoch(self, epoch: Any) -> None:
        known, self._epoch = self._epoch, epoch
        if known not in (b"", epoch):
            self._lost()
            raise StoreUnavailable("the server has lost its data since it was last used (its epoch changed)")

    def _lost(self) -> None:
        """The server has come back empty: forget what was known of it."""
