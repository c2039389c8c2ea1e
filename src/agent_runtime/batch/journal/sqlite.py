"""The journal in one SQLite file: for the processes of one machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import MOVING, Change, Execution, Kept, TaskRow, document
from agent_runtime.batch.result import TaskResult
from agent_runtime.batch.task import BatchTask
from agent_runtime.errors import ExecutionBusy, ExecutionLost, ExecutionNotFound
from agent_runtime.pool.task import TaskPriority
from agent_runtime.storage import SqliteFile
from agent_runtime.storage.process_identity import boot_s, is_lease_held
from agent_runtime.storage.sqlite_schema import StoreSchema

_TASK = "seq, id, agent, priority, task, accepted_s, rank"
_STATE = ", ".join(MOVING)
_JOINED = (
    f"SELECT {', '.join(f'tasks.{name}' for name in _TASK.split(', '))}, "  # noqa: S608 - constants, here and below
    ""
    f"{', '.join(f'states.{name}' for name in MOVING)} FROM states JOIN tasks USING (execution, "
    "seq)"
)
_RESULT = "INSERT OR REPLACE INTO results (execution, seq, result) VALUES (?,?,?)"
_EXECUTION = "id, document, owner, token, lease_until_s, wanted, progress"


class SqliteJournal(SqliteFile, Journal):
    """Every operation is one transaction. See SqliteFile for the arguments.

    By default a power cut may take the last moments with it, a killed process nothing
    (`synchronous="normal"`).
    """

    SCHEMA = StoreSchema(
        "batches",
        """
