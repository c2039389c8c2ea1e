"""One SQLite file (WAL): durable, for any number of processes on one machine."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from agent_runtime.errors import StoreError, StoreFull, StoreTimeout, StoreUnavailable
from agent_runtime.storage.deletion_clock import ClockState
from agent_runtime.storage.file_safety import check_file_ownership, check_folder_ownership
from agent_runtime.storage.sqlite_schema import StoreSchema

WRITE_CLOCK_EVERY_S = 600.0


def _create_private_file(path: str) -> None:
    """Create the file, readable by its owner only, if it does not exist.

    An existing file is not opened: closing it would drop the locks of every SQLite connection that
    this process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2), and another process
    would remove its journal.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


class SqliteFile:
    """Run operations on one connection; async callers wait for a separate thread.

    A subclass defines its `SCHEMA` (tables, version, upgrades), and methods that are an
    `@operation`.

    Args:
        path: the file; a missing folder is created, readable by its owner only. `:memory:` works
            too.
        busy_timeout_s: how long a call waits for another process's transaction before StoreTimeout,
            including its wait for other calls. While the file stays locked, the next calls wait a
            tenth of it: successive calls cost one wait.
        synchronous: `full` survives a power cut, `normal` (half the waiting) a crash of the
            process.

    Raises StoreUnavailable when the file cannot be used, StoreVersion for one of a version that
    cannot be upgraded, ConfigurationError for a link, and for a file or folder that others may
    write.
    """

    SCHEMA: ClassVar[StoreSchema]

    def __init__(
        self,
        path: str | Path,
        *,
        busy_timeout_s: float = 5.0,
        synchronous: Literal["full", "normal"] = "full",
    ) -> None:
        self.path = str(path)
        try:
            if self.path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                check_folder_ownership(Path(path).parent)
                for suffix in (
                    "",
                    "-wal",
                    "-shm",
                    "-journal",
                ):  # SQLite reads those as the file itself
                    check_file_ownership(Path(f"{path}{suffix}"))
                _create_private_file(self.path)
            self._db = sqlite3.connect(
                self.path,
                timeout=busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={synchronous}")
            self.SCHEMA.open(self._db, self.path)
        except StoreError:
            self._db.close()
            raise
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"'{self.path}' cannot be used as a store: {error}") from error
        self._busy_timeout_s = busy_timeout_s
        self._current_timeout_s = busy_timeout_s
        self._is_locked = False
        self._clock_state: ClockState | None = None
        self._lock = threading.RLock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="agent_runtime sqlite")

    def run_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run an operation here; blocks while another thread or process writes.

        Raises StoreError.
        """
        return self._run_locked(body, args, time.monotonic())

    def _run_locked(
        self, body: Callable[..., Any], args: tuple[Any, ...], requested_at: float
    ) -> Any:
        with self._lock:
            try:
                self._set_wait(time.monotonic() - requested_at)
                result = body(self, *args)
            except sqlite3.Error as error:
                failure = self._store_error(error)
                self._is_locked = isinstance(failure, StoreTimeout)
                raise failure from error
            self._is_locked = False
            return result

    def _set_wait(self, waited_s: float) -> None:
        full_s = self._busy_timeout_s
        if self._is_locked or waited_s >= full_s:
            wait_s = full_s / 10
        else:
            wait_s = full_s if waited_s < full_s / 10 else full_s - waited_s
        if wait_s != self._current_timeout_s:
            self._current_timeout_s = wait_s
            self._db.execute(f"PRAGMA busy_timeout={int(wait_s * 1000)}")

    async def arun_body(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run an operation in the connection's thread.

        A cancelled caller's operation is finished or undone whole.
        """
        try:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(
                self._worker, self._run_locked, body, args, time.monotonic()
            )
        except RuntimeError as error:
            raise StoreUnavailable(f"'{self.path}' has been closed") from error
        return await running

    async def aclose(self) -> None:
        """Close the file."""
        self._worker.shutdown(wait=True)
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite may have rolled back by itself: a full disk
                self._db.execute("ROLLBACK")
            raise

    def _deletion_time(self) -> float:
        """Return the time, by the wall clock, up to which expired records may be deleted."""
        wall_s = time.time()
        state = self._clock_state
        if state is None:
            row = self._db.execute("SELECT state FROM agent_runtime_clock").fetchone()
            state = (
                ClockState.for_existing_store(wall_s)
                if row is None
                else ClockState.from_json(row[0])
            )
        observed = state.observe(wall_s)
        if self._clock_state is None or _is_worth_writing(observed, state):
            self._db.execute(
                "INSERT OR REPLACE INTO agent_runtime_clock VALUES (1, ?)", (observed.to_json(),)
            )
        self._clock_state = observed
        return observed.deletion_time(wall_s)

    def _store_error(self, error: sqlite3.Error) -> StoreError:
        text = str(error)
        if "locked" in text or "busy" in text:
            return StoreTimeout(f"another process holds '{self.path}': {text}")
        if "full" in text or "too big" in text:
            return StoreFull(f"'{self.path}': {text}")
        return StoreUnavailable(f"'{self.path}': {text}")


def _is_worth_writing(new: ClockState, old: ClockState) -> bool:
    """Tell whether a state is worth writing: small corrections of the clock are not."""
    new_state = (new.boot, new.offset_s is None, new.candidate_since_s, new.candidate_s is None)
    old_state = (old.boot, old.offset_s is None, old.candidate_since_s, old.candidate_s is None)
    moved = abs((new.offset_s or 0.0) - (old.offset_s or 0.0)) > 1.0
    return new_state != old_state or moved or new.latest_s - old.latest_s > WRITE_CLOCK_EVERY_S
