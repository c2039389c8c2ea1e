"""`agent-runtime batch` on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.billing_provider import ProviderProcess, template
from tests.support.programs import with_tests

from agent_runtime.cli import cli
from agent_runtime.cli.exit_codes import exit_code
from agent_runtime.cli.state import settings

ROOT = Path(__file__).parents[3]
ANALYST = str(ROOT / "templates" / "analyst.yaml")
QUESTION = "What is the total amount in the {region}?"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DUMMY_KEY", "dummy")
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def command(*args: str, code: int = 0, stdin: str | None = None) -> Result:
    done = CliRunner().invoke(cli, ["batch", *args], standalone_mode=False, input=stdin)
    failed = (
        0
        if done.exception is None
        else getattr(done.exception, "exit_code", exit_code(done.exception))
    )
    assert (done.return_value or failed or 0) == code, (done.output, done.exception)
    return done


def csv_of(path: Path, rows: int) -> Path:
    regions = ["North", "South", "East", "West"]
    path.write_text("ticket,region\n" + "".join(f"T{n},{regions[n % 4]}\n" for n in range(rows)))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_csv_in_results_and_a_report_out(home: Path) -> None:
    csv_of(home / "rows.csv", 12)
    given = [
        "--map",
        f"input={QUESTION}",
        "--map",
        "id={ticket}",
        "--out",
        "out.jsonl",
        "--report",
        "report.json",
        "-n",
        "4",
    ]
    done = command(
        "run", "rows.csv", "--agent", ANALYST, *given, "--id", "first", "--name", "a try"
    )
    found = lines(home / "out.jsonl")
    assert sorted(each["task_id"] for each in found) == sorted(f"T{n}" for n in range(12))
    assert {each["status"] for each in found} == {"completed"}
    assert "15002.4" in next(each["output"] for each in found if each["task_id"] == "T0")
    report = json.loads((home / "report.json").read_text())
    assert (report["total"], report["by_status"], report["name"]) == (
        12,
        {"completed": 12},
        "a try",
    )
    assert report["usage"]["model_calls"] == 36
    assert "first completed  12/12 (100 %)" in done.stderr
    assert "12: 12 completed" in done.stderr
    assert done.stdout == ""
    assert command("status").stdout.splitlines()[1].split()[:3] == ["first", "completed", "12/12"]
    assert json.loads(command("status", "first", "--json").stdout)["completed"] == 12
    assert "first completed  12/12" in command("status", "first").stdout
    assert "first completed" in command("watch", "first").stderr
    assert "throughput" in command("report", "first").stdout
    command("report", "first", "--results", "again.jsonl", "--out", "r.txt")
    assert [each["task_id"] for each in lines(home / "again.jsonl")] == [f"T{n}" for n in range(12)]
    assert "status      completed" in (home / "r.txt").read_text()


def test_tasks_from_stdin_and_results_to_stdout() -> None:
    text = "".join(
        json.dumps({"input": QUESTION.format(region=each)}) + "\n" for each in ("North", "South")
    )
    done = command("run", "-", "--agent", "analyst", "-q", stdin=text)
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["completed"] * 2
    assert done.stderr == ""
    done = command("run", "-", "--agent", "analyst", "-q", "--out", "-", stdin=text)
    assert len(done.stdout.splitlines()) == 2
    assert not Path("-").exists()
    done = command(
        "run", "-", "--agent", "analyst", "--format", "csv", "--json", "-q", stdin="input\nHello\n"
    )
    assert json.loads(done.stdout)["by_status"] == {"completed": 1}


def test_one_file_says_it_all(home: Path) -> None:
    csv_of(home / "rows.csv", 3)
    (home / "batch.yaml").write_text(
        f"batch:\n  agent: {ANALYST}\n  tasks: rows.csv\n  mapping: {{input: '{QUESTION}', id: "
        "'{ticket}'}\n"
        "  output: out.jsonl\n  report: report.txt\n  max_concurrent: 2\n  name: from a file\n"
    )
    command("run", "batch.yaml", "-q", "--id", "filed")
    assert len(lines(home / "out.jsonl")) == 3
    assert "batch       filed from a file" in (home / "report.txt").read_text()
    (home / "list.yaml").write_text(
        "batch:\n  agent: analyst\n  tasks: [Hello, {input: Goodbye, priority: high}]\n"
    )
    assert len(command("run", "list.yaml", "-q").stdout.splitlines()) == 2


def test_structured_results_with_inputs_of_each_row(home: Path) -> None:
    (home / "rows.csv").write_text("topic,tone\nopening hours,formal\nnew lamps,cheerful\n")
    command(
        "run",
        "rows.csv",
        "--agent",
        "writer",
        "--map",
        "input=A notice about {topic}.",
        "--map",
        "inputs.tone={tone}",
        "--out",
        "o.jsonl",
        "-q",
    )
    found = lines(home / "o.jsonl")
    assert [set(each["structured_response"]) >= {"title", "text"} for each in found] == [True, True]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("run", "none.csv", "--agent", "analyst"), 2, "there is no file"),
        (("run", "rows.csv", "--agent", "nobody"), 4, "unknown template 'nobody'"),
        (("run", "rows.csv", "--map", "input={region}"), 3, "names no agent"),
        (
            ("run", "rows.csv", "--agent", "analyst"),
            2,
            "no task could be read: line 2: input: the row has no 'input'",
        ),
        (("run", "rows.csv", "--agent", "analyst", "--map", "input"), 2, "not FIELD=TEXT"),
        (("run", "rows.csv", "--agent", "analyst", "--map", "inptu=x"), 3, "did you mean 'input'"),
        (("run", "rows.doc", "--agent", "analyst"), 3, "come from .jsonl"),
        (("run", "empty.csv", "--agent", "analyst"), 3, "is empty"),
        (("run", "rows.csv", "--agent", "analyst", "--id", "a b"), 2, "id is 1 to 64"),
        (("status", "nothing"), 4, "no batch execution 'nothing'"),
        (("resume", "nothing"), 4, "no batch execution 'nothing'"),
        (("cancel", "nothing"), 4, "no batch execution 'nothing'"),
        (("run", "bad.yaml"), 3, "did you mean 'tasks'"),
        (
            ("run", "rows.csv", "--agent", "analyst", "--out", "rows.csv"),
            2,
            "'rows.csv' is read from",
        ),
        (
            ("run", "rows.csv", "--agent", "analyst", "--out", "x", "--report", "./x"),
            2,
            "is the file of results",
        ),
        (("run", "same.yaml"), 2, "rows.csv' is read from"),
        (("run", "list.yaml", "--out", "list.yaml"), 2, "'list.yaml' is read from"),
        (("report", "any", "--results", "y", "--out", "y"), 2, "is the file of results"),
    ],
)
def test_what_is_wrong_is_said(home: Path, args: tuple[str, ...], code: int, said: str) -> None:
    csv_of(home / "rows.csv", 2)
    (home / "rows.doc").write_text("x")
    (home / "empty.csv").write_text("")
    (home / "bad.yaml").write_text("batch: {task: x}\n")
    (home / "same.yaml").write_text("batch: {agent: analyst, tasks: rows.csv, output: rows.csv}\n")
    (home / "list.yaml").write_text("batch: {agent: analyst, tasks: [Hello]}\n")
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    done = command(*args, code=code)
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before
    assert said in f"{done.output}{done.exception}{getattr(done.exception, 'message', '')}"


def test_rows_that_are_wrong_fail_alone(home: Path) -> None:
    (home / "rows.csv").write_text("region\nNorth\nSouth,too much\n")
    done = command(
        "run",
        "rows.csv",
        "--agent",
        "analyst",
        "--map",
        f"input={QUESTION}",
        "--out",
        "o.jsonl",
        "--id",
        "r",
        code=1,
    )
    assert [
        each["status"]
        for each in sorted(lines(home / "o.jsonl"), key=lambda each: each["position"])
    ] == [
        "completed",
        "failed",
    ]
    assert "1 failed (input_invalid 1)" in done.stderr
    assert "agent-runtime batch rerun r" in done.stderr
    done = command("rerun", "r", code=1)
    assert "0 tasks run again" in done.stderr  # what could not be read cannot be run


@pytest.mark.integration
def test_money_on_the_command_line(home: Path) -> None:
    # Each command in a process of its own: LangChain keeps one client, and that belongs to one
    # event loop.
    def run(*args: str, code: int) -> tuple[str, str]:
        with started(home, *args) as process:
            out, said = process.communicate()
        assert process.returncode == code, said
        return out, said

    with ProviderProcess(0.005) as provider:
        (home / "stub.yaml").write_text(template(provider.url))
        (home / "t.jsonl").write_text("".join(f'"task {n}"\n' for n in range(40)))
        common = ("t.jsonl", "--agent", "stub.yaml", "--out", "o.jsonl")
        _, said = run("run", *common, "--max-cost", "0.003", "--id", "m", code=7)
        assert "forecast from 5 of 40 tasks: 0.0042 USD" in said
        assert "agent-runtime batch resume m --approve" in said
        assert json.loads(command("status", "m", "--json").stdout)["status"] == "awaiting_approval"
        _, said = run("resume", "m", "--approve", code=6)
        assert "agent-runtime batch resume m --max-cost USD" in said
        assert 0 < float(provider.counts()["usd"]) <= 0.003
        run("resume", "m", "--max-cost", "1", code=0)
        assert (
            len(lines(home / "o.jsonl"))
            == len({each["task_id"] for each in lines(home / "o.jsonl")})
            == 40
        )
        assert set(provider.counts()["billed"].values()) == {1}


def started(home: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent_runtime", "batch", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home,
        env={**with_tests(), "AGENT_RUNTIME_HOME": str(home / "home"), "DUMMY_KEY": "dummy"},
    )  # fmt: skip


def until_lines(path: Path, count: int) -> None:
    limit = time.monotonic() + 30
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how", ["ctrl_c", *(pytest.param(x, marks=pytest.mark.integration) for x in ("kill", "cancel"))]
)
def test_a_batch_that_is_stopped_goes_on(home: Path, how: str) -> None:
    with ProviderProcess(0.005, holds_after=12) as provider:  # it cannot end before it is stopped
        (home / "stub.yaml").write_text(template(provider.url))
        (home / "t.jsonl").write_text("".join(f'"task {n}"\n' for n in range(60)))
        (home / "batch.yaml").write_text(
            "batch: {agent: stub.yaml, tasks: t.jsonl, output: o.jsonl, max_concurrent: 4, "
            "grace: 300ms}\n"
        )
        with started(home, "run", "batch.yaml", "--id", "b", "--ledger", "memory:") as batch:
            until_lines(home / "o.jsonl", 10)
            if how == "cancel":
                assert "b cancelled" in command("cancel", "b").stdout
            else:
                os.kill(batch.pid, signal.SIGINT if how == "ctrl_c" else signal.SIGKILL)
            _, said = batch.communicate()
        assert batch.returncode == {"ctrl_c": 130, "kill": -9, "cancel": 1}[how], said
        state = json.loads(command("status", "b", "--json").stdout)["status"]
        assert state == {"ctrl_c": "paused", "kill": "lost", "cancel": "cancelled"}[how]
        if how == "ctrl_c":
            assert "to continue: agent-runtime batch resume b" in said
        provider.admit()
        done = command("resume", "b", "--ledger", "memory:")
        found = lines(home / "o.jsonl")
        assert sorted(each["output"] for each in found) == sorted(
            f"did: task {n}" for n in range(60)
        )
        assert set(provider.counts()["billed"].values()) == {1}
        assert "60: 60 completed" in done.stderr