CREATE TABLE IF NOT EXISTS executions (id TEXT PRIMARY KEY, document TEXT NOT NULL,
    owner TEXT NOT NULL,
    token INTEGER NOT NULL, lease_until_s REAL NOT NULL, wanted TEXT NOT NULL,
        progress TEXT NOT NULL,
    created_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (execution TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL,
    agent TEXT NOT NULL,
    priority INTEGER NOT NULL, task TEXT NOT NULL, accepted_s REAL NOT NULL, rank REAL NOT NULL,
    PRIMARY KEY (execution, seq)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS tasks_id ON tasks (execution, id);
CREATE TABLE IF NOT EXISTS states (execution TEXT NOT NULL, seq INTEGER NOT NULL,
    agent TEXT NOT NULL,
    rank REAL NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL, tries INTEGER NOT NULL,
    starts INTEGER NOT NULL, not_before_s REAL NOT NULL, history TEXT NOT NULL, spent TEXT NOT NULL,
    PRIMARY KEY (execution, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS states_rank ON states (execution, agent, rank, seq)
    WHERE status = 'pending';
CREATE TABLE IF NOT EXISTS results (number INTEGER PRIMARY KEY AUTOINCREMENT,
    execution TEXT NOT NULL,
    seq INTEGER NOT NULL, result TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS results_seq ON results (execution, seq);
""",
        version=2,
        # Leases are counted by the machine's boot clock since version 2; those of version 1 said a
        # wall-clock time.
        upgrades={2: "UPDATE executions SET lease_until_s = 0;"},
    )

    def __init__(self, path: Any, **settings: Any) -> None:
        super().__init__(path, **{"synchronous": "normal", **settings})

    def _create(self, execution: Execution) -> bool:
        values = (execution.id, document(execution), "", 0, 0.0, "", "{}", execution.created_s)
        return (
            self._db.execute(
                "INSERT OR IGNORE INTO executions VALUES (?,?,?,?,?,?,?,?)", values
            ).rowcount
            == 1
        )

    def _get(self, execution_id: str) -> Execution:
        query = f"SELECT {_EXECUTION} FROM executions WHERE id=?"  # noqa: S608
        if (found := self._db.execute(query, (execution_id,)).fetchone()) is None:
            raise ExecutionNotFound(execution_id)
        return _execution(found)

    def _list(self, limit: int) -> list[Execution]:
        query = f"SELECT {_EXECUTION} FROM executions ORDER BY created_s DESC LIMIT ?"  # noqa: S608
        return [_execution(each) for each in self._db.execute(query, (limit,))]

    def _delete(self, execution_id: str) -> None:
        with self._transaction():
            for table in ("tasks", "states", "results"):
                self._db.execute(f"DELETE FROM {table} WHERE execution=?", (execution_id,))  # noqa: S608
            self._db.execute("DELETE FROM executions WHERE id=?", (execution_id,))

    def _lease(self, execution_id: str, owner: str, lease_s: float, dead: str) -> int:
        with self._transaction():
            found = self._get(execution_id)
            if found.is_leased and found.owner != dead:
                raise ExecutionBusy(execution_id, found.owner)
            values = (owner, found.token + 1, boot_s() + lease_s, execution_id)
            self._db.execute(
                "UPDATE executions SET owner=?, token=?, lease_until_s=? WHERE id=?", values
            )
        return found.token + 1

    def _beat(self, execution_id: str, token: int, lease_s: float, progress: str) -> str:
        query = (
            "UPDATE executions SET lease_until_s=?, progress=? WHERE id=? AND token=? AND "
            "owner<>'' RETURNING wanted"
        )
        if not (
            found := self._db.execute(
                query, (boot_s() + lease_s, progress, execution_id, token)
            ).fetchall()
        ):
            raise ExecutionLost(execution_id)
        return str(found[0][0])

    def _save(self, execution: Execution, release: bool) -> None:
        owner = "" if release else execution.owner
        query = (
            "UPDATE executions SET document=?, progress=?, owner=? WHERE id=? AND token=? "
            "AND owner<>''"
        )
        values = (
            document(execution),
            json.dumps(execution.progress),
            owner,
            execution.id,
            execution.token,
        )
        if not self._db.execute(query, values).rowcount:
            raise ExecutionLost(execution.id)

    def _want(self, execution_id: str, wanted: str) -> None:
        if not self._db.execute(
            "UPDATE executions SET wanted=? WHERE id=?", (wanted, execution_id)
        ).rowcount:
            raise ExecutionNotFound(execution_id)

    def _heard(self, execution_id: str, wanted: str) -> None:
        self._db.execute(
            "UPDATE executions SET wanted='' WHERE id=? AND wanted=?", (execution_id, wanted)
        )

    def _add(self, execution_id: str, rows: Sequence[TaskRow]) -> Sequence[int]:
        known = []
        task = f"INSERT OR IGNORE INTO tasks (execution, {_TASK}) VALUES (?{',?' * 7})"  # noqa: S608
        state = f"INSERT INTO states (execution, seq, agent, rank, {_STATE}) VALUES (?{',?' * 10})"  # noqa: S608
        with self._transaction():
            for row in rows:
                values = (
                    row.seq,
                    row.id,
                    row.agent,
                    int(row.priority),
                    row.task,
                    row.accepted_s,
                    row.rank,
                )
                if not self._db.execute(task, (execution_id, *values)).rowcount:
                    known.append(row.seq)
                    continue
                moving = (getattr(row, name) for name in MOVING)
                self._db.execute(state, (execution_id, row.seq, row.agent, row.rank, *moving))
                if row.result is not None:
                    self._db.execute(_RESULT, (execution_id, row.seq, row.result.to_json()))
        return known

    def _write(self, execution_id: str, token: int, changes: Sequence[Change]) -> None:
        update = (
            f"UPDATE states SET {', '.join(f'{name}=?' for name in MOVING)} "  # noqa: S608
            "WHERE execution=? AND seq=?"
        )
        rows = [(*change[2:9], execution_id, change.seq) for change in changes]
        ended = [(execution_id, c.seq, c.result.to_json()) for c in changes if c.result is not None]
        with self._transaction():
            self._check_owner(execution_id, token)
            self._db.executemany(update, rows)
            self._db.executemany(_RESULT, ended)

    def _check_owner(self, execution_id: str, token: int) -> None:
        query = "SELECT 1 FROM executions WHERE id=? AND token=? AND owner<>''"
        if self._db.execute(query, (execution_id, token)).fetchone() is None:
            raise ExecutionLost(execution_id)

    def _rows(
        self, execution_id: str, status: str, limit: int, agent: str | None
    ) -> Sequence[TaskRow]:
        # A status that is spelled out is what the partial index is found by.
        wanted = "'pending'" if status == "pending" else ":status"
        of_agent = "" if agent is None else "AND states.agent=:agent"
        query = (
            f"{_JOINED} WHERE states.execution=:id AND states.status={wanted} {of_agent} "
            "ORDER BY states.rank, states.seq LIMIT :n"
        )
        values = {"id": execution_id, "status": status, "n": limit, "agent": agent}
        return [_row(each) for each in self._db.execute(query, values)]

    def _places(self, execution_id: str, seqs: Sequence[int]) -> Sequence[TaskRow]:
        places = ",".join("?" * len(seqs))
        query = (
            f"{_JOINED} WHERE states.execution=? AND states.seq IN ({places}) ORDER BY states.seq"
        )
        return [_row(each) for each in self._db.execute(query, (execution_id, *seqs))]

    def _counts(self, execution_id: str) -> dict[str, int]:
        self._get(execution_id)
        query = "SELECT status, count(*) FROM states WHERE execution=? GROUP BY status"
        return dict(self._db.execute(query, (execution_id,)).fetchall())

    def _agents(self, execution_id: str) -> Sequence[str]:
        query = "SELECT DISTINCT agent FROM tasks WHERE execution=? ORDER BY agent"
        return [agent for (agent,) in self._db.execute(query, (execution_id,))]

    def _reset(self, execution_id: str, token: int, statuses: Sequence[str]) -> int:
        places = ",".join("?" * len(statuses))
        with self._transaction():
            self._check_owner(execution_id, token)
            old = (
                "SELECT seq FROM states WHERE execution=? AND tries >= 0 AND status IN "  # noqa: S608
                f"({places})"
            )
            gone = f"DELETE FROM results WHERE execution=? AND seq IN ({old})"  # noqa: S608
            self._db.execute(gone, (execution_id, execution_id, *statuses))
            reset = "status='pending', attempts=0, tries=tries+1, starts=0, not_before_s=0"
            update = (
                f"UPDATE states SET {reset} WHERE execution=? AND tries >= 0 AND status "  # noqa: S608
                f"IN ({places})"
            )
            return self._db.execute(update, (execution_id, *statuses)).rowcount

    def _results(self, execution_id: str, by: str, after: int, limit: int) -> Sequence[Kept]:
        query = (
            f"SELECT number, seq, result FROM results WHERE execution=? AND {by}>? ORDER "  # noqa: S608
            f"BY {by} LIMIT ?"
        )
        found = self._db.execute(query, (execution_id, after, limit))
        return [Kept(number, seq, TaskResult.from_json(text)) for number, seq, text in found]


def _execution(found: tuple[Any, ...]) -> Execution:
    execution_id, text, owner, token, until_s, wanted, progress = found
    held = is_lease_held(owner, until_s)
    apart: dict[str, Any] = {"owner": owner, "token": token, "is_leased": held, "wanted": wanted}
    return Execution(execution_id, **json.loads(text), **apart, progress=json.loads(progress))


def _row(found: tuple[Any, ...]) -> TaskRow:
    row = TaskRow(*found)
    row.priority = TaskPriority(row.priority)
    row.given = BatchTask.from_json(row.task)
    return row
