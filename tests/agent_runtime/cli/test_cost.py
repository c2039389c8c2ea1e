"""`keys`, `cost`, `doctor`, and what a budget does on the command line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_runtime import SqliteLedger
from agent_runtime.budgets.ledger.ledger import (
    Account,
    Amount,
    ReservationRequest,
    Settlement,
    Spend,
    SpendLabels,
)
from agent_runtime.cli import cli
from agent_runtime.cli.exit_codes import exit_code
from agent_runtime.cli.main import main
from agent_runtime.cli.state import settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of its own."""
    monkeypatch.setenv("AGENT_RUNTIME_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


def run(*args: str, code: int = 0) -> str:
    found = CliRunner().invoke(cli, args, standalone_mode=False)
    failed = 0 if found.exception is None else exit_code(found.exception)
    assert (found.return_value or failed or 0) == code, (found.output, found.exception)
    return found.stdout if found.exception is None else str(found.exception)


def test_the_life_of_a_key(home: Path) -> None:
    key = run(
        "keys", "create", "ada", "--tenant", "acme", "--scope", "run:analyst", "--expires-in", "30d"
    ).strip()
    assert key.startswith("art_")
    (row,) = json.loads(run("keys", "list", "--json"))
    assert (row["user"], row["tenant"], row["scopes"], row["status"]) == (
        "ada",
        "acme",
        ["run:analyst"],
        "active",
    )
    assert row["id"] in key
    rotated = json.loads(run("keys", "rotate", row["id"], "--overlap", "1h", "--json"))
    assert rotated["key"] != key
    assert rotated["scopes"] == ["run:analyst"]
    assert "--with-successors" in run("keys", "revoke", row["id"], code=3)
    assert run("keys", "revoke", "--only-this", row["id"]).strip() == f"revoked {row['id']}"
    assert run("keys", "sign") == ""
    listed = run("keys", "list", "--tenant", "acme")
    assert "revoked" in listed
    assert "active" in listed
    for path in home.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        assert key[17:60].encode() not in path.read_bytes()
    assert "no API key" in run("keys", "revoke", "nobody", code=4)
    assert "scope" in run("keys", "create", "ada", "--scope", "a b", code=3)


def fill(home: Path) -> None:
    home.mkdir()
    ledger = SqliteLedger(home / "ledger.db")
    for number, (tenant, model, cost) in enumerate(
        [("acme", "openai:a", 2_500_000), ("zoo", "openai:b", 1_000), ("=1+1", "x:y", 1)]
    ):
        spend = Spend(
            SpendLabels(tenant, "ada", "analyst", model),
            1,
            100,
            10,
            micro_usd=cost,
            estimated=number % 2,
        )
        ledger.transact([Settlement(f"op{number}", Amount(), (spend,))], None).run()
    account = Account("tenant=acme/total", 10_000_000, None)
    ledger.transact(
        [],
        ReservationRequest("held", (account,), Amount(1), Amount(1_500_000, 10), 600),
    ).run()


def test_what_was_spent_by_anything(home: Path) -> None:
    fill(home)
    rows = json.loads(run("cost", "report", "--format", "json"))
    assert [(r["tenant"], r["cost_usd"], r["calls"]) for r in rows] == [
        ("acme", "2.500000", 1),
        ("zoo", "0.001000", 1),
        ("=1+1", "0.000001", 1),
    ]
    rows = json.loads(run("cost", "report", "--by", "user", "--by", "day", "--format", "json"))
    assert [(r["user"], r["cost_usd"], r["estimated"]) for r in rows] == [("ada", "2.501001", 1)]
    table = run("cost", "report", "--by", "model", "--by", "template")
    assert table.splitlines()[1].split()[:3] == ["openai:a", "analyst", "1"]
    csv = run("cost", "report", "--format", "csv").splitlines()
    assert csv[0].startswith("tenant,calls,input_tokens")
    assert csv[3].startswith("'=1+1,")  # no formula in a spreadsheet
    assert (
        json.loads(
            run(
                "cost",
                "report",
                "--until",
                "2020-01-01",
                "--since",
                "2019-01-01",
                "--format",
                "json",
            )
        )
        == []
    )
    assert len(json.loads(run("cost", "report", "--since", "2h", "--format", "json"))) == 3
    for bad in ("2026-13-01", "soon", "-1d"):
        run("cost", "report", "--since", bad, code=1)


def test_how_budgets_stand(home: Path) -> None:
    fill(home)
    (row,) = json.loads(run("cost", "budgets", "--format", "json"))
    assert row["account"] == "tenant=acme/total"
    assert (row["held_usd"], row["limit_usd"], row["left_usd"]) == (
        "1.500000",
        "10.000000",
        "8.500000",
    )


def test_a_run_is_recorded_and_a_budget_stops_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("run", "searcher", "opening hours", "-q")
    (row,) = json.loads(run("cost", "report", "--by", "template", "--format", "json"))
    assert row["template"] == "searcher"
    assert row["calls"] >= 1
    run("run", "searcher", "opening hours", "-q", "--budget", "0.01")  # the stand-in is free
    run("run", "searcher", "x", "--budget", "-1", code=1)


def test_limits_are_shared_by_commands_and_a_right_is_the_operators(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    template = tmp_path / "t.yaml"
    template.write_text(
        "apiVersion: agent-runtime/v1\nkind: AgentTemplate\nmetadata: {name: t}\n"
        "spec: {model: 'offline:', runtime: {auth: {require: [finance]}, rate_limits: [1/hour]}}\n"
    )
    monkeypatch.setenv("AGENT_RUNTIME_LIMITS", f"{redis_url}?prefix={uuid.uuid4().hex}")
    settings.cache_clear()
    run("run", str(template), "hi", "-q")
    assert "1/hour" in run("run", str(template), "hi", "-q", code=6)


def test_the_doctor(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(run("doctor", "--json"))
    assert all(row["ok"] for row in found["checks"])
    assert {"sessions", "ledger", "keys", "events", "batches", "dead letters"} <= {
        r["check"] for r in found["checks"]
    }
    assert found["settings"]["home"]["source"] == "environment"
    monkeypatch.setenv("AGENT_RUNTIME_LEDGER", "redis://user:dummypassword@127.0.0.1:1/0")
    settings.cache_clear()
    shown = run("doctor", code=1)
    assert "FAIL ledger" in shown
    assert "dummypassword" not in shown


@pytest.mark.parametrize(
    "store", ["SESSIONS", "LEDGER", "KEYS", "EVENTS", "BATCHES", "DEAD_LETTERS"]
)
def test_the_doctor_finds_a_store_that_does_not_answer(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AGENT_RUNTIME_{store}", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    assert f"FAIL {store.lower().replace('_', ' ')}" in run("doctor", code=1)


@pytest.mark.parametrize("address", ["memory:", "redis://", "ledger.db"])
def test_an_address_that_cannot_be_ends_every_command_with_3(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME_PRESET", "prod")
    monkeypatch.setenv("AGENT_RUNTIME_BATCHES", address)
    for command in (["doctor"], ["batch", "list"], ["keys", "list"]):
        settings.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 3


def test_a_misspelt_setting_ends_every_command_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME_LEGER", "x")
    settings.cache_clear()
    with pytest.raises(SystemExit) as ended:
        main(["keys", "list"])
    assert ended.value.code == 3
    assert "did you mean" in capsys.readouterr().err
