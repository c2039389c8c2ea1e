"""Store API keys and revoked tokens in memory, SQLite or Redis."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from typing_extensions import override

from agent_runtime.auth.api_keys import ApiKey, ApiKeys, KeyStore
from agent_runtime.storage import RedisConnection, SqliteFile, StoreUrl
from agent_runtime.storage.deletion_clock import ProcessClock
from agent_runtime.storage.operations import InlineStore, Steps, operation, steps_operation
from agent_runtime.storage.sqlite_schema import StoreSchema
from agent_runtime.storage.store_plugins import open_plugin

REVOCATION_GRACE_S = 120.0
"""Seconds a revocation outlives its token, which is accepted within the leeway of clocks."""
_CHANGE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class MemoryKeyStore(InlineStore, KeyStore):
    """Store keys in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, ApiKey] = {}
        self._clock = ProcessClock()
        self._revoked: dict[str, float] = {}

    @override
    @operation
    def put_key(self, key: ApiKey) -> None:
        self._keys[key.id] = key

    @override
    @operation
    def replace_key(self, old: ApiKey, new: ApiKey) -> bool:
        same = self._keys.get(old.id) == old
        if same:
            self._keys[new.id] = new
        return same

    @override
    @operation
    def get_key(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    @override
    @operation
    def list_keys(self) -> list[ApiKey]:
        return list(self._keys.values())

    @override
    @operation
    def revoke_token(self, token_id: str, until: float) -> None:
        now = self._clock.deletion_time()
        self._revoked = {revoked_id: end for revoked_id, end in self._revoked.items() if end > now}
        self._revoked[token_id] = until + REVOCATION_GRACE_S

    @override
    @operation
    def is_token_revoked(self, token_id: str) -> bool:
        return token_id in self._revoked


class SqliteKeyStore(SqliteFile, KeyStore):
    """Keys in one SQLite file. Takes SqliteFile's arguments."""

    SCHEMA = StoreSchema(
        "keys",
        """
CREATE TABLE IF NOT EXISTS api_keys (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revoked_tokens (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
""",
    )

    @override
    @operation
    def put_key(self, key: ApiKey) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO api_keys VALUES (?,?)", (key.id, _key_to_json(key))
        )

    @override
    @operation
    def replace_key(self, old: ApiKey, new: ApiKey) -> bool:
        changed = self._db.execute(
            "UPDATE api_keys SET record=? WHERE id=? AND record=?",
            (_key_to_json(new), old.id, _key_to_json(old)),
        )
        return changed.rowcount == 1

    @override
    @operation
    def get_key(self, key_id: str) -> ApiKey | None:
        row = self._db.execute("SELECT record FROM api_keys WHERE id=?", (key_id,)).fetchone()
        return None if row is None else _key_from_json(row[0])

    @override
    @operation
    def list_keys(self) -> list[ApiKey]:
        return [_key_from_json(text) for (text,) in self._db.execute("SELECT record FROM api_keys")]

    @override
    @operation
    def revoke_token(self, token_id: str, until: float) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM revoked_tokens WHERE until<?", (self._deletion_time(),))
            db.execute(
                "INSERT OR REPLACE INTO revoked_tokens VALUES (?,?)",
                (token_id, until + REVOCATION_GRACE_S),
            )

    @override
    @operation
    def is_token_revoked(self, token_id: str) -> bool:
        return (
            self._db.execute("SELECT 1 FROM revoked_tokens WHERE id=?", (token_id,)).fetchone()
            is not None
        )


class RedisKeyStore(RedisConnection, KeyStore):
    """Keys on a Redis server. Takes RedisConnection's arguments."""

    STORE = "keys"

    @override
    @steps_operation
    def put_key(self, key: ApiKey) -> Steps[None]:
        yield "hset", f"{self.prefix}:api_keys", key.id, _key_to_json(key)

    @override
    @steps_operation
    def replace_key(self, old: ApiKey, new: ApiKey) -> Steps[bool]:
        return bool(
            (
                yield (
                    _CHANGE,
                    [f"{self.prefix}:api_keys"],
                    [old.id, _key_to_json(old), _key_to_json(new)],
                )
            )
        )

    @override
    @steps_operation
    def get_key(self, key_id: str) -> Steps[ApiKey | None]:
        record_text = yield "hget", f"{self.prefix}:api_keys", key_id
        return None if record_text is None else _key_from_json(record_text)

    @override
    @steps_operation
    def list_keys(self) -> Steps[list[ApiKey]]:
        record_texts = yield "hvals", f"{self.prefix}:api_keys"
        return [_key_from_json(text) for text in record_texts]

    @override
    @steps_operation
    def revoke_token(self, token_id: str, until: float) -> Steps[None]:
        yield (
            "set",
            f"{self.prefix}:revoked:{token_id}",
            "1",
            max(1, round(until + REVOCATION_GRACE_S - time.time())),
        )

    @override
    @steps_operation
    def is_token_revoked(self, token_id: str) -> Steps[bool]:
        return bool((yield "exists", f"{self.prefix}:revoked:{token_id}"))


def open_keys(url: str, pepper: bytes) -> ApiKeys:
    """Open the API keys at an address (memory, SQLite, Redis, or of a package).

    Raises ConfigurationError, StoreError.
    """
    store: KeyStore | None = open_plugin("keys", url, KeyStore)
    if store is not None:
        return ApiKeys(store, pepper)
    address = StoreUrl.parse(url, "the API keys")
    if address.kind == "memory":
        return ApiKeys(MemoryKeyStore(), pepper)
    if address.kind == "redis":
        return ApiKeys(RedisKeyStore(address), pepper)
    return ApiKeys(SqliteKeyStore(address.target), pepper)


def _key_to_json(key: ApiKey) -> str:
    fields = asdict(key)
    if not key.mac:  # as the versions before it wrote them: a change compares the text
        del fields["mac"]
    return json.dumps(fields)


def _key_from_json(text: str | bytes) -> ApiKey:
    fields = json.loads(text)
    return ApiKey(**{**fields, "scopes": tuple(fields["scopes"])})
