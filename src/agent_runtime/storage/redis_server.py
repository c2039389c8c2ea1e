"""Check a Redis server, send it requests, and convert its failures."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from agent_runtime.errors import StoreError, StoreFull, StoreTimeout, StoreUnavailable
from agent_runtime.storage.operations import Steps, adrive, drive

R = TypeVar("R")


def connect_settings(url: str, timeout_s: float, max_connections: int) -> dict[str, Any]:
    """Return a connection pool's arguments, without retries: a lost reply is no lost write."""
    settings: dict[str, Any] = {
        "max_connections": max_connections,
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 30,
    }
    if not url.startswith("unix:"):
        settings["socket_connect_timeout"] = timeout_s
    return settings


def check_server(info: dict[str, dict[str, Any]], *, durable: bool) -> None:
    """Raise StoreUnavailable for a server that would lose data."""
    policy = info["memory"].get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreUnavailable(
            f"the server evicts keys when it is full (maxmemory-policy {policy}), which would "
            "lose stored data: "
            "set maxmemory-policy noeviction"
        )
    persistence = info["persistence"]
    if persistence.get("loading"):
        raise StoreUnavailable("the server is still loading its data")
    if durable and not persistence.get("aof_enabled"):
        raise StoreUnavailable(
            "the server keeps no append-only file, so a crash would lose acknowledged writes: "
            "set appendonly yes, or say durable=False to accept that"
        )


def store_error(error: redis.RedisError) -> StoreError:
    """Return the typed error of a client's exception."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, redis.TimeoutError):
        return StoreTimeout(f"the store did not answer in time ({text})")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in text:
        return StoreFull(f"the store is full ({text})")
    return StoreUnavailable(f"the store cannot be used ({text})")


def run_steps(steps: Steps[R], client: Any) -> R:
    """Run steps, which yield requests to the server; return their result.

    A request is `(script, keys, args)`, or a command with its arguments; a list of them is sent at
    once and runs in order.
    """

    def perform(request: Any) -> Any:
        try:
            return _send(client, request)
        except NoScriptError:
            return _send(client, [request])[0]

    return drive(steps, perform)


async def arun_steps(steps: Steps[R], client: Any) -> R:
    """Run steps on an async client, as `run_steps` does."""

    async def perform(request: Any) -> Any:
        try:
            return await _send(client, request)
        except NoScriptError:
            return (await _send(client, [request]))[0]

    return await adrive(steps, perform)


def _send(client: Any, request: tuple[Any, ...] | list[tuple[Any, ...]]) -> Any:
    """Send scripts by hash, again in full when the server lost them; others directly.

    After NoScriptError nothing was run, so the caller sends it again as a list, whose scripts are
    sent in full. redis-py's own method loads the script and refers to it again, and another flush
    may come between.
    """
    if isinstance(request, list):
        pipeline = client.pipeline(transaction=False)
        for command in request:
            if _is_script(command):
                pipeline.eval(command[0], len(command[1]), *command[1], *command[2])
            else:
                _send(pipeline, command)
        return pipeline.execute()
    if _is_script(request):
        source, keys, args = request
        return client.evalsha(_hash(source), len(keys), *keys, *args)
    return getattr(client, request[0])(*request[1:])


def _is_script(request: tuple[Any, ...]) -> bool:
    return len(request) == 3 and isinstance(request[1], list)


@lru_cache(maxsize=256)
def _hash(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
