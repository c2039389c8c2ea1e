"""`events` and `triggers` on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_runtime.cli import cli
from agent_runtime.cli.exit_codes import exit_code
from agent_runtime.cli.state import settings
from agent_runtime.event_bus import Event, EventBus
from agent_runtime.event_bus.brokers import open_broker
from agent_runtime.event_bus.cloud_event import to_cloud_event
from agent_runtime.event_bus.dead_letter import DeadLetter
from agent_runtime.event_bus.dead_letters import SqliteDeadLetters

QUESTION = "What is the total amount in the North?"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of its own."""
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


def run(*args: str, code: int = 0) -> str:
    found = CliRunner().invoke(cli, args, standalone_mode=False)
    failed = (
        0
        if found.exception is None
        else getattr(found.exception, "exit_code", exit_code(found.exception))
    )
    assert (found.return_value or failed or 0) == code, (found.output, found.exception)
    return found.stdout if found.exception is None else str(found.exception)


def recorded() -> str:
    run("run", "analyst", QUESTION, "-q", "--record")
    (event,) = [
        json.loads(line)
        for line in run("events", "query", "--type", "run.end", "--json").splitlines()
    ]
    return str(event["runid"])


def test_a_run_is_in_the_log_and_can_be_searched() -> None:
    run_id = recorded()
    shown = run("events", "tail", "-n", "3").splitlines()
    assert len(shown) == 3
    assert "run.end" in shown[-1]
    assert run_id in shown[-1]
    assert len(run("events", "query", "--type", "tool.*").splitlines()) == 4
    assert run("events", "query", "--agent", "writer") == ""
    assert len(run("events", "query", "--run", run_id, "--since", "1h").splitlines()) == 12
    assert run("events", "query", "--until", "2020-01-01") == ""
    first = run("events", "query", "--limit", "5", "--json").splitlines()
    assert len(first) == 5
    rest = run("events", "query", "--after", "5", "--json").splitlines()
    assert len(rest) == 7
    run("events", "query", "--after", "x", code=2)
    run("events", "query", "--since", "sometimes", code=2)


def test_an_export_is_all_of_it_as_cloud_events(tmp_path: Path) -> None:
    run_id = recorded()
    target = tmp_path / "out.jsonl"
    run("events", "export", "-o", str(target), "--run", run_id)
    events = [json.loads(line) for line in target.read_text().splitlines()]
    assert [int(e["sequence"]) for e in events] == list(range(1, 13))
    assert {e["specversion"] for e in events} == {"1.0"}
    assert run("events", "export", "--type", "run.*").count("\n") == 2


def test_a_recorded_run_replays_and_forks() -> None:
    run_id = recorded()
    assert "the same: 5 steps" in run("events", "replay", run_id)
    assert json.loads(run("events", "replay", run_id, "--json"))["same"] is True
    assert [line.split()[1] for line in run("events", "replay", run_id,
    "--steps").splitlines()] == [
        "llm", "tool", "llm", "tool", "llm",
    ]  # fmt: skip
    assert "15002.4" in run("events", "replay", run_id, "--from", "4")
    run("events", "replay", "unknown", code=4)
    run("events", "replay", run_id, "--from", "99", code=3)


def test_a_replay_that_differs_says_where_and_fails(tmp_path: Path) -> None:
    template = tmp_path / "t.yaml"
    head = "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"
    text = head + "spec: {model: 'offline:', system_prompt: %s}\n"
    template.write_text(text % "one")
    run("run", str(template), "hello", "-q", "--record")
    run_id = json.loads(run("events", "query", "--type", "run.end", "--json"))["runid"]
    template.write_text(text % "two")
    found = CliRunner().invoke(cli, ["events", "replay", run_id], standalone_mode=False)
    assert found.return_value == 1
    assert "differs at step 1: messages.0.content" in found.stderr
    assert "the template has changed" in found.stderr


def test_without_record_contents_stay_out_of_the_log() -> None:
    run("run", "analyst", QUESTION, "-q")
    assert "North" not in run("events", "export")
    run_id = json.loads(run("events", "query", "--type", "run.end", "--json"))["runid"]
    assert "--record" in run("events", "replay", run_id, code=4)


def test_the_log_can_be_off_or_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME_EVENTS", "off")
    settings.cache_clear()
    run("run", "analyst", QUESTION, "-q")
    assert not (home / "events.db").exists()
    monkeypatch.setenv("AGENT_RUNTIME_EVENTS", f"{redis_url}?name=cli-{time.time_ns()}")
    settings.cache_clear()
    run_id = recorded()
    assert len(run("events", "tail", "-n", "100").splitlines()) == 12
    assert len(run("events", "query", "--type", "llm.*", "--limit", "3").splitlines()) == 3
    assert "the same" in run("events", "replay", run_id)
    assert "ok   events" in run("doctor")


