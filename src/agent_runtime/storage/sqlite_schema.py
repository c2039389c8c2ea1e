"""Define a store's tables in a SQLite file, their version, and upgrades of earlier ones."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent_runtime.errors import StoreVersion
from agent_runtime.storage.deletion_clock import ClockState

FILE_VERSION = 1
"""`PRAGMA user_version` of what all stores in a file share; 0 in earlier files."""
_SHARED_TABLES = """
CREATE TABLE IF NOT EXISTS agent_runtime_stores (store TEXT PRIMARY KEY, version INTEGER
    NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS agent_runtime_clock (one INTEGER PRIMARY KEY CHECK (one = 1),
    state TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class StoreSchema:
    """Describe a store in a SQLite file, which several stores may share.

    `tables` is the script of the present `version`; `upgrades[n]` upgrades version n - 1 to n.
    Files without a version are of version 1.
    """

    store: str
    tables: str
    version: int = 1
    upgrades: Mapping[int, str] = field(default_factory=dict)

    def open(self, db: sqlite3.Connection, path: str) -> None:
        """Create the tables, or upgrade them; raises StoreVersion for an incompatible file."""
        if self._stored_version(db, path) == self.version:
            return
        db.execute("BEGIN IMMEDIATE")  # one process upgrades, the others wait and find it done
        try:
            self._upgrade(db, path)
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
                raise _foreign_store_error(f"'{path}' cannot be upgraded ({error})") from error
            raise

    def _stored_version(self, db: sqlite3.Connection, path: str) -> int | None:
        file_version = db.execute("PRAGMA user_version").fetchone()[0]
        if file_version > FILE_VERSION:
            raise StoreVersion(
                f"'{path}' has format {file_version}, and this release of agent_runtime knows "
                f"{FILE_VERSION}: "
                "it was made by a newer one, which has to open it"
            )
        if file_version == 0:
            return None
        row = db.execute(
            "SELECT version FROM agent_runtime_stores WHERE store = ?", (self.store,)
        ).fetchone()
        if row is None:
            return None
        if row[0] > self.version:
            raise StoreVersion(
                f"the {self.store} in '{path}' have version {row[0]}, and this release of "
                "agent_runtime knows "
                f"{self.version}: they were made by a newer one, which has to open them"
            )
        return int(row[0])

    def _upgrade(self, db: sqlite3.Connection, path: str) -> None:
        stored_version = self._stored_version(db, path)
        schema_tables = _table_names(self.tables)
        present = {
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        for statement in _statements(_SHARED_TABLES):
            db.execute(statement)
        if stored_version is None and schema_tables & present:
            stored_version = 1
        for version in range((stored_version or self.version) + 1, self.version + 1):
            for statement in _statements(self.upgrades[version]):
                db.execute(statement)
        for statement in _statements(self.tables):
            db.execute(statement)
        self._check_columns(db, path)
        db.execute(
            "INSERT OR REPLACE INTO agent_runtime_stores VALUES (?, ?)", (self.store, self.version)
        )
        wall_s = time.time()
        state = (
            ClockState.for_existing_store(wall_s)
            if schema_tables & present
            else ClockState.for_new_store(wall_s)
        )
        db.execute("INSERT OR IGNORE INTO agent_runtime_clock VALUES (1, ?)", (state.to_json(),))
        db.execute(f"PRAGMA user_version = {FILE_VERSION}")

    def _check_columns(self, db: sqlite3.Connection, path: str) -> None:
        """Compare the columns with those of the script, to detect versions before the first one."""
        model = sqlite3.connect(":memory:")
        try:
            model.executescript(self.tables)
            for table in sorted(_table_names(self.tables)):
                missing = _columns(model, table) - _columns(db, table)
                if missing:
                    raise _foreign_store_error(
                        f"the table '{table}' in '{path}' has no column "
                        f"{', '.join(sorted(missing))}"
                    )
        finally:
            model.close()


def _foreign_store_error(problem: str) -> StoreVersion:
    return StoreVersion(
        f"{problem}: it was made by another version of agent_runtime, or is not its own. "
        "Nothing was changed; name another file"
    )


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; a trigger's body contains semicolons."""
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _table_names(script: str) -> set[str]:
    words = [statement.split() for statement in _statements(script)]
    return {
        tokens[5]
        for tokens in words
        if [word.upper() for word in tokens[:2]] == ["CREATE", "TABLE"]
    }


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
