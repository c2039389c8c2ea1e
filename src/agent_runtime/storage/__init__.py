"""Connect to the stores: one connection to Redis, one to a SQLite file, for all of their users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.storage.operations import InlineStore, Operation, operation, steps_operation
    from agent_runtime.storage.redis_connection import RedisConnection
    from agent_runtime.storage.sqlite_file import SqliteFile
    from agent_runtime.storage.store_url import StoreUrl

__all__ = [
    "InlineStore",
    "Operation",
    "RedisConnection",
    "SqliteFile",
    "StoreUrl",
    "operation",
    "steps_operation",
]

# A store of files must not wait for the import of redis, which takes 0.2 s.
_HOMES = {
    "steps_operation": "agent_runtime.storage.operations",
    "operation": "agent_runtime.storage.operations",
    "Operation": "agent_runtime.storage.operations",
    "InlineStore": "agent_runtime.storage.operations",
    "RedisConnection": "agent_runtime.storage.redis_connection",
    "SqliteFile": "agent_runtime.storage.sqlite_file",
    "StoreUrl": "agent_runtime.storage.store_url",
}

__getattr__ = lazy_exports(__name__, _HOMES)
