"""One grammar for the addresses of all stores.

What is not understood is refused, and opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import SessionManager, open_broker, open_keys
from agent_runtime.batch import open_journal
from agent_runtime.budgets import open_ledger
from agent_runtime.errors import ConfigurationError
from agent_runtime.event_bus.brokers import open_event_log
from agent_runtime.event_bus.dead_letters import open_dead_letters
from agent_runtime.limits import open_limits
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.sessions import RedisCheckpointer
from agent_runtime.sessions.opening import open_checkpointer
from agent_runtime.storage import RedisConnection, StoreUrl
from agent_runtime.storage.store_url import FORMS

PEPPER = b"the pepper of these tests, 32 bytes or more"
OPENERS: dict[str, Callable[[str], Any]] = {
    "ledger": open_ledger,
    "sessions": SessionManager.from_url,
    "checkpointer": open_checkpointer,
    "keys": lambda url: open_keys(url, PEPPER),
    "journal": open_journal,
    "broker": open_broker,
    "event log": open_event_log,
    "dead letters": open_dead_letters,
    "limits": open_limits,
}
REFUSED = [
    "", " ", "memory", "memory:x", " memory:", "memory:\n", "MEMORY:", "state.db",
    "/var/lib/state.db", "./state.db",
    "sqlite", "sqlite:", "sqlite3:state.db", "sqlite://state.db", "sqlite:///state.db",
    "sqlite:file:state.db?mode=memory", "sqlite:state.db?durable=no", "sqlite:a\x00b", "redis:/h",
    "redis:h:6379",
    "redis://", "redis:///0", "redis://:6379/0", "redis://user@", "redis://user:pass@:6379",
    "redis://h:0", "redis://h:x",
    "redis://h:99999", "redis://h/zero", "redis://h/0/1", "redis://h/0?durable=maybe", "redis://h/0?durabel=no",
    "redis://h/0?prefix=", "redis://h/0?prefix=a b", "redis://h/0?prefix={a}", "redis://h/0?prefix=a&prefix=b",
    "redis://h/0?timeout_s=0", "redis://h/0?timeout_s=nan", "redis://h/0?timeout_s=inf", "redis://h/0?timeout_s=x",
    "redis://h/0?db=1", "redis://h?db=x", "redis://h/0#part", "redis://h,i/0", "redis://h/0?socket_timeout=1",
    "rediss://", "unix:/x.sock", "unix://x.sock", "unix:///", "valkey://h", "postgres://h/x",
    "http://h", "://h",
    "redis://[::1/0",
]  # fmt: skip


@pytest.mark.parametrize("store", OPENERS)
@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_is_none_is_refused_by_every_opener(
    store: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="Known: "):
        OPENERS[store](url)
    assert list(tmp_path.iterdir()) == []  # no private file in the place of the shared store


@pytest.mark.parametrize("url", ["redis:/h", "redis://", "memory:", "redis://h/0?durable=maybe"])
async def test_connections_of_their_own_read_the_same_grammar(url: str) -> None:
    with pytest.raises(ConfigurationError):
        RedisConnection(url)
    with pytest.raises(ConfigurationError):
        async with RedisCheckpointer.from_conn_string(url):
            pass


async def test_options_hold_on_every_way_to_a_redis_store(redis_url: str) -> None:
    async with RedisCheckpointer.from_conn_string(
        f"{redis_url}/0?durable=no&prefix=mine&timeout_s=2"
    ) as saver:
        records: Any = saver.backend
        assert (records.prefix, records._durable, records._timeout_s) == ("mine", False, 2.0)
        assert (
            await saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
            is None
        )
    with pytest.raises(ConfigurationError, match="prefix"):
        RedisConnection("redis://h/0?prefix=a", prefix="b")


@pytest.mark.parametrize(
    ("url", "kind", "target"),
    [
        ("memory:", "memory", ""),
        ("sqlite:state.db", "sqlite", "state.db"),
        ("sqlite::memory:", "sqlite", ":memory:"),
        ("sqlite:/var/lib/x y.db", "sqlite", "/var/lib/x y.db"),
        ("redis://h", "redis", "redis://h"),
        ("redis://h:6380/3?prefix=p&durable=no", "redis", "redis://h:6380/3"),
        ("redis://[::1]:6379/0", "redis", "redis://[::1]:6379/0"),
        (
            "rediss://u:p%40ss@h/0?ssl_cert_reqs=none",
            "redis",
            "rediss://u:p%40ss@h/0?ssl_cert_reqs=none",
        ),
        ("unix:///run/redis.sock?db=1", "redis", "unix:///run/redis.sock?db=1"),
        ("nats://a:4222,b:4222?name=audit", "nats", "nats://a:4222,b:4222"),
        (
            "kafka://a:9092?partitions=8&idempotent=no",
            "kafka",
            "kafka://a:9092?partitions=8&idempotent=no",
        ),
    ],
)
def test_what_an_address_means(url: str, kind: str, target: str) -> None:
    parsed = StoreUrl.parse(url, "the store", tuple(FORMS), has_logs=True)
    assert (parsed.kind, parsed.target) == (kind, target)


def test_an_error_says_what_to_write_and_shows_no_password() -> None:
    with pytest.raises(ConfigurationError, match="a file is written sqlite:ledger"):
        open_ledger("ledger.db")
    with pytest.raises(ConfigurationError, match="did you mean 'sqlite'"):
        open_ledger("sqlite3:ledger.db")
    with pytest.raises(ConfigurationError, match="did you mean 'durable'") as refused:
        open_ledger("redis://user:dummy-pass-5f2d9a@h/0?durabel=no")
    assert "dummy-pass-5f2d9a" not in str(refused.value)
    long = "QQQabcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ"
    for url in (
        f"rediss://default:{long}@h/x",
        "redis://user:dummy\u2100pass-5f2d9a@h:6379",
        f"redis://u:{long}@[::1]x",
    ):
        with pytest.raises(ConfigurationError) as refused:
            open_ledger(url)
        assert long[:12] not in str(refused.value)
        assert "pass-5f2d9a" not in str(refused.value)
    parsed = StoreUrl.parse("redis://user:dummy-pass-7c31bb@h/0", "the store")
    assert "dummy-pass-7c31bb" not in repr(parsed)
    assert "dummy-pass-7c31bb" not in SECRETS.text("it was dummy-pass-7c31bb")


@given(
    st.text(max_size=40),
    st.sampled_from(["", "redis://", "sqlite:", "unix://", "redis://h/0?", "nats://"]),
)
def test_any_text_is_an_address_or_a_configuration_error(text: str, head: str) -> None:
    try:
        parsed = StoreUrl.parse(head + text, "the store", tuple(FORMS), has_logs=True)
    except ConfigurationError:
        return
    assert parsed.kind in FORMS
