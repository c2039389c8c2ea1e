"""Where what outlives a call is kept: one connection to Redis, one to a SQLite file, for everything that stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime.lazy import imported_late

if TYPE_CHECKING:
    from agent_runtime.stores.redis_connection import RedisConnection
    from agent_runtime.stores.sqlite_file import SqliteFile
    from agent_runtime.stores.store_url import StoreUrl

__all__ = ["RedisConnection", "SqliteFile", "StoreUrl"]

# A store of files must not wait for the import of redis, which takes 0.2 s.
_HOMES = {"RedisConnection": "redis_connection", "SqliteFile": "sqlite_file", "StoreUrl": "store_url"}

__getattr__ = imported_late(__name__, _HOMES)
