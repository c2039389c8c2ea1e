"""Turns, tool effects and session records in SQLite."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from agent_runtime.checkpoints.backends.backend import FencingToken, Lease, SessionRow
from agent_runtime.storage.process_identity import boot_s, is_lease_held
from agent_runtime.storage.sqlite_file import SqliteFile

SESSION_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL, data BLOB NOT NULL, gone TEXT
        NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_tenant ON sessions (tenant, created_at, key) WHERE gone='';
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (tenant, user, created_at, key) WHERE gone='';
CREATE INDEX IF NOT EXISTS sessions_expiry ON sessions (expires_at)
    WHERE gone='' AND expires_at IS NOT NULL;
"""
_COLUMNS = "key, tenant, user, created_at, expires_at, data, gone"


class SqliteSessions(SqliteFile):
    """Store leases, sessions and tool effects of SqliteCheckpointBackend."""

    @abstractmethod
    def _check_writable(
        self, thread: str, fencing_token: FencingToken | None, ttl_s: float | None = None
    ) -> None:
        """Raise StaleWriter unless the turn of the token may write to the thread."""

    def _acquire(self, thread: str, owner: str, ttl_s: float) -> Lease | None:
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

    def _renew(self, lease: Lease, ttl_s: float) -> bool:
        query = "UPDATE threads SET until=? WHERE thread=? AND owner=? AND token=?"
        return (
            self._db.execute(
                query, (boot_s() + ttl_s, lease.thread, lease.owner, lease.token)
            ).rowcount
            == 1
        )

    def _release(self, lease: Lease, clean: bool) -> None:
        query = "UPDATE threads SET until=0, owner=? WHERE thread=? AND owner=? AND token=?"
        self._db.execute(
            query, ("" if clean else lease.owner, lease.thread, lease.owner, lease.token)
        )

    def _seize(self, thread: str) -> None:
        self._db.execute(
            "UPDATE threads SET until=0, owner='', token=token+1 WHERE thread=?", (thread,)
        )

    def _tool_start(
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

    def _tool_put(
        self, thread: str, key: str, result: bytes | None, fencing_token: FencingToken | None
    ) -> None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token)
            if result is None:
                db.execute("DELETE FROM tools WHERE thread=? AND name=?", (thread, key))
            else:
                db.execute("INSERT OR REPLACE INTO tools VALUES (?,?,?)", (thread, key, result))

    def _tool_list(self, thread: str) -> dict[str, bytes]:
        return dict(
            self._db.execute("SELECT name, result FROM tools WHERE thread=?", (thread,)).fetchall()
        )

    def _tool_forget(self, thread: str, fencing_token: FencingToken | None) -> None:
        with self._transaction() as db:
            self._check_writable(thread, fencing_token)
            db.execute("DELETE FROM tools WHERE thread=?", (thread,))

    def _put_session(self, row: SessionRow, old: SessionRow | None) -> bool:
        if old is None:
            values = (
                row.key,
                row.tenant,
                row.user,
                row.created_at,
                row.expires_at,
                row.data,
                row.deleted_reason,
            )
            query = f"INSERT OR IGNORE INTO sessions ({_COLUMNS}) VALUES (?,?,?,?,?,?,?)"
            return self._db.execute(query, values).rowcount == 1
        query = "UPDATE sessions SET expires_at=?, data=?, gone=? WHERE key=? AND data=? AND gone=?"
        return (
            self._db.execute(
                query,
                (
                    row.expires_at,
                    row.data,
                    row.deleted_reason,
                    row.key,
                    old.data,
                    old.deleted_reason,
                ),
            ).rowcount
            == 1
        )

    def _get_session(self, key: str) -> SessionRow | None:
        record = self._db.execute(
            f"SELECT {_COLUMNS} FROM sessions WHERE key=?",
            (key,),
        ).fetchone()
        return None if record is None else SessionRow(*record)

    def _page_sessions(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Iterable[SessionRow]:
        user_condition = "" if user is None else "AND user=:user"
        query = (
            f"SELECT {_COLUMNS} FROM sessions WHERE gone='' AND tenant=:tenant {user_condition} "
            "AND (created_at, key) < (:at, :key) ORDER BY created_at DESC, key DESC LIMIT :limit"
        )
        created_before, key = before or (float("inf"), "")
        parameters: dict[str, Any] = {
            "tenant": tenant,
            "user": user,
            "at": created_before,
            "key": key,
            "limit": limit,
        }
        return [SessionRow(*record) for record in self._db.execute(query, parameters)]

    def _expired_sessions(self, limit: int) -> Iterable[SessionRow]:
        query = f"SELECT {_COLUMNS} FROM sessions WHERE gone='' AND expires_at <= ? LIMIT ?"
        return [
            SessionRow(*record)
            for record in self._db.execute(query, (self._deletion_time(), limit))
        ]
