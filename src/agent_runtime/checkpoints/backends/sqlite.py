"""Store checkpoints in one SQLite file, for the processes of one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from agent_runtime.checkpoints.backends.backend import (
    CheckpointBackend,
    CheckpointRow,
    Chunk,
    ChunkConflict,
    FencingToken,
    Lease,
    LoadedCheckpoint,
    ParentDeleted,
    Write,
)
from agent_runtime.checkpoints.backends.sqlite_session_table import (
    SESSION_TABLES,
    SqliteSessionTable,
)
from agent_runtime.checkpoints.chunk_refs import parse_refs
from agent_runtime.errors import CheckpointCorrupt, StaleWriter
from agent_runtime.storage.operations import operation
from agent_runtime.storage.process_identity import boot_s, is_lease_held
from agent_runtime.storage.sqlite_file import SqliteFile
from agent_runtime.storage.sqlite_schema import StoreSchema

_TABLES = """
CREATE TABLE IF NOT EXISTS threads (thread TEXT PRIMARY KEY, owner TEXT NOT NULL DEFAULT '',
    token INTEGER NOT NULL
    DEFAULT 0, until REAL NOT NULL DEFAULT 0, expires_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (thread TEXT, namespace TEXT, id TEXT, parent TEXT,
    chunks TEXT NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (thread, namespace, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (thread TEXT, namespace TEXT, channel TEXT, number INTEGER,
    data BLOB NOT NULL,
    PRIMARY KEY (thread, namespace, channel, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writes (thread TEXT, namespace TEXT, id TEXT, task TEXT,
    position INTEGER,
    path TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (thread, namespace, id, task,
        position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (run TEXT, thread TEXT, PRIMARY KEY (run, thread)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tools (thread TEXT, name TEXT, result BLOB NOT NULL,
    PRIMARY KEY (thread, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (thread TEXT, place TEXT, data BLOB, at REAL,
    PRIMARY KEY (thread, place));
"""

# Leases use the machine's boot clock since version 2; those of version 1 used the wall clock.
_EXPIRE_LEASES = "UPDATE threads SET until = 0;"
_HAS_ROW = "SELECT 1 FROM rows WHERE thread=? AND namespace=? AND id=?"
_CHUNKS_BETWEEN = (
    "SELECT number, data FROM chunks WHERE thread=? AND namespace=? AND "
    "channel=? AND number BETWEEN ? AND ?"
)
_ROW = (
    "SELECT id, parent, chunks, data, (SELECT expires_at FROM threads WHERE thread=?1) "
    "FROM rows WHERE thread=?1 AND namespace=?2"
)
# One statement: a thread without a record of its own may be quarantined as well.
_THREAD_STATE = (
    "SELECT token, until, owner, expires_at, (SELECT place FROM quarantine WHERE thread=?1 LIMIT "
    "1), thread "
    "FROM (SELECT 1) LEFT JOIN threads ON thread=?1"
)
_THREAD_TABLES = ("rows", "chunks", "writes", "runs", "tools", "quarantine")


class SqliteCheckpointBackend(SqliteFile, CheckpointBackend):
    """Every operation is one transaction. Takes SqliteFile's arguments."""

    SCHEMA = StoreSchema(
        "sessions", _TABLES + SESSION_TABLES, version=2, upgrades={2: _EXPIRE_LEASES}
    )

    def __init__(self, path: str | Path, **settings: Any) -> None:
        super().__init__(path, **settings)
        self._swept_at = 0.0
        self._sessions = SqliteSessionTable(self)

    @property
    @override
    def sessions(self) -> SqliteSessionTable:
        return self._sessions

    # -- checkpoints

    @override
    @operation
    def save(
        self,
        thread: str,
        row: CheckpointRow,
        chunks: Sequence[Chunk],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
        run_id: str | None,
        shared: bool,
    ) -> None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token, ttl_s)
            if fencing_token and row.namespace == "":
                head = db.execute(
                    "SELECT max(id) FROM rows WHERE thread=? AND namespace=''", (thread,)
                ).fetchone()[0]
                if head != row.parent_id:
                    raise StaleWriter("the head of the session is another than this turn continues")
            parent = (thread, row.namespace, row.parent_id)
            if shared and row.parent_id and not db.execute(_HAS_ROW, parent).fetchone():
                raise ParentDeleted
            try:
                db.executemany(
                    "INSERT INTO chunks VALUES (?,?,?,?,?)",
                    [(thread, row.namespace, c.channel, c.number, c.data) for c in chunks],
                )
            except sqlite3.IntegrityError as error:
                raise ChunkConflict from error
            row_key = (thread, row.namespace, row.checkpoint_id)
            db.execute(
                "INSERT OR REPLACE INTO rows VALUES (?,?,?,?,?,?)",
                (*row_key, row.parent_id, row.chunks, row.data),
            )
            if run_id is not None:
                db.execute("INSERT OR IGNORE INTO runs VALUES (?,?)", (run_id, thread))

    @override
    @operation
    def save_writes(
        self,
        thread: str,
        namespace: str,
        checkpoint_id: str,
        writes: Sequence[Write],
        fencing_token: FencingToken | None,
        ttl_s: float | None,
    ) -> None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token, ttl_s)
            for write in writes:
                conflict_action = "REPLACE" if write.index < 0 else "IGNORE"
                values = (
                    thread,
                    namespace,
                    checkpoint_id,
                    write.task_id,
                    write.index,
                    write.path,
                    write.data,
                )
                db.execute(
                    f"INSERT OR {conflict_action} INTO writes VALUES (?,?,?,?,?,?,?)",
                    values,
                )

    def _check_writable(
        self, thread: str, fencing_token: FencingToken | None, ttl_s: float | None = None
    ) -> None:
        self._sweep()
        token, until, owner, expires_at, quarantined_location, existing_thread = self._db.execute(
            _THREAD_STATE, (thread,)
        ).fetchone()
        if fencing_token is not None and fencing_token.value != (token or 0):
            raise StaleWriter("another writer has the session")
        if fencing_token is None and is_lease_held(owner or "", until or 0.0):
            raise StaleWriter("a turn of the session is running")
        if quarantined_location is not None:
            raise CheckpointCorrupt(
                quarantined_location, "the session is quarantined and takes no writes"
            )
        if expires_at is not None and expires_at <= self._deletion_time():
            self._erase(thread)  # the thread starts over
        expires = None if ttl_s is None else time.time() + ttl_s
        if existing_thread is None or expires is not None or expires_at is not None:
            self._db.execute(
                "INSERT INTO threads (thread, expires_at) VALUES (?,?) "
                "ON CONFLICT (thread) DO UPDATE SET expires_at=excluded.expires_at",
                (thread, expires),
            )

    @override
    @operation
    def load(
        self, thread: str, namespace: str, checkpoint_id: str | None, cached_id: str | None
    ) -> LoadedCheckpoint | None:
        self._db.execute(
            "BEGIN"
        )  # one moment: a prune between two of these reads would look like damage
        try:
            return self._load_in_transaction(thread, namespace, checkpoint_id, cached_id)
        finally:
            self._db.execute("COMMIT")

    def _load_in_transaction(
        self, thread: str, namespace: str, checkpoint_id: str | None, cached_id: str | None
    ) -> LoadedCheckpoint | None:
        if checkpoint_id is None:
            record = self._db.execute(
                f"{_ROW} ORDER BY id DESC LIMIT 1", (thread, namespace)
            ).fetchone()
        else:
            record = self._db.execute(
                f"{_ROW} AND id=?3", (thread, namespace, checkpoint_id)
            ).fetchone()
        if record is None or self._is_expired(record[4]):
            return None
        row = CheckpointRow(namespace, *record[:4])
        writes = self._db.execute(
            "SELECT task, position, path, data FROM writes WHERE thread=? AND namespace=? AND id=?",
            (thread, namespace, row.checkpoint_id),
        ).fetchall()
        loaded = LoadedCheckpoint(row, [Write(*w) for w in writes])
        if row.checkpoint_id == cached_id:
            return loaded
        for channel, ranges in parse_refs(row.chunks).items():
            for first, last in ranges:
                for number, data in self._db.execute(
                    _CHUNKS_BETWEEN, (thread, namespace, channel, first, last)
                ):
                    loaded.chunks[channel, number] = data
        return loaded

    def _is_thread_expired(self, thread: str) -> bool:
        record = self._db.execute(
            "SELECT expires_at FROM threads WHERE thread=?", (thread,)
        ).fetchone()
        return record is not None and self._is_expired(record[0])

    def _is_expired(self, expires_at: float | None) -> bool:
        # By the clock of deletions, so that only invisible threads are erased.
        return expires_at is not None and expires_at <= self._deletion_time()

    def _sweep(self) -> None:
        # Erase expired threads at times; they are invisible already.
        if time.monotonic() - self._swept_at < 60:
            return
        self._swept_at = time.monotonic()
        due = self._db.execute(
            "SELECT thread FROM threads WHERE expires_at <= ? LIMIT 100", (self._deletion_time(),)
        ).fetchall()
        for (thread,) in due:
            self._erase(thread)

    def _erase(self, thread: str) -> None:
        for table in _THREAD_TABLES:
            self._db.execute(
                f"DELETE FROM {table} WHERE thread=?",
                (thread,),
            )
        # The row stays for its token: an earlier writer must not see the count restart.
        self._db.execute("UPDATE threads SET expires_at=NULL WHERE thread=?", (thread,))

    @override
    @operation
    def list_checkpoints(
        self, thread: str, namespace: str | None, before: str | None, limit: int | None
    ) -> Sequence[tuple[str, Any]]:
        if self._is_thread_expired(thread):
            return []
        return self._db.execute(
            "SELECT namespace, id FROM rows WHERE thread=?1 AND (?2 IS NULL OR namespace=?2) AND "
            "(?3 IS NULL OR id<?3) "
            "ORDER BY id DESC LIMIT ?4",
            (thread, namespace, before, -1 if limit is None else limit),
        ).fetchall()

    @override
    @operation
    def list_threads(self, after: str, limit: int) -> Sequence[str]:
        records = self._db.execute(
            "SELECT DISTINCT thread FROM rows WHERE thread>? ORDER BY thread LIMIT ?",
            (after, limit),
        ).fetchall()
        return [thread for (thread,) in records]

    @override
    @operation
    def threads_of_run(self, run_id: str) -> Sequence[str]:
        return [
            thread
            for (thread,) in self._db.execute("SELECT thread FROM runs WHERE run=?", (run_id,))
        ]

    @override
    @operation
    def next_chunk_number(self, thread: str, namespace: str, channel: str) -> int:
        query = "SELECT max(number) FROM chunks WHERE thread=? AND namespace=? AND channel=?"
        highest_number = self._db.execute(query, (thread, namespace, channel)).fetchone()[0]
        return 0 if highest_number is None else int(highest_number) + 1

    @override
    @operation
    def delete_checkpoints(
        self,
        thread: str,
        keys: Sequence[tuple[str, str]],
        chunks: Mapping[tuple[str, str], Collection[int]],
    ) -> None:
        with self._transaction() as db:
            row_keys = [(thread, *key) for key in keys]
            db.executemany("DELETE FROM rows WHERE thread=? AND namespace=? AND id=?", row_keys)
            db.executemany("DELETE FROM writes WHERE thread=? AND namespace=? AND id=?", row_keys)
            chunk_keys = [
                (thread, *key, number) for key, numbers in chunks.items() for number in numbers
            ]
            db.executemany(
                "DELETE FROM chunks WHERE thread=? AND namespace=? AND channel=? AND number=?",
                chunk_keys,
            )

    @override
    @operation
    def delete_thread(self, thread: str) -> None:
        with self._transaction():
            self._erase(thread)

    @override
    @operation
    def quarantine(self, thread: str, location: str, data: bytes) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO quarantine VALUES (?,?,?,?)",
                (thread, location, data, time.time()),
            )

    @override
    @operation
    def quarantined_blobs(self, thread: str) -> Sequence[tuple[str, Any]]:
        return self._db.execute(
            "SELECT place, data FROM quarantine WHERE thread=?", (thread,)
        ).fetchall()

    # -- leases and tool calls of turns

    @override
    @operation
    def acquire_lease(self, thread: str, owner: str, ttl_s: float) -> Lease | None:
        with self._transaction() as db:
            query = "SELECT token, until, owner FROM threads WHERE thread=?"
            token, until, holder = db.execute(query, (thread,)).fetchone() or (0, 0.0, "")
            if is_lease_held(holder, until):
                return None
            token += 1
            db.execute(
                "INSERT INTO threads (thread, owner, token, until) VALUES (?,?,?,?) ON CONFLICT "
                "(thread) DO UPDATE "
                "SET owner=excluded.owner, token=excluded.token, until=excluded.until",
                (thread, owner, token, boot_s() + ttl_s),
            )
        return Lease(thread, owner, token, clean_shutdown=holder == "")

    @override
    @operation
    def renew_lease(self, lease: Lease, ttl_s: float) -> bool:
        query = "UPDATE threads SET until=? WHERE thread=? AND owner=? AND token=?"
        return (
            self._db.execute(
                query, (boot_s() + ttl_s, lease.thread, lease.owner, lease.token)
            ).rowcount
            == 1
        )

    @override
    @operation
    def release_lease(self, lease: Lease, clean: bool) -> None:
        query = "UPDATE threads SET until=0, owner=? WHERE thread=? AND owner=? AND token=?"
        self._db.execute(
            query, ("" if clean else lease.owner, lease.thread, lease.owner, lease.token)
        )

    @override
    @operation
    def revoke_lease(self, thread: str) -> None:
        # The owner stays: its turn was cut, which the next lease reports.
        self._db.execute("UPDATE threads SET until=0, token=token+1 WHERE thread=?", (thread,))

    @override
    @operation
    def start_tool_call(
        self, thread: str, key: str, fencing_token: FencingToken | None
    ) -> bytes | None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token)
            record = db.execute(
                "SELECT result FROM tools WHERE thread=? AND name=?", (thread, key)
            ).fetchone()
            if record is not None:
                return bytes(record[0])
            db.execute("INSERT INTO tools VALUES (?,?,x'')", (thread, key))
        return None

    @override
    @operation
    def record_tool_result(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token)
            if result is None:
                db.execute("DELETE FROM tools WHERE thread=? AND name=?", (thread, key))
            else:
                db.execute("INSERT OR REPLACE INTO tools VALUES (?,?,?)", (thread, key, result))

    @override
    @operation
    def tool_results(self, thread: str) -> dict[str, bytes]:
        return dict(
            self._db.execute("SELECT name, result FROM tools WHERE thread=?", (thread,)).fetchall()
        )

    @override
    @operation
    def forget_tool_calls(self, thread: str, fencing_token: FencingToken | None) -> None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token)
            db.execute("DELETE FROM tools WHERE thread=?", (thread,))