def test_types_are_listed_with_their_schemas() -> None:
    assert "budget.warning" in run("events", "types")
    assert json.loads(run("events", "types", "run.end"))["required"] == ["name", "status", "usage"]
    run("events", "types", "run.over", code=3)


def test_what_others_wrote_does_not_steer_the_terminal(home: Path) -> None:
    async def write() -> None:
        home.mkdir()
        broker = open_broker(f"sqlite:{home / 'events.db'}")
        await broker.publish(
            [EventBus().stamp(Event("custom.x", {"name": "\x1b[2J\x07"}, agent="a\x1b[31m\nb"))]
        )
        await broker.aclose()

    asyncio.run(write())
    assert "\x1b" not in run("events", "tail")
    assert run("events", "tail").count("\n") == 1


def test_following_shows_what_comes(home: Path) -> None:
    run("run", "analyst", QUESTION, "-q")
    command = [
        sys.executable,
        "-m",
        "agent_runtime",
        "events",
        "tail",
        "-f",
        "-n",
        "1",
        "--type",
        "run.end",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        run("run", "searcher", "lamps", "-q")
        second = process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        process.stdout.close()
    assert "analyst" in first
    assert "searcher" in second


def test_dead_letters_are_listed_retried_and_discarded(home: Path) -> None:
    event = EventBus().stamp(Event("custom.x", {"n": 1}))

    async def add() -> list[str]:
        store = SqliteDeadLetters(str(home / "dead_letters.db"))
        failure = ValueError("no \x1b]0;owned\x07\nfake line")
        letters = [DeadLetter.of("billing", to_cloud_event(event), failure, 3) for _ in range(2)]
        for letter in letters:
            await store.add(letter)
        await store.aclose()
        return [letter.id for letter in letters]

    first, second = asyncio.run(add())
    listed = run("events", "dead", "list")
    assert (
        listed.count(r"ValueError: no \u001b]0;owned\u0007\u000afake line")
        == listed.count("\n")
        == 2
    )
    assert run("events", "dead", "list", "--queue", "other") == ""
    assert json.loads(run("events", "dead", "show", first))["payload"]["data"] == {"n": 1}
    run("events", "dead", "retry", first)
    (again,) = [json.loads(line) for line in run("events", "query", "--json").splitlines()]
    assert again["data"] == {"n": 1}
    assert again["id"] != event.id
    run("events", "dead", "discard", second)
    assert run("events", "dead", "list") == ""
    for command in ("show", "retry", "discard"):
        run("events", "dead", command, first, code=4)


RULES = """apiVersion: agent-runtime/v1
kind: Triggers
triggers:
  - {name: hook, webhook: {path: ask, secret: {from_env: HOOK}, signature: github}, start: searcher,
     input: "{{ data.payload.question }}"}
"""


def test_rules_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, unknown = (tmp_path / name for name in ("good.yaml", "bad.yaml", "unknown.yaml"))
    good.write_text(RULES)
    bad.write_text(RULES.replace("start: searcher", "begin: searcher"))
    unknown.write_text(RULES.replace("searcher", "nobody"))
    run("triggers", "check", str(good), code=3)  # as `run` would: its secret is not there
    monkeypatch.setenv("HOOK", "x" * 40)
    run("triggers", "check", str(good), code=3)
    monkeypatch.setenv("HOOK", "dummy-hook-secret-of-the-tests")
    assert "1 rules, ok" in run("triggers", "check", str(good))
    assert "bad.yaml:4:" in run("triggers", "check", str(bad), code=3)
    run("triggers", "check", str(unknown), code=4)
    run("triggers", "check", str(tmp_path / "none.yaml"), code=4)


def test_a_webhook_starts_an_agent_from_the_command_line(tmp_path: Path, home: Path) -> None:
    import hashlib
    import hmac
    import urllib.request

    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "agent_runtime",
        "triggers",
        "run",
        str(file),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOOK": "dummy-hook-secret-of-the-tests"},
    )
    try:
        body = b'{"question": "How long is the warranty of lamps?"}'
        sign = (
            "sha256="
            + hmac.new(b"dummy-hook-secret-of-the-tests", body, hashlib.sha256).hexdigest()
        )
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/ask", body, {"X-Hub-Signature-256": sign}
        )
        _until(lambda: urllib.request.urlopen(request, timeout=5).status == 202)  # noqa: S310
        _until(lambda: "run.end" in run("events", "tail", "--type", "run.end"))
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert "1 rules" in said
    assert "stopped" in said
    assert process.returncode == 0
    assert "trigger.fired" in run("events", "tail", "--type", "trigger.*")


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_port_that_is_taken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "dummy-hook-secret-of-the-tests")
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = run("triggers", "run", str(file), "--port", str(taken.getsockname()[1]), code=3)
    assert "cannot listen" in said
