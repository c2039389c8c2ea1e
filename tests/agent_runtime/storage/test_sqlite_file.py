"""A file that another process holds costs one wait, however many calls meet it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import StoreTimeout
from agent_runtime.budgets.ledger import retries as ledger_trips
from agent_runtime.budgets.ledger.ledger import Answer
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.storage.operations import operation
from agent_runtime.storage.sqlite_file import SqliteFile
from agent_runtime.storage.sqlite_schema import StoreSchema


class Numbers(SqliteFile):
    SCHEMA = StoreSchema("numbers", "CREATE TABLE IF NOT EXISTS numbers (n);")

    @operation
    def add(self, number: int) -> int:
        with self._transaction() as db:
            db.execute("INSERT INTO numbers VALUES (?)", [number])
        return number

    def wait_ms(self) -> int:
        return int(self._db.execute("PRAGMA busy_timeout").fetchone()[0])


@contextmanager
def held(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def test_while_a_file_stays_locked_only_the_first_call_waits_long(tmp_path: Path) -> None:
    file = Numbers(tmp_path / "n.db", busy_timeout_s=0.3)
    waits = [file.wait_ms()]
    with held(tmp_path / "n.db"):
        for number in range(3):
            with pytest.raises(StoreTimeout):
                await file.add(number)
            waits.append(file.wait_ms())
    assert waits == [300, 300, 30, 30]
    assert await file.add(7) == 7
    with held(tmp_path / "n.db"), pytest.raises(StoreTimeout):
        file.add(8).run()
    assert file.wait_ms() == 300
    await file.aclose()


async def test_calls_that_wait_for_each_other_wait_for_the_file_together(tmp_path: Path) -> None:
    file = Numbers(tmp_path / "n.db", busy_timeout_s=0.4)
    with held(tmp_path / "n.db"):
        async with asyncio.timeout(10):  # one after the other they would take 16 s
            ended = await asyncio.gather(*(file.add(n) for n in range(40)), return_exceptions=True)
    assert {type(each) for each in ended} == {StoreTimeout}
    await file.aclose()


class Failing(MemoryLedger):
    """A ledger whose every operation takes its time and fails."""

    def __init__(self, takes_s: float) -> None:
        super().__init__()
        self.takes_s = takes_s
        self.calls = 0

    async def arun_body(self, body: Any, args: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(self.takes_s)
        raise StoreTimeout("locked")


@pytest.mark.parametrize(("takes_s", "calls"), [(0.0, 4), (0.1, 1)])
async def test_a_ledger_is_asked_again_only_within_one_wait(
    takes_s: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_trips, "RETRY_DEADLINE_S", 0.05)
    monkeypatch.setattr(ledger_trips, "RETRY_DELAYS_S", (0.001, 0.001, 0.001))
    ledger = Failing(takes_s)
    with pytest.raises(StoreTimeout):
        _: Answer = await ledger_trips.atransact_with_retry(ledger, [], None)
    assert ledger.calls == calls
