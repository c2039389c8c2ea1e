"""Store session records in a SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from agent_runtime.checkpoints.backends.session_table import SessionRow, SessionTable
from agent_runtime.storage.operations import StorePart, operation
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


class SqliteSessionTable(StorePart[SqliteFile], SessionTable):
    """Store session records in two indexes: of a tenant, and of its user."""

    @override
    @operation
    def put(self, row: SessionRow, old: SessionRow | None) -> bool:
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
            return self.store._db.execute(query, values).rowcount == 1
        query = "UPDATE sessions SET expires_at=?, data=?, gone=? WHERE key=? AND data=? AND gone=?"
        return (
            self.store._db.execute(
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

    @override
    @operation
    def get(self, key: str) -> SessionRow | None:
        record = self.store._db.execute(
            f"SELECT {_COLUMNS} FROM sessions WHERE key=?",
            (key,),
        ).fetchone()
        return None if record is None else SessionRow(*record)

    @override
    @operation
    def page(
        self, tenant: str, user: str | None, before: tuple[float, str] | None, limit: int
    ) -> Sequence[SessionRow]:
        user_condition = "" if user is None else "AND user=:user"
        query = (
            f"SELECT {_COLUMNS} FROM sessions WHERE gone='' AND tenant=:tenant "
            f"{user_condition} AND (created_at, key) < (:at, :key) "
            "ORDER BY created_at DESC, key DESC LIMIT :limit"
        )
        created_before, key = before or (float("inf"), "")
        parameters: dict[str, Any] = {
            "tenant": tenant,
            "user": user,
            "at": created_before,
            "key": key,
            "limit": limit,
        }
        return [SessionRow(*record) for record in self.store._db.execute(query, parameters)]

    @override
    @operation
    def list_expired(self, limit: int) -> Sequence[SessionRow]:
        query = f"SELECT {_COLUMNS} FROM sessions WHERE gone='' AND expires_at <= ? LIMIT ?"
        return [
            SessionRow(*record)
            for record in self.store._db.execute(query, (self.store._deletion_time(), limit))
        ]
