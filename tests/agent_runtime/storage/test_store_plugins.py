"""Stores of other packages: found by their entry points, and checked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import SessionManager
from agent_runtime.auth import open_keys
from agent_runtime.auth.key_stores import MemoryKeyStore
from agent_runtime.batch.journal import open_journal
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.budgets.ledger.opening import open_ledger
from agent_runtime.checkpoints.backends.memory import MemoryCheckpointBackend
from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.brokers import MemoryBroker, open_broker
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters, open_dead_letters
from agent_runtime.limits.opening import LimitStore, open_limits
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.settings import read_settings

PROGRAM = """
from agent_runtime.auth.key_stores import MemoryKeyStore
from agent_runtime.batch.journal.memory import MemoryJournal
from agent_runtime.budgets.ledger.memory import MemoryLedger
from agent_runtime.checkpoints.backends.memory import MemoryCheckpointBackend
from agent_runtime.event_bus.brokers import MemoryBroker
from agent_runtime.event_bus.dead_letters import MemoryDeadLetters
from agent_runtime.limits.opening import LimitStore

opened = []

def open_ledger(url):
    opened.append(url)
    return MemoryLedger()

def open_broker(url, *, lease_s, seal_key):
    opened.append((url, lease_s, seal_key))
    return MemoryBroker(lease_s=lease_s)

def open_sessions(url): return MemoryCheckpointBackend()
def open_journal(url): return MemoryJournal()
def open_keys(url): return MemoryKeyStore()
def open_limits(url): return LimitStore()
def open_dead_letters(url): return MemoryDeadLetters()
def open_nothing(url): return "nothing"
"""
ENTRY_POINTS = """
[agent_runtime.stores]
ledger.db = store_plugin:open_ledger
ledger.redis = store_plugin:open_ledger
ledger.wrong = store_plugin:open_nothing
ledger.missing = store_plugin:absent
sessions.db = store_plugin:open_sessions
batches.db = store_plugin:open_journal
keys.db = store_plugin:open_keys
limits.db = store_plugin:open_limits
events.db = store_plugin:open_broker
dead_letters.db = store_plugin:open_dead_letters
"""


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installed package with a store for each address `db:`."""
    (tmp_path / "store_plugin.py").write_text(PROGRAM)
    info = tmp_path / "store_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: store-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "store_plugin", raising=False)
    return importlib.import_module("store_plugin")


OPENERS: list[tuple[Callable[[str], Any], Callable[[Any], Any], type]] = [
    (open_ledger, lambda opened: opened, MemoryLedger),
    (SessionManager.from_url, lambda opened: opened.checkpointer.backend, MemoryCheckpointBackend),
    (open_journal, lambda opened: opened, MemoryJournal),
    (
        lambda url: open_keys(url, b"a-pepper-of-32-bytes-for-a-test-"),
        lambda opened: opened.store,
        MemoryKeyStore,
    ),
    (open_limits, lambda opened: opened, LimitStore),
    (open_broker, lambda opened: opened, MemoryBroker),
    (open_dead_letters, lambda opened: opened, MemoryDeadLetters),
]


@pytest.mark.parametrize(
    ("opener", "store_of", "kind"), OPENERS, ids=[kind.__name__ for _, _, kind in OPENERS]
)
async def test_each_opener_opens_a_store_of_a_package(
    opener: Callable[[str], Any], store_of: Callable[[Any], Any], kind: type
) -> None:
    opened = opener("db://host/app")
    assert type(store_of(opened)) is kind
    await opened.aclose()


async def test_an_opener_gets_the_address_and_the_settings_of_a_broker(plugin: Any) -> None:
    await open_ledger("db://user:pass-of-the-store@host/app").aclose()
    await open_broker("db://host", lease_s=3.0, seal_key=b"s" * 32).aclose()
    assert plugin.opened == [
        "db://user:pass-of-the-store@host/app",
        ("db://host", 3.0, b"s" * 32),
    ]
    assert "pass-of-the-store" not in SECRETS.text("db://user:pass-of-the-store@host/app")


def test_a_built_in_scheme_is_not_replaced(plugin: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs a host"):
        open_ledger("redis://")
    assert plugin.opened == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("wrong:x", r"'ledger\.wrong' .* opens a str, not a Ledger"),
        ("missing:x", r"'ledger\.missing' .* cannot be loaded"),
        ("unknown:x", "'unknown' is not known"),
        ("db", "a file is written"),
    ],
)
def test_an_opener_that_does_not_work_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_ledger(url)


def test_settings_take_addresses_of_packages() -> None:
    settings = read_settings({"AGENT_RUNTIME_LEDGER": "db://host/app"})
    assert settings.ledger == "db://host/app"
    with pytest.raises(ConfigurationError, match="'unknown' is not known"):
        read_settings({"AGENT_RUNTIME_LEDGER": "unknown:x"})
