"""Settings: every wrong one is refused, all at once, without showing a value."""

from __future__ import annotations

import os
import re
import secrets
from decimal import Decimal
from pathlib import Path

import pytest

from agent_runtime import ConfigurationError
from agent_runtime.secrets.strength import weakness_of
from agent_runtime.settings import read_settings
from agent_runtime.size_limits import SIZE_LIMITS, size_limit, variable_of

ROOT = Path(__file__).parents[2]
SECRET = "dummy-secret-of-at-least-32-bytes-...."


def secret_file(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / f"secret-{mode:o}"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("AGENT_RUNTIME_LEGER", "x", "did you mean 'AGENT_RUNTIME_LEDGER'"),
        ("AGENT_RUNTIME_home", "x", "unknown setting"),
        ("AGENT_RUNTIME_PORT", "70000", "1 to 65535"),
        ("AGENT_RUNTIME_PORT", "http", "1 to 65535"),
        ("AGENT_RUNTIME_PORT", "0", "1 to 65535"),
        ("AGENT_RUNTIME_PORT", "-1", "1 to 65535"),
        ("AGENT_RUNTIME_BUDGET", "inf", "finite"),
        ("AGENT_RUNTIME_BUDGET", "nan", "finite"),
        ("AGENT_RUNTIME_BUDGET", "0", "above 0"),
        ("AGENT_RUNTIME_BUDGET", "$5", "finite"),
        ("AGENT_RUNTIME_LOG_LEVEL", "verbose", "DEBUG"),
        ("AGENT_RUNTIME_LOG_FORMAT", "xml", "json"),
        ("AGENT_RUNTIME_PRESET", "production", "did you mean 'prod'"),
        ("AGENT_RUNTIME_AUTH", "maybe", "on"),
        ("AGENT_RUNTIME_PROCESSES", "0", "1 to 100000"),
        ("AGENT_RUNTIME_SESSION_KEY", "short", "32 bytes"),
        ("AGENT_RUNTIME_KEY_PEPPER", "short", "32 bytes"),
        ("AGENT_RUNTIME_KEY_PEPPER_FILE", "/nowhere/at/all", "cannot read"),
        ("AGENT_RUNTIME_CONFIG", "/nowhere/at/all", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_refused(variable: str, value: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        read_settings({variable: value})


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as failed:
        read_settings(
            {"AGENT_RUNTIME_PORT": "x", "AGENT_RUNTIME_BUDGET": "x", "AGENT_RUNTIME_NOTHING": "x"}
        )
    assert len(str(failed.value).splitlines()) == 3


def test_what_is_unsafe_in_production_is_refused_there() -> None:
    unsafe = {"AGENT_RUNTIME_AUTH": "off", "AGENT_RUNTIME_HOST": "0.0.0.0"}  # noqa: S104
    assert read_settings(unsafe).auth == "off"
    with pytest.raises(ConfigurationError) as failed:
        read_settings({**unsafe, "AGENT_RUNTIME_PRESET": "prod"})
    assert "AGENT_RUNTIME_AUTH" in str(failed.value)
    assert "AGENT_RUNTIME_HOST" in str(failed.value)
    assert read_settings({"AGENT_RUNTIME_PRESET": "prod"}).preset == "prod"


def test_secret_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = secret_file(tmp_path, f"{SECRET}\n")
    assert read_settings({"AGENT_RUNTIME_KEY_PEPPER_FILE": good}).key_pepper_file == SECRET
    assert "newline" in caplog.text
    for path in (secret_file(tmp_path, SECRET, 0o644), secret_file(tmp_path, "short", 0o400)):
        with pytest.raises(ConfigurationError) as failed:
            read_settings({"AGENT_RUNTIME_KEY_PEPPER_FILE": path})
        assert SECRET not in str(failed.value)
    with pytest.raises(ConfigurationError, match="give one"):
        read_settings({"AGENT_RUNTIME_KEY_PEPPER_FILE": good, "AGENT_RUNTIME_KEY_PEPPER": SECRET})


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('port = 9000\nbudget = "2.5"\n')
    found = read_settings({"AGENT_RUNTIME_CONFIG": str(path), "AGENT_RUNTIME_PORT": "9001"})
    assert (found.port, found.budget) == (9001, Decimal("2.5"))
    shown = found.describe()
    assert shown["port"] == {"value": "9001", "source": "environment"}
    assert shown["budget"] == {"value": "2.5", "source": str(path)}
    assert shown["host"] == {"value": "127.0.0.1", "source": "default"}
    path.write_text('prot = 1\nsession_key = "x"\n')
    with pytest.raises(ConfigurationError) as failed:
        read_settings({"AGENT_RUNTIME_CONFIG": str(path)})
    assert "did you mean 'port'" in str(failed.value)
    assert "session_key_file" in str(failed.value)
    path.write_text("port = ")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_settings({"AGENT_RUNTIME_CONFIG": str(path)})


def test_nothing_that_is_shown_has_a_secret_in_it() -> None:
    found = read_settings(
        {
            "AGENT_RUNTIME_LEDGER": "redis://user:dummypassword@host/0",
            "AGENT_RUNTIME_SESSION_KEY": SECRET,
        }
    )
    for text in (repr(found), str(found.describe())):
        assert "dummypassword" not in text
        assert SECRET not in text
        assert "redis://user:" in text


@pytest.mark.parametrize("name", ["SESSION_KEY", "KEY_PEPPER"])
@pytest.mark.parametrize(
    "weak",
    [" " * 40, "k" * 40, "ab" * 20, "abcdefghijklmnopqrstuvwxyz0123456789", "0123456789" * 4],
)
def test_a_secret_that_could_be_guessed_is_refused(name: str, weak: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="could be guessed") as refused:
        read_settings({f"AGENT_RUNTIME_{name}": weak})
    assert weak not in str(refused.value)
    with pytest.raises(ConfigurationError, match="could be guessed"):
        read_settings({f"AGENT_RUNTIME_{name}_FILE": secret_file(tmp_path, weak)})


def test_random_secrets_are_taken() -> None:
    for make in (secrets.token_urlsafe, secrets.token_hex):
        for _ in range(200):
            assert weakness_of(make(32).encode()) is None


STORES = ["SESSIONS", "LEDGER", "KEYS", "EVENTS", "BATCHES", "DEAD_LETTERS", "LIMITS"]


@pytest.mark.parametrize("store", STORES)
def test_an_address_of_no_store_is_refused_when_settings_are_read(store: str) -> None:
    for address in ("state.db", "redis://", "redis:///0", "sqlite3:x.db", "mysql://h/x"):
        with pytest.raises(ConfigurationError, match=f"AGENT_RUNTIME_{store} .*Known: memory:"):
            read_settings({f"AGENT_RUNTIME_{store}": address})


@pytest.mark.parametrize("store", STORES)
def test_production_keeps_nothing_where_a_restart_loses_it(store: str) -> None:
    addresses = [
        "memory:",
        "redis://h/0?durable=no",
        *([] if store == "LIMITS" else ["sqlite::memory:"]),
    ]
    for address in addresses:
        given = {f"AGENT_RUNTIME_{store}": address}
        assert read_settings(given)
        if (
            store == "LIMITS" and "durable" in address
        ):  # a count that a crash loses is one that callers may use again
            continue
        with pytest.raises(ConfigurationError, match=f"AGENT_RUNTIME_{store}: the preset prod"):
            read_settings({**given, "AGENT_RUNTIME_PRESET": "prod"})
    good = {f"AGENT_RUNTIME_{store}": "redis://h/0", "AGENT_RUNTIME_PRESET": "prod"}
    assert read_settings(good).preset == "prod"


def test_every_bound_of_a_process_is_in_the_docs_and_in_use() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    used = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'size_limit\("(\w+)"\)', path.read_text())
    }
    assert used == set(SIZE_LIMITS)
    for name, limit in SIZE_LIMITS.items():
        (shown,) = re.findall(
            rf"\| `{variable_of(name)}` \| ([\d,]+)( Ki| Mi)? \| {re.escape(limit.description)} \|",
            page,
        )
        factor = {"": 1, " Ki": 1024, " Mi": 1024 * 1024}[shown[1]]
        assert int(shown[0].replace(",", "")) * factor == limit.default


def test_a_bound_is_taken_from_the_environment_and_a_wrong_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME_MAX_YAML_BYTES", "100")
    assert size_limit("yaml_bytes") == 100
    read_settings(dict(os.environ))
    for text in ("0", "-1", "1e3", "many", "9" * 20, "\u0663"):
        monkeypatch.setenv("AGENT_RUNTIME_MAX_YAML_BYTES", text)
        with pytest.raises(ConfigurationError, match="MAX_YAML_BYTES is a whole number"):
            size_limit("yaml_bytes")
        with pytest.raises(ConfigurationError, match="MAX_YAML_BYTES is a whole number"):
            read_settings(dict(os.environ))
    with pytest.raises(
        ConfigurationError, match="unknown limit AGENT_RUNTIME_MAX_YAML_BYTE: did you mean"
    ):
        read_settings({"AGENT_RUNTIME_MAX_YAML_BYTE": "100"})
