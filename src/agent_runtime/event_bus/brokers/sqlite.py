"""The event log in one SQLite file: audit log, and broker of one machine's processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from typing_extensions import override

from agent_runtime.event_bus.brokers.broker import StartPosition, StoredEvent
from agent_runtime.event_bus.brokers.group_reader import LeasedBroker
from agent_runtime.event_bus.brokers.validation import parse_offset, validate_events
from agent_runtime.event_bus.cloud_event import encode_event, read_event
from agent_runtime.event_bus.event import Event
from agent_runtime.event_bus.event_seal import EventSeal
from agent_runtime.storage import SqliteFile
from agent_runtime.storage.operations import operation
from agent_runtime.storage.process_identity import boot_s, is_lease_held
from agent_runtime.storage.sqlite_schema import StoreSchema

POLL_S = 0.05

_TABLES = """
CREATE TABLE IF NOT EXISTS events (
  position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL,
      time_s REAL NOT NULL,
  run_id TEXT, session_id TEXT, tenant TEXT, user_id TEXT, agent TEXT, event BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS events_run ON events (run_id, position) WHERE run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_session ON events (session_id, position)
    WHERE session_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_type ON events (type, position);
CREATE INDEX IF NOT EXISTS events_time ON events (time_s);
CREATE TABLE IF NOT EXISTS event_groups (
  name TEXT PRIMARY KEY, floor INTEGER NOT NULL, owner TEXT NOT NULL DEFAULT '',
      until_s REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS trimmed (up_to INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS events_unchanged BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_kept BEFORE DELETE ON events
  WHEN OLD.position > coalesce((SELECT max(up_to) FROM trimmed), 0)
  BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END;
"""
# Leases use the machine's boot clock since version 2; those of version 1 used the wall clock.
_CLEAR_LEASES = "UPDATE event_groups SET owner = '', until_s = 0;"
_INSERT = (
    "INSERT OR IGNORE INTO events (id, type, time_s, run_id, session_id, tenant, user_id, agent, "
    "event) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Select events of the log; all conditions must match.

    `types` are patterns with `*` and `?`; `since` and `until` Unix seconds, both inclusive.
    """

    types: tuple[str, ...] = ()
    run_id: str | None = None
    session_id: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    agent: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, event: Event) -> bool:
        """Return whether the event matches."""
        names = ("run_id", "session_id", "tenant", "user_id", "agent")
        return (
            (not self.types or any(fnmatchcase(event.type, pattern) for pattern in self.types))
            and all(getattr(self, name) in (None, getattr(event, name)) for name in names)
            and (self.since is None or event.occurred_at >= self.since)
            and (self.until is None or event.occurred_at <= self.until)
        )

    def where(self) -> tuple[str, list[Any]]:
        """Return the SQL condition and its values."""
        parts = ["1"]
        values = list[Any]()
        for name in ("run_id", "session_id", "tenant", "user_id", "agent"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{name} = ?")
                values.append(value)
        for sign, moment in ((">=", self.since), ("<=", self.until)):
            if moment is not None:
                parts.append(f"time_s {sign} ?")
                values.append(moment)
        if self.types:
            parts.append("(" + " OR ".join(["type GLOB ?"] * len(self.types)) + ")")
            values += self.types
        return " AND ".join(parts), values


class SqliteBroker(SqliteFile, LeasedBroker):
    """Implement `Broker` in a SQLite file, and the audit log: append and query, never change.

    Args:
        path: the file.
        lease_s: how long a silent consumer keeps a group.
        file: further settings of `SqliteFile`.
    """

    SCHEMA = StoreSchema("events", _TABLES, version=2, upgrades={2: _CLEAR_LEASES})

    def __init__(
        self,
        path: str,
        *,
        lease_s: float = 10.0,
        seal_key: bytes | None = None,
        **file_settings: Any,
    ) -> None:
        super().__init__(path, **file_settings)
        self.lease_s = lease_s
        self._seal = None if seal_key is None else EventSeal(seal_key, "events")

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish a batch, all or nothing."""
        await self._append([_to_record(event, self._seal) for event in validate_events(events)])

    @override
    async def read(
        self, after: str | None = None, *, limit: int = 1000, wait_s: float = 0.0
    ) -> list[StoredEvent]:
        return await self.query(EventQuery(), after=after, limit=limit, wait_s=wait_s)

    async def query(
        self,
        query: EventQuery,
        *,
        after: str | None = None,
        limit: int = 1000,
        wait_s: float = 0.0,
        last: bool = False,
    ) -> list[StoredEvent]:
        """Return at most `limit` matching events after `after`, oldest first.

        `last` selects the newest.
        """
        after_position = 0 if after is None else parse_offset(after)
        deadline = time.monotonic() + wait_s
        while True:
            rows = await self._select(query, after_position, limit, last)
            if rows or time.monotonic() >= deadline:
                stored_events = [
                    StoredEvent(str(position), read_event(event, str(position), self._seal))
                    for position, event in rows
                ]
                if self._seal is None:
                    return stored_events
                # The columns are not sealed, so the sealed event decides.
                return [
                    stored_event
                    for stored_event in stored_events
                    if query.matches(stored_event.event)
                ]
            await asyncio.sleep(POLL_S)  # another process may be the one that writes

    @operation
    def _append(self, rows: list[tuple[Any, ...]]) -> None:
        with self._transaction() as db:
            db.executemany(_INSERT, rows)

    @operation
    def _select(self, query: EventQuery, after_position: int, limit: int, last: bool) -> list[Any]:
        where, values = query.where()
        order = "DESC" if last else "ASC"
        sql = (
            f"SELECT position, event FROM events WHERE position > ? AND {where} "
            f"ORDER BY position {order} LIMIT ?"
        )
        rows = self._db.execute(sql, [after_position, *values, limit]).fetchall()
        return rows[::-1] if last else rows

    @override
    @operation
    def lag(self, group: str) -> int:
        committed_record = self._db.execute(
            "SELECT floor FROM event_groups WHERE name = ?", [group]
        ).fetchone()
        sql = "SELECT count(*) FROM events WHERE position > ?"
        unacked_count: int = self._db.execute(
            sql, [committed_record[0] if committed_record else 0]
        ).fetchone()[0]
        return unacked_count

    @override
    @operation
    def trim(self, keep: int) -> int:
        with self._transaction() as db:
            cutoff = db.execute(
                "SELECT position FROM events ORDER BY position DESC LIMIT 1 OFFSET ?",
                [max(keep, 0)],
            ).fetchone()
            lowest_committed_offset = db.execute("SELECT min(floor) FROM event_groups").fetchone()[
                0
            ]
            if cutoff is None:
                return 0
            up_to = (
                cutoff[0]
                if lowest_committed_offset is None
                else min(cutoff[0], lowest_committed_offset)
            )
            db.execute("DELETE FROM trimmed")
            db.execute("INSERT INTO trimmed VALUES (?)", [up_to])
            return db.execute("DELETE FROM events WHERE position <= ?", [up_to]).rowcount

    @override
    @operation
    def delete_group(self, group: str) -> None:
        self._db.execute("DELETE FROM event_groups WHERE name = ?", [group])

    # -- GroupLog

    @override
    async def fetch(
        self, group: str, owner: str, after: str | None, limit: int, wait_s: float
    ) -> list[StoredEvent]:
        committed_offset = await self._floor(group, owner)
        if committed_offset is None:  # another consumer has the lease
            return []
        return await self.read(after or committed_offset, limit=limit, wait_s=wait_s)

    @override
    @operation
    def claim(self, group: str, owner: str, start: StartPosition, lease_s: float) -> bool:
        with self._transaction() as db:
            start_position = 0
            if start == "latest":
                start_position = db.execute(
                    "SELECT coalesce(max(position), 0) FROM events"
                ).fetchone()[0]
            db.execute(
                "INSERT OR IGNORE INTO event_groups (name, floor) VALUES (?, ?)",
                [group, start_position],
            )
            lease = db.execute(
                "SELECT owner, until_s FROM event_groups WHERE name = ?", [group]
            ).fetchone()
            if lease[0] != owner and is_lease_held(*lease):
                return False
            db.execute(
                "UPDATE event_groups SET owner = ?, until_s = ? WHERE name = ?",
                [owner, boot_s() + lease_s, group],
            )
            return True

    @operation
    def _floor(self, group: str, owner: str) -> str | None:
        sql = "SELECT floor FROM event_groups WHERE name = ? AND owner = ?"
        record = self._db.execute(sql, [group, owner]).fetchone()
        return None if record is None else str(record[0])

    @override
    @operation
    def commit(
        self, group: str, owner: str, acked: list[str], committed_offset: str | None
    ) -> bool:
        sql = "UPDATE event_groups SET floor = max(floor, ?) WHERE name = ? AND owner = ?"
        return self._db.execute(sql, [int(committed_offset or 0), group, owner]).rowcount == 1

    @override
    @operation
    def release(self, group: str, owner: str) -> None:
        self._db.execute(
            "UPDATE event_groups SET owner = '' WHERE name = ? AND owner = ?", [group, owner]
        )


def _to_record(event: Event, seal: EventSeal | None) -> tuple[Any, ...]:
    return (
        event.id, event.type, event.occurred_at, event.run_id, event.session_id, event.tenant,
        event.user_id,
        event.agent or None, encode_event(event, seal),
    )  # fmt: skip
