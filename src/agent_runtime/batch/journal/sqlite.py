"""The journal in one SQLite file: for the processes of one machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, cast

from typing_extensions import override

from agent_runtime.batch.journal.journal import Journal
from agent_runtime.batch.journal.records import (
    MUTABLE_COLUMNS,
    TASK_COLUMNS,
    Execution,
    RunnerRequest,
    StoredResult,
    TaskRow,
    TaskUpdate,
    execution_document,
    execution_from_document,
)
from agent_runtime.batch.result import TaskResult, TaskStatus
from agent_runtime.batch.task import BatchTask
from agent_runtime.errors import ExecutionBusy, ExecutionLost, ExecutionNotFound
from agent_runtime.pool.task import TaskPriority
from agent_runtime.storage import SqliteFile
from agent_runtime.storage.operations import operation
from agent_runtime.storage.process_identity import boot_s, is_lease_held
from agent_runtime.storage.sqlite_schema import StoreSchema

_TASK_COLUMNS = ", ".join(TASK_COLUMNS.values())
_STATE_COLUMNS = ", ".join(MUTABLE_COLUMNS.values())
_SELECT_TASKS = (
    f"SELECT {', '.join(f'tasks.{name}' for name in TASK_COLUMNS.values())}, "
    f"{', '.join(f'states.{name}' for name in MUTABLE_COLUMNS.values())} "
    "FROM states JOIN tasks USING (execution, seq)"
)
_INSERT_RESULT = "INSERT OR REPLACE INTO results (execution, seq, result) VALUES (?,?,?)"
_EXECUTION_COLUMNS = "id, document, owner, token, lease_until_s, wanted, progress"


class SqliteJournal(SqliteFile, Journal):
    """Every operation is one transaction. Takes SqliteFile's arguments.

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
        # Leases use the machine's boot clock since version 2; those of version 1 used the wall
        # clock.
        upgrades={2: "UPDATE executions SET lease_until_s = 0;"},
    )

    def __init__(self, path: Any, **settings: Any) -> None:
        super().__init__(path, **{"synchronous": "normal", **settings})

    @override
    @operation
    def create(self, execution: Execution) -> bool:
        values = (
            execution.id,
            execution_document(execution),
            "",
            0,
            0.0,
            "",
            "{}",
            execution.created_at,
        )
        return (
            self._db.execute(
                "INSERT OR IGNORE INTO executions VALUES (?,?,?,?,?,?,?,?)", values
            ).rowcount
            == 1
        )

    @override
    @operation
    def get(self, execution_id: str) -> Execution:
        return self._read(execution_id)

    def _read(self, execution_id: str) -> Execution:
        query = f"SELECT {_EXECUTION_COLUMNS} FROM executions WHERE id=?"
        if (columns := self._db.execute(query, (execution_id,)).fetchone()) is None:
            raise ExecutionNotFound(execution_id)
        return _decode_execution(columns)

    @override
    @operation
    def list(self, limit: int = 100) -> list[Execution]:
        query = f"SELECT {_EXECUTION_COLUMNS} FROM executions ORDER BY created_s DESC LIMIT ?"
        return [_decode_execution(columns) for columns in self._db.execute(query, (limit,))]

    @override
    @operation
    def delete(self, execution_id: str) -> None:
        with self._transaction():
            for table in ("tasks", "states", "results"):
                self._db.execute(f"DELETE FROM {table} WHERE execution=?", (execution_id,))
            self._db.execute("DELETE FROM executions WHERE id=?", (execution_id,))

    @override
    @operation
    def lease(self, execution_id: str, owner: str, lease_s: float, *, dead: str = "") -> int:
        with self._transaction():
            execution = self._read(execution_id)
            if execution.is_leased and execution.owner != dead:
                raise ExecutionBusy(execution_id, execution.owner)
            values = (owner, execution.token + 1, boot_s() + lease_s, execution_id)
            self._db.execute(
                "UPDATE executions SET owner=?, token=?, lease_until_s=? WHERE id=?", values
            )
        return execution.token + 1

    @override
    @operation
    def heartbeat(
        self, execution_id: str, token: int, lease_s: float, progress: str
    ) -> RunnerRequest:
        query = (
            "UPDATE executions SET lease_until_s=?, progress=? "
            "WHERE id=? AND token=? AND owner<>'' RETURNING wanted"
        )
        if not (
            returned_rows := self._db.execute(
                query, (boot_s() + lease_s, progress, execution_id, token)
            ).fetchall()
        ):
            raise ExecutionLost(execution_id)
        return cast("RunnerRequest", str(returned_rows[0][0]))

    @override
    @operation
    def save(self, execution: Execution, *, release: bool = False) -> None:
        owner = "" if release else execution.owner
        query = (
            "UPDATE executions SET document=?, progress=?, owner=? "
            "WHERE id=? AND token=? AND owner<>''"
        )
        values = (
            execution_document(execution),
            json.dumps(execution.progress),
            owner,
            execution.id,
            execution.token,
        )
        if not self._db.execute(query, values).rowcount:
            raise ExecutionLost(execution.id)

    @override
    @operation
    def request(self, execution_id: str, request: RunnerRequest) -> None:
        if not self._db.execute(
            "UPDATE executions SET wanted=? WHERE id=?", (request, execution_id)
        ).rowcount:
            raise ExecutionNotFound(execution_id)

    @override
    @operation
    def ack_request(self, execution_id: str, request: RunnerRequest) -> None:
        self._db.execute(
            "UPDATE executions SET wanted='' WHERE id=? AND wanted=?", (execution_id, request)
        )

    @override
    @operation
    def add(self, execution_id: str, rows: Sequence[TaskRow]) -> Sequence[int]:
        duplicate_seqs = []
        insert_task = (
            f"INSERT OR IGNORE INTO tasks (execution, {_TASK_COLUMNS}) VALUES (?{',?' * 7})"
        )
        insert_state = (
            f"INSERT INTO states (execution, seq, agent, rank, {_STATE_COLUMNS}) "
            f"VALUES (?{',?' * 10})"
        )
        with self._transaction():
            for row in rows:
                values = (
                    row.seq,
                    row.id,
                    row.agent,
                    int(row.priority),
                    row.task,
                    row.accepted_at,
                    row.rank,
                )
                if not self._db.execute(insert_task, (execution_id, *values)).rowcount:
                    duplicate_seqs.append(row.seq)
                    continue
                mutable_values = (getattr(row, name) for name in MUTABLE_COLUMNS)
                self._db.execute(
                    insert_state, (execution_id, row.seq, row.agent, row.rank, *mutable_values)
                )
                if row.result is not None:
                    self._db.execute(_INSERT_RESULT, (execution_id, row.seq, row.result.to_json()))
        return duplicate_seqs

    @override
    @operation
    def write(self, execution_id: str, token: int, changes: Sequence[TaskUpdate]) -> None:
        update = (
            f"UPDATE states SET {', '.join(f'{name}=?' for name in MUTABLE_COLUMNS.values())} "
            "WHERE execution=? AND seq=?"
        )
        rows = [(*change[2:9], execution_id, change.seq) for change in changes]
        result_rows = [
            (execution_id, c.seq, c.result.to_json()) for c in changes if c.result is not None
        ]
        with self._transaction():
            self._check_owner(execution_id, token)
            self._db.executemany(update, rows)
            self._db.executemany(_INSERT_RESULT, result_rows)

    def _check_owner(self, execution_id: str, token: int) -> None:
        query = "SELECT 1 FROM executions WHERE id=? AND token=? AND owner<>''"
        if self._db.execute(query, (execution_id, token)).fetchone() is None:
            raise ExecutionLost(execution_id)

    @override
    @operation
    def rows(
        self, execution_id: str, status: TaskStatus, limit: int, *, agent: str | None = None
    ) -> Sequence[TaskRow]:
        # The partial index applies only to a literal status.
        status_sql = "'pending'" if status == "pending" else ":status"
        agent_sql = "" if agent is None else "AND states.agent=:agent"
        query = (
            f"{_SELECT_TASKS} WHERE states.execution=:id AND states.status={status_sql} "
            f"{agent_sql} ORDER BY states.rank, states.seq LIMIT :n"
        )
        values = {"id": execution_id, "status": status, "n": limit, "agent": agent}
        return [_decode_row(columns) for columns in self._db.execute(query, values)]

    @override
    @operation
    def get_tasks(self, execution_id: str, seqs: Sequence[int]) -> Sequence[TaskRow]:
        placeholders = ",".join("?" * len(seqs))
        query = (
            f"{_SELECT_TASKS} WHERE states.execution=? AND states.seq IN ({placeholders}) "
            "ORDER BY states.seq"
        )
        return [_decode_row(columns) for columns in self._db.execute(query, (execution_id, *seqs))]

    @override
    @operation
    def counts(self, execution_id: str) -> dict[TaskStatus, int]:
        self._read(execution_id)
        query = "SELECT status, count(*) FROM states WHERE execution=? GROUP BY status"
        return dict(self._db.execute(query, (execution_id,)).fetchall())

    @override
    @operation
    def agents(self, execution_id: str) -> Sequence[str]:
        query = "SELECT DISTINCT agent FROM tasks WHERE execution=? ORDER BY agent"
        return [agent for (agent,) in self._db.execute(query, (execution_id,))]

    @override
    @operation
    def reset(self, execution_id: str, token: int, statuses: Sequence[TaskStatus]) -> int:
        placeholders = ",".join("?" * len(statuses))
        with self._transaction():
            self._check_owner(execution_id, token)
            select_ended = (
                "SELECT seq FROM states WHERE execution=? AND tries >= 0 "
                f"AND status IN ({placeholders})"
            )
            delete_results = f"DELETE FROM results WHERE execution=? AND seq IN ({select_ended})"
            self._db.execute(delete_results, (execution_id, execution_id, *statuses))
            assignments = "status='pending', attempts=0, tries=tries+1, starts=0, not_before_s=0"
            update = (
                f"UPDATE states SET {assignments} WHERE execution=? AND tries >= 0 "
                f"AND status IN ({placeholders})"
            )
            return self._db.execute(update, (execution_id, *statuses)).rowcount

    @override
    @operation
    def results(
        self,
        execution_id: str,
        after: int = 0,
        limit: int = 500,
        *,
        by: Literal["number", "seq"] = "number",
    ) -> Sequence[StoredResult]:
        query = (
            f"SELECT number, seq, result FROM results WHERE execution=? AND {by}>? "
            f"ORDER BY {by} LIMIT ?"
        )
        result_rows = self._db.execute(query, (execution_id, after, limit))
        return [
            StoredResult(number, seq, TaskResult.from_json(text))
            for number, seq, text in result_rows
        ]


def _decode_execution(columns: tuple[Any, ...]) -> Execution:
    execution_id, document_json, owner, token, lease_until_s, requested, progress = columns
    is_leased = is_lease_held(owner, lease_until_s)
    return execution_from_document(
        execution_id,
        document_json,
        owner=owner,
        token=token,
        is_leased=is_leased,
        requested=requested,
        progress=json.loads(progress),
    )


def _decode_row(columns: tuple[Any, ...]) -> TaskRow:
    row = TaskRow(*columns)
    row.priority = TaskPriority(row.priority)
    row.parsed_task = BatchTask.from_json(row.task)
    return row
