"""Connect to Redis or Valkey, and run operations for sync and async callers."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import redis
import redis.asyncio as aioredis

from agent_runtime.cancel_watch import CancelWatch
from agent_runtime.errors import ConfigurationError, StoreTimeout, StoreUnavailable, StoreVersion
from agent_runtime.storage.operations import Steps
from agent_runtime.storage.redis_server import (
    arun_steps,
    check_server,
    connect_settings,
    run_steps,
    store_error,
)
from agent_runtime.storage.store_url import REDIS_ONLY, StoreUrl

R = TypeVar("R")
DEFAULT_PREFIX = "agent_runtime"
DEFAULT_TIMEOUT_S = 3.0
_CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError)


class RedisConnection:
    """Run operations (`@steps_operation`): generators that yield Redis requests.

    Sync and async callers have separate clients, async ones one for each loop. The server is
    checked at the first use: StoreUnavailable when it would evict keys, or is not durable;
    StoreVersion when data of a subclass (`STORE`, in the form of `VERSION`) was written by a newer
    release.

    Args:
        url: a StoreUrl, with `prefix`, `durable` and `timeout_s` as options.
        prefix: of every key; by default `agent_runtime`.
        durable: refuse a server that would lose acknowledged writes when it is killed (append-only
            file off). With False such a loss is reported as StoreUnavailable when it is noticed,
            once.
        timeout_s: for connecting and for each answer.
        max_connections: of each client; a caller waits `timeout_s` for a free one.
    """

    STORE: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1
    UPGRADES: ClassVar[Mapping[int, Callable[[Any], Steps[None]]]] = {}
    """For each version, the upgrade from the previous one, which must be idempotent."""

    def __init__(
        self,
        url: str | StoreUrl,
        *,
        prefix: str | None = None,
        durable: bool = True,
        timeout_s: float | None = None,
        max_connections: int = 64,
    ) -> None:
        address = (
            url if isinstance(url, StoreUrl) else StoreUrl.parse(url, "a Redis store", REDIS_ONLY)
        )
        if prefix is not None and address.prefix not in (None, prefix):
            raise ConfigurationError(
                f"the prefix is '{address.prefix}' in the address and '{prefix}' beside it"
            )
        self.prefix = prefix or address.prefix or DEFAULT_PREFIX
        self._durable = durable if address.durable is None else address.durable
        self._timeout_s = timeout_s or address.timeout_s or DEFAULT_TIMEOUT_S
        self._settings = connect_settings(address.target, self._timeout_s, max_connections)
        self._max_connections = max_connections
        self._url = address.target
        self._epoch = b""
        self._sync_client: Any = None
        self._sync_lock = threading.Lock()
        self._sync_permits = threading.Semaphore(max_connections)
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._async_permits: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )
        self._open_locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    def run_body(self, body: Callable[..., Steps[R]], args: tuple[Any, ...]) -> R:
        """Run an operation; blocks for its round trips. Raises StoreError."""
        return self.run(body(self, *args))

    async def arun_body(self, body: Callable[..., Steps[R]], args: tuple[Any, ...]) -> R:
        """Run an operation. A cancelled one may or may not have arrived; none is half done."""
        return await self.arun(body(self, *args))

    def run(self, steps: Steps[R]) -> R:
        """Run steps that yield Redis requests, and return their result; raises StoreError."""
        if not self._sync_permits.acquire(timeout=self._timeout_s):
            raise self._no_connection()
        client = None
        try:
            with self._sync_lock:
                client = self._sync_client = self._sync_client or self._open_sync_client()
            return run_steps(steps, client)
        except redis.RedisError as error:
            if isinstance(error, _CONNECTION_ERRORS):
                # The next call checks the server again: it may have lost its data.
                with self._sync_lock:
                    self._sync_client = None if self._sync_client is client else self._sync_client
            raise store_error(error) from error
        finally:
            if (
                client is not None and client is not self._sync_client
            ):  # other callers' results are unaffected
                client.connection_pool.disconnect(inuse_connections=False)
            self._sync_permits.release()

    def _open_sync_client(self) -> Any:
        client = redis.Redis(
            connection_pool=redis.ConnectionPool.from_url(self._url, **self._settings)
        )
        try:
            run_steps(self._open_steps(), client)
        except BaseException:
            client.connection_pool.disconnect()
            raise
        return client

    async def arun(self, steps: Steps[R]) -> R:
        """Run steps for async callers, as `run` does."""
        cancels = CancelWatch()
        try:
            return await self._arun(steps)
        finally:
            cancels.check()  # redis-py sends by `asyncio.wait_for`

    async def _arun(self, steps: Steps[R]) -> R:
        loop = asyncio.get_running_loop()
        permits = self._async_permits.get(loop) or self._async_permits.setdefault(
            loop, asyncio.Semaphore(self._max_connections)
        )
        await self._acquire_permit(permits)
        client = self._async_clients.get(loop)
        try:
            if client is None:
                async with self._open_locks.setdefault(loop, asyncio.Lock()):
                    client = self._async_clients.get(loop) or await self._open_client(loop)
            return await arun_steps(steps, client)
        except redis.RedisError as error:
            if (
                isinstance(error, _CONNECTION_ERRORS)
                and client is not None
                and self._async_clients.get(loop) is client
            ):
                del self._async_clients[loop]
            raise store_error(error) from error
        finally:
            permits.release()
            if client is not None and client is not self._async_clients.get(loop):
                await client.connection_pool.disconnect(inuse_connections=False)

    async def _acquire_permit(self, permits: asyncio.Semaphore) -> None:
        # Not redis-py's BlockingConnectionPool: its lock and timer cost each command a fifth of its
        # round trip.
        if not permits.locked():
            await permits.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await permits.acquire()
        except TimeoutError:
            raise self._no_connection() from None

    def _no_connection(self) -> StoreTimeout:
        return StoreTimeout(f"no connection to the store was free for {self._timeout_s} s")

    async def _open_client(self, loop: asyncio.AbstractEventLoop) -> Any:
        for closed_loop in [
            event_loop for event_loop in list(self._async_clients) if event_loop.is_closed()
        ]:
            del self._async_clients[closed_loop]  # its client would keep it alive
        pool = aioredis.ConnectionPool.from_url(self._url, **self._settings)
        client = aioredis.Redis(connection_pool=pool)
        try:
            await arun_steps(self._open_steps(), client)
        except BaseException:
            await pool.disconnect()
            raise
        self._async_clients[loop] = client
        return client

    async def aclose(self) -> None:
        """Close this loop's connections and the sync ones."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.connection_pool.disconnect()
        sync = self._sync_client
        self._sync_client = None
        if sync is not None:
            sync.connection_pool.disconnect()

    def _open_steps(self) -> Steps[None]:
        """Check the server before its first use, and the version of the stored data."""
        memory = yield "info", "memory"
        persistence = yield "info", "persistence"
        check_server({"memory": memory, "persistence": persistence}, durable=self._durable)
        epoch_key = f"{self.prefix}:epoch"
        # Not `uuid.uuid4`: a test that replaces it counts its own ids.
        yield "execute_command", "SET", epoch_key, secrets.token_hex(16), "NX"
        self._check_epoch((yield "get", epoch_key))
        if self.STORE:
            yield from self._check_version()

    def _check_version(self) -> Steps[None]:
        key = f"{self.prefix}:versions"
        # Data without a version is of version 1, or new.
        is_unmarked = yield "hsetnx", key, self.STORE, 1
        version = int((yield "hget", key, self.STORE))
        if version > self.VERSION:
            raise StoreVersion(
                f"the {self.STORE} under the prefix '{self.prefix}' have version {version}, and "
                "this release of "
                f"agent_runtime knows {self.VERSION}: they were made by a newer one, which has "
                "to open them"
            )
        for newer in range(version + 1, self.VERSION + 1):
            yield from self.UPGRADES[newer](self)
            yield "hset", key, self.STORE, newer
        if is_unmarked:
            yield from self._initialize_store()

    def _initialize_store(self) -> Steps[None]:
        """Initialise a store without a version, once."""
        yield from ()

    def _check_epoch(self, epoch: Any) -> None:
        previous_epoch = self._epoch
        self._epoch = epoch
        if previous_epoch not in (b"", epoch):
            self._on_data_loss()
            raise StoreUnavailable(
                "the server has lost its data since it was last used (its epoch changed)"
            )

    def _on_data_loss(self) -> None:
        """Drop cached state: the server has lost its data."""
