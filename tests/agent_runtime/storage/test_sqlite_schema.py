"""Every store carries a version.

An older one is upgraded, a newer one and a foreign one are refused untouched.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis

from agent_runtime.auth.key_stores import RedisKeyStore, SqliteKeyStore
from agent_runtime.batch.journal.redis import RedisJournal
from agent_runtime.batch.journal.sqlite import SqliteJournal
from agent_runtime.budgets.ledger.redis import RedisLedger
from agent_runtime.budgets.ledger.sqlite import SqliteLedger
from agent_runtime.checkpoints.backends.redis import RedisCheckpointBackend
from agent_runtime.checkpoints.backends.sqlite import SqliteCheckpointBackend
from agent_runtime.errors import StoreVersion
from agent_runtime.event_bus.brokers import SqliteBroker
from agent_runtime.event_bus.brokers.redis import RedisBroker
from agent_runtime.event_bus.dead_letters import SqliteDeadLetters
from agent_runtime.event_bus.deduplication import SqliteDeduplicationStore
from agent_runtime.event_bus.redis_dead_letters import RedisDeadLetters
from agent_runtime.storage import RedisConnection, SqliteFile
from agent_runtime.storage.operations import Steps, steps_operation
from agent_runtime.storage.sqlite_schema import StoreSchema

FILES: list[Callable[[str], SqliteFile]] = [
    SqliteCheckpointBackend, SqliteLedger, SqliteKeyStore, SqliteBroker, SqliteDeadLetters,
    SqliteDeduplicationStore,
    SqliteJournal,
]  # fmt: skip
SERVERS: list[tuple[type[RedisConnection], Callable[[Any], Awaitable[Any]]]] = [
    (RedisCheckpointBackend, lambda store: store.list_checkpoints("t", None, None, None)),
    (RedisLedger, lambda store: store.balances()),
    (RedisKeyStore, lambda store: store.list_keys()),
    (RedisJournal, lambda store: store.list()),
    (RedisBroker, lambda store: store.read()),
    (RedisDeadLetters, lambda store: store.count()),
]


def query(path: str, sql: str) -> list[Any]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def change(path: str, script: str) -> None:
    db = sqlite3.connect(path)
    db.executescript(script)
    db.close()


@pytest.mark.parametrize("store", FILES, ids=lambda store: store.__name__)
async def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(
    store: Callable[[str], SqliteFile], tmp_path: Path
) -> None:
    path = str(tmp_path / "state.db")
    await store(path).aclose()
    assert query(path, "PRAGMA user_version") == [(1,)]
    assert len(query(path, "SELECT store, version FROM agent_runtime_stores")) == 1
    for script in (
        "PRAGMA user_version = 99",
        "UPDATE agent_runtime_stores SET version = version + 1",
    ):
        change(path, script)
        before = Path(path).read_bytes()
        with pytest.raises(StoreVersion, match="newer one") as refused:
            store(path)
        assert (refused.value.code, Path(path).read_bytes()) == ("store_version", before)
    change(path, "PRAGMA user_version = 1; UPDATE agent_runtime_stores SET version = version - 1")
    await store(path).aclose()


async def test_several_stores_share_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    for store in FILES:
        await store(path).aclose()
    for store in FILES:
        await store(path).aclose()
    assert len(query(path, "SELECT store FROM agent_runtime_stores")) == len(FILES)


def test_a_file_with_tables_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    change(path, "CREATE TABLE rows (thread TEXT, namespace TEXT, id TEXT, chunks TEXT, data BLOB)")
    with pytest.raises(StoreVersion, match="made by another version"):
        SqliteCheckpointBackend(path)
    assert [name for (name,) in query(path, "SELECT name FROM sqlite_master")] == ["rows"]
    change(path, "DROP TABLE rows; CREATE TABLE api_keys (id TEXT)")
    with pytest.raises(StoreVersion, match="has no column record"):
        SqliteKeyStore(path)


class Counter(SqliteFile):
    SCHEMA: ClassVar[StoreSchema] = StoreSchema(
        "counter", "CREATE TABLE IF NOT EXISTS counts (name TEXT, n INTEGER);"
    )


class NewCounter(SqliteFile):
    SCHEMA: ClassVar[StoreSchema] = StoreSchema(
        "counter",
        "CREATE TABLE IF NOT EXISTS counts (name TEXT, n INTEGER, unit TEXT);",
        version=3,
        upgrades={
            2: "ALTER TABLE counts ADD COLUMN unit TEXT; UPDATE counts SET unit = 'each';",
            3: "UPDATE counts SET n = n * 10;",
        },
    )


async def test_each_upgrade_runs_once_whoever_opens_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    old = Counter(path)
    old._db.execute("INSERT INTO counts VALUES ('a', 7)")
    await old.aclose()
    change(
        path, "DROP TABLE agent_runtime_stores; PRAGMA user_version = 0"
    )  # as before files had versions
    opened: list[SqliteFile] = []
    threads = [threading.Thread(target=lambda: opened.append(NewCounter(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert query(path, "SELECT * FROM counts") == [("a", 70, "each")]
    for each in opened:
        await each.aclose()
    assert len(opened) == 8
    with pytest.raises(StoreVersion):
        Counter(path)


async def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    class Broken(SqliteFile):
        SCHEMA: ClassVar[StoreSchema] = StoreSchema(
            "counter",
            NewCounter.SCHEMA.tables,
            2,
            {2: "UPDATE counts SET n = 0; UPDATE absent SET n = 1;"},
        )

    path = str(tmp_path / "state.db")
    old = Counter(path)
    old._db.execute("INSERT INTO counts VALUES ('a', 7)")
    await old.aclose()
    with pytest.raises(StoreVersion, match="no such table: absent"):
        Broken(path)
    assert query(path, "SELECT * FROM counts") == [("a", 7)]


@pytest.mark.parametrize(
    ("store", "request_of"), SERVERS, ids=[store.__name__ for store, _ in SERVERS]
)
async def test_a_redis_prefix_of_a_newer_version_is_refused(
    store: type[RedisConnection],
    request_of: Callable[[Any], Awaitable[Any]],
    redis_url: str,
) -> None:
    prefix = uuid.uuid4().hex

    async def use() -> None:
        opened = store(f"{redis_url}/0?prefix={prefix}")
        try:
            await request_of(opened)
        finally:
            await opened.aclose()

    await use()
    client = redis.Redis.from_url(redis_url)
    key = f"{prefix}:versions"
    assert client.hgetall(key) == {store.STORE.encode(): b"1"}
    client.hset(key, store.STORE, "2")
    with pytest.raises(StoreVersion, match="newer one"):
        await use()
    client.close()


async def test_a_redis_store_is_upgraded_once(redis_url: str) -> None:
    def double(store: Any) -> Any:
        number = yield "get", f"{store.prefix}:n"
        yield "set", f"{store.prefix}:n", int(number) * 2

    class Old(RedisConnection):
        STORE = "numbers"

        @steps_operation
        def put(self, number: int) -> Steps[None]:
            yield "set", f"{self.prefix}:n", number

        @steps_operation
        def get(self) -> Steps[int]:
            return int((yield "get", f"{self.prefix}:n"))

    class New(Old):
        VERSION = 2
        UPGRADES: ClassVar[Any] = {2: double}

    url = f"{redis_url}/0?prefix={uuid.uuid4().hex}"
    old = Old(url)
    new = New(url)
    old.put(21).run()
    assert [new.get().run(), await new.get()] == [42, 42]
    with pytest.raises(StoreVersion):
        Old(url).get().run()
    await old.aclose()
    await new.aclose()
