"""`agent-runtime sessions`, and conversations of `run` and `chat`."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_runtime.cli.main import main
from agent_runtime.cli.state import settings
from agent_runtime.storage.sqlite_file import SqliteFile

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(180)  # each command is a process that imports LangChain
CAREFUL = f"""\
apiVersion: agent-runtime/v1
kind: AgentTemplate
metadata: {{name: careful}}
spec:
  model: "offline:"
  tools: [{{use: document_search, args: {{docs: {ROOT / "templates/documents"}}}}}]
  interrupt_on: {{search_documents: {{allowed_decisions: [approve, edit, reject]}}}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the command in a state directory of its own.

    With `process` as a user does, else here, which is quicker.
    """
    (tmp_path / "careful.yaml").write_text(CAREFUL)
    monkeypatch.chdir(tmp_path)

    def run(
        *args: str, stdin: str = "", process: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if "API_KEY" not in k}
        given = {**kept, "AGENT_RUNTIME_HOME": str(tmp_path / "home"), **env}
        command = [sys.executable, "-m", "agent_runtime", *args]
        if process:
            return subprocess.run(
                command, capture_output=True, text=True, input=stdin, check=False, env=given
            )
        settings.cache_clear()
        code: Any = 0
        with CliRunner().isolation(input=stdin, env=given) as (stdout, stderr, _):
            try:
                main(list(args))
            except SystemExit as ended:
                code = ended.code
            shown = stdout.getvalue().decode(), stderr.getvalue().decode()
        return subprocess.CompletedProcess(command, code or 0, *shown)

    yield run
    settings.cache_clear()


def test_a_conversation_over_several_commands(run: Any) -> None:
    for question in ("opening hours", "warranty of chairs"):
        assert (
            run("run", "searcher", question, "--session", "talk", "-q", process=True).returncode
            == 0
        )
    shown = run("sessions", "show", "talk").stdout
    assert shown.count("human:") == 2
    assert "five years" in shown
    listed = json.loads(run("sessions", "list", "--json").stdout)
    assert [(s["id"], s["title"], s["status"]) for s in listed["sessions"]] == [
        ("talk", "opening hours", "idle")
    ]
    fork = run("sessions", "fork", "talk", "--title", "copy").stdout.strip()
    exported = json.loads(run("sessions", "export", fork).stdout)
    assert (exported["session"]["title"], len(exported["messages"])) == ("copy", 8)
    assert exported["checkpoints"][0]["id"] != exported["checkpoints"][-1]["id"]
    assert run("sessions", "delete", "-y", "talk").returncode == 0
    assert run("sessions", "show", "talk").returncode == 4
    assert run("run", "searcher", "hi", "--session", "talk", "-q").returncode == 4
    assert (
        run("sessions", "show", "nothing").stderr.strip() == "error: there is no session 'nothing'"
    )
    assert run("sessions", "show", "a:b").returncode == 2


def test_without_a_session_only_spending_and_events_are_written(run: Any, tmp_path: Path) -> None:
    assert run("run", "searcher", "opening hours", "-q").returncode == 0
    assert run("chat", "searcher", "-q", stdin="opening hours\n").returncode == 0
    written = sorted((tmp_path / "home").iterdir())
    assert [path.name for path in written] == ["events.db", "ledger.db"]
    assert [
        path.name for path in written if b"opening" in path.read_bytes()
    ] == []  # nothing of what was said


def test_decisions_on_the_command_line(run: Any) -> None:
    asked = run("run", "careful.yaml", "warranty of chairs", "--session", "one", "-q")
    assert (asked.returncode, asked.stdout.strip()) == (7, "")
    assert 'waits: search_documents {"query": "warranty chair"}' in asked.stderr
    assert "agent-runtime sessions resume one --approve" in asked.stderr
    assert run("sessions", "resume", "one").returncode == 2
    approved = run("sessions", "resume", "one", "--approve")
    assert (approved.returncode, "five years" in approved.stdout) == (0, True)
    assert run("sessions", "resume", "one", "--approve").returncode == 2  # nothing waits any more
    run("run", "careful.yaml", "warranty of chairs", "--session", "two", "-q")
    edited = run("sessions", "resume", "two", "--edit", '{"query": "opening saturday"}', "--json")
    assert "10:00" in json.loads(edited.stdout)["output"]
    run("run", "careful.yaml", "warranty of chairs", "--session", "three", "-q")
    assert "not today" in run("sessions", "resume", "three", "--reject", "not today").stdout
    assert run("sessions", "resume", "three", "--edit", "no json").returncode == 2


def test_what_a_decision_starts_is_counted_recorded_and_limited_like_every_call(run: Any) -> None:
    run("run", "careful.yaml", "warranty of chairs", "--session", "one", "-q")
    assert run("sessions", "resume", "one", "--approve").returncode == 0
    rows = json.loads(run("cost", "report", "--format", "json").stdout)
    assert sum(row["calls"] for row in rows) == 2  # the one that asked, the one that went on
    ends = run("events", "query", "--type", "run.end", "--json").stdout.splitlines()
    assert len(ends) == 2
    run("run", "careful.yaml", "warranty of chairs", "--session", "two", "-q")
    refused = run("sessions", "resume", "two", "--approve", AGENT_RUNTIME_TEMPLATES="confined")
    assert refused.returncode == 3


def test_an_answer_stands_where_the_ledger_is_locked(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        SqliteFile.__init__, "__kwdefaults__", {"busy_timeout_s": 0.2, "synchronous": "full"}
    )
    assert run("run", "searcher", "opening hours", "-q").returncode == 0
    for name in ("ledger", "events"):
        with closing(
            sqlite3.connect(tmp_path / "home" / f"{name}.db", isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            answered = run("run", "searcher", "opening hours", "-q")
        assert (answered.returncode, "10:00" in answered.stdout) == (0, True)
        assert ("warning: spending could not be written" in answered.stderr) == (name == "ledger")


def test_an_agent_that_asks_gets_a_session_by_itself(run: Any) -> None:
    asked = run("run", "careful.yaml", "warranty of chairs", "--json")
    assert asked.returncode == 7
    session_id = json.loads(asked.stdout)["session_id"]
    assert "five years" in run("sessions", "resume", session_id, "--approve").stdout


def test_a_question_is_answered_by_its_id(run: Any) -> None:
    asked = run("run", "careful.yaml", "warranty of chairs", "--json", "--session", "q")
    (question,) = json.loads(asked.stdout)["interrupts"]
    assert question["value"]["action_requests"]
    other = "0" * 32
    refused = run("sessions", "resume", "q", "--answer", f"{other}=approve")
    assert f"no pending question has the id '{other}'" in refused.stderr
    assert run("sessions", "resume", "q", "--answer", "a", "--answer", "b").returncode == 2
    assert (
        "five years"
        in run("sessions", "resume", "q", "--answer", f"{question['id']}=approve").stdout
    )


def test_chat_is_kept_and_decides(run: Any) -> None:
    first = run("chat", "careful.yaml", "-q", "--session", "c", stdin="warranty of chairs\nyes\n")
    assert "five years" in first.stdout
    second = run("chat", "careful.yaml", "-q", "--session", "c", stdin="opening on saturdays\nno\n")
    assert second.returncode == 0
    assert run("sessions", "show", "c").stdout.count("human:") == 2


def test_stores_and_keys_come_from_options_and_the_environment(run: Any, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'other.db'}"
    key = {"AGENT_RUNTIME_SESSION_KEY": "dummy-key-of-more-than-32-characters"}
    assert (
        run("run", "searcher", "hi", "--session", "s", "--store", store, "-q", **key).returncode
        == 0
    )
    assert run("sessions", "--store", store, "show", "s", **key).returncode == 0
    refused = run("sessions", "--store", store, "show", "s")
    assert (refused.returncode, "cannot be trusted" in refused.stderr) == (1, True)
    assert run("sessions", "list", AGENT_RUNTIME_SESSIONS=store, **key).stdout.startswith("s ")
    assert run("sessions", "list", AGENT_RUNTIME_SESSION_KEY="short").returncode == 3
    assert run("sessions", "list", AGENT_RUNTIME_SESSIONS="redis://127.0.0.1:1").returncode == 1
