"""Where what outlives a call is kept: one connection to Redis, one to a SQLite file, for everything that stores."""

from agent_runtime.stores.redis_connection import RedisConnection
from agent_runtime.stores.sqlite_file import SqliteFile
from agent_runtime.stores.store_url import StoreUrl

__all__ = ["RedisConnection", "SqliteFile", "StoreUrl"]
