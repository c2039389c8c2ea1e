"""The ledger in one SQLite file: for any number of processes on a machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from agent_runtime.budgets.ledger.ledger import (
    ACCOUNT_RETENTION_S,
    OPERATION_RETENTION_S,
    SPEND_RETENTION_S,
    Amount,
    Answer,
    Balance,
    Ledger,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.budgets.ledger.rules import LedgerRules, StoredOperation
from agent_runtime.storage.operations import operation
from agent_runtime.storage.sqlite_file import SqliteFile
from agent_runtime.storage.sqlite_schema import StoreSchema

_COUNTS = Spend._fields[1:]
_COUNT_UPDATES = ", ".join(f"{name}={name}+excluded.{name}" for name in _COUNTS)
_BALANCE_COLUMNS = (
    "spent_micro_usd, held_micro_usd, spent_tokens, held_tokens, limit_micro_usd, "
    "limit_tokens, ends_at"
)


class SqliteLedger(SqliteFile, Ledger):
    """Every operation is one transaction. Takes SqliteFile's arguments."""

    SCHEMA = StoreSchema(
        "ledger",
        f"""
CREATE TABLE IF NOT EXISTS accounts (key TEXT PRIMARY KEY, spent_micro_usd INTEGER NOT NULL,
    held_micro_usd INTEGER NOT
    NULL, spent_tokens INTEGER NOT NULL, held_tokens INTEGER NOT NULL, limit_micro_usd INTEGER,
        limit_tokens INTEGER,
    ends_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS operations (id TEXT PRIMARY KEY, state TEXT NOT NULL,
    micro_usd INTEGER NOT NULL, tokens
    INTEGER NOT NULL, accounts TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS operations_due ON operations (state, at);
CREATE TABLE IF NOT EXISTS spends (hour INTEGER, tenant TEXT, user TEXT, template TEXT, model TEXT,
    {", ".join(f"{name} INTEGER NOT NULL" for name in _COUNTS)},
    PRIMARY KEY (hour, tenant, user, template, model)) WITHOUT ROWID;
""",
    )

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float] = time.time, **settings: Any
    ) -> None:
        super().__init__(path, **settings)
        self._rules = LedgerRules(
            _SqliteLedgerStore(self, uses_deletion_clock=clock is time.time),
            OPERATION_RETENTION_S,
            clock,
        )

    @override
    @operation
    def transact(
        self, settlements: Sequence[Settlement], reservation: ReservationRequest | None
    ) -> Answer:
        with self._transaction():
            return self._rules.transact(settlements, reservation)

    @override
    @operation
    def expire_holds(self) -> int:
        with self._transaction():
            return self._rules.expire_holds()

    @override
    @operation
    def balances(self) -> dict[str, Balance]:
        rows = self._db.execute(f"SELECT key, {_BALANCE_COLUMNS} FROM accounts ORDER BY key")
        return {key: Balance(*rest) for key, *rest in rows}

    @override
    @operation
    def report(self, since: float, until: float) -> list[tuple[int, Spend]]:
        query = (
            "SELECT * FROM spends WHERE hour>=? AND hour<? ORDER BY hour, tenant, user, "
            "template, model"
        )
        rows = self._db.execute(query, (int(since // 3600), int(-(-until // 3600))))
        return [(hour * 3600, Spend(SpendLabels(*rest[:4]), *rest[4:])) for hour, *rest in rows]


class _SqliteLedgerStore:
    def __init__(self, file: SqliteLedger, *, uses_deletion_clock: bool) -> None:
        self._db = file._db
        self._file = file
        self._uses_deletion_clock = uses_deletion_clock

    def get_balance(self, key: str) -> Balance | None:
        row = self._db.execute(
            f"SELECT {_BALANCE_COLUMNS} FROM accounts WHERE key=?",
            (key,),
        ).fetchone()
        return None if row is None else Balance(*row)

    def put_balance(self, key: str, balance: Balance) -> None:
        values = tuple(getattr(balance, name) for name in balance.__slots__)
        self._db.execute("INSERT OR REPLACE INTO accounts VALUES (?,?,?,?,?,?,?,?)", (key, *values))

    def get_operation(self, operation_id: str) -> StoredOperation | None:
        query = "SELECT state, micro_usd, tokens, accounts FROM operations WHERE id=?"
        row = self._db.execute(query, (operation_id,)).fetchone()
        if row is None:
            return None
        state, micro_usd, tokens, accounts = row
        return StoredOperation(
            state, Amount(micro_usd, tokens), tuple(accounts.split("\n")) if accounts else ()
        )

    def put_operation(
        self, operation_id: str, operation: StoredOperation, expires_at: float
    ) -> None:
        values = (
            operation_id,
            operation.state,
            *operation.amount,
            "\n".join(operation.accounts),
            expires_at,
        )
        self._db.execute("INSERT OR REPLACE INTO operations VALUES (?,?,?,?,?,?)", values)

    def expired_holds(self, now: float, limit: int) -> list[str]:
        query = "SELECT id FROM operations WHERE state='held' AND at<=? LIMIT ?"
        return [operation_id for (operation_id,) in self._db.execute(query, (now, limit))]

    def add_spends(self, hour: int, spends: Iterable[Spend]) -> None:
        statement = (
            f"INSERT INTO spends VALUES (?,?,?,?,?{',?' * len(_COUNTS)}) "
            f"ON CONFLICT (hour, tenant, user, template, model) DO UPDATE SET {_COUNT_UPDATES}"
        )
        self._db.executemany(statement, [(hour, *spend.labels, *spend[1:]) for spend in spends])

    def delete_expired(self, now: float) -> None:
        if self._uses_deletion_clock:
            now = min(now, self._file._deletion_time())
        self._db.execute("DELETE FROM operations WHERE state<>'held' AND at<=?", (now,))
        self._db.execute("DELETE FROM accounts WHERE ends_at<?", (now - ACCOUNT_RETENTION_S,))
        self._db.execute(
            "DELETE FROM spends WHERE hour<?", (int((now - SPEND_RETENTION_S) // 3600),)
        )
