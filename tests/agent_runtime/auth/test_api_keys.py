"""API keys: their form, their life, and everything that is not one."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import statistics
import time
import uuid
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.operations import operation_name

from agent_runtime import ConfigurationError, KeyNotFound, StoreUnavailable, Unauthenticated
from agent_runtime.auth import ApiKey, ApiKeys, open_keys
from agent_runtime.auth.key_format import (
    CHECKSUM_LENGTH,
    SECRET_LENGTH,
    _base62_encode,
    key_id_of,
    new_key,
)
from agent_runtime.auth.key_stores import MemoryKeyStore
from agent_runtime.secrets.redaction import SECRETS

PEPPER = b"a-dummy-pepper-of-32-bytes-......"


def stored_key(keys: ApiKeys, key_id: str) -> ApiKey:
    record = keys.store.get_key(key_id).run()
    assert record is not None
    return record


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def keys(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApiKeys]:
    """Keys on each store."""
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path / 'keys.db'}"}.get(request.param)
    if url is None:
        url = f"{request.getfixturevalue('redis_url')}?prefix={uuid.uuid4().hex}"
    made = open_keys(url, PEPPER)
    made._clock = Clock()
    made._monotonic = Clock()
    yield made
    await made.aclose()


async def who(keys: ApiKeys, key: Any) -> str:
    return (await keys.authenticate(key)).id


async def refused(keys: ApiKeys, key: Any) -> None:
    with pytest.raises(Unauthenticated) as failed:
        await keys.authenticate(key)
    assert str(failed.value) == "a valid credential is needed"
    assert failed.value.__cause__ is None


async def test_a_key_gives_its_principal(keys: ApiKeys) -> None:
    key, record = keys.create("ada", tenant="acme", scopes=["run:analyst"], note="laptop")
    principal = await keys.authenticate(key)
    assert (principal.id, principal.tenant, principal.scopes) == (
        "ada",
        "acme",
        frozenset({"run:analyst"}),
    )
    assert principal.key == record.id
    assert [k.id for k in keys.list("acme")] == [record.id]
    assert keys.list("other") == []
    assert "digest" not in record.to_dict()


async def test_what_is_stored_is_no_key(keys: ApiKeys) -> None:
    key, record = keys.create("ada")
    stored = repr(keys.store.list_keys().run())
    assert key not in stored
    assert key[17:60] not in stored
    assert len(record.digest) == 64
    other = ApiKeys(keys.store, b"another pepper, of 32 bytes or more", clock=keys._clock)
    await refused(other, key)  # the store alone is not enough


async def test_a_revoked_key_is_refused_by_every_process_within_five_seconds(keys: ApiKeys) -> None:
    key, record = keys.create("ada")
    elsewhere = ApiKeys(keys.store, PEPPER, clock=keys._clock, monotonic=keys._monotonic)
    assert await who(elsewhere, key) == "ada"
    keys.revoke(record.id)
    await refused(keys, key)
    keys._clock.now -= 3600.0  # type: ignore[attr-defined]  # the clock was set back
    keys._monotonic.now += 5.0  # type: ignore[attr-defined]
    await refused(elsewhere, key)
    assert keys.list()[0].status(keys._clock()) == "revoked"


async def test_a_rotated_key_works_until_its_overlap_ends(keys: ApiKeys) -> None:
    old, record = keys.create("ada", tenant="acme", scopes=["run:*"])
    new, fresh = keys.rotate(record.id, overlap_s=60)
    assert (await keys.authenticate(new)).scopes == frozenset({"run:*"})
    assert (await keys.authenticate(old)).tenant == "acme"
    keys._clock.now += 60  # type: ignore[attr-defined]
    await refused(keys, old)
    assert await who(keys, new) == "ada"
    with pytest.raises(ConfigurationError, match="replaced"):
        keys.rotate(record.id)
    assert stored_key(keys, record.id).replaced_by == fresh.id


async def test_a_rotation_does_not_undo_a_revocation(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, record = keys.create("ada")
    create = keys.create

    def revoked_meanwhile(*args: Any, **settings: Any) -> Any:
        keys.revoke(record.id)
        return create(*args, **settings)

    monkeypatch.setattr(keys, "create", revoked_meanwhile)
    with pytest.raises(ConfigurationError, match="meanwhile"):
        keys.rotate(record.id)
    await refused(keys, key)
    assert {k.status(keys._clock()) for k in keys.list()} == {"revoked"}


async def test_a_revoked_key_is_refused_by_a_clock_that_is_behind(keys: ApiKeys) -> None:
    key, record = keys.create("ada")
    behind = ApiKeys(keys.store, PEPPER, clock=lambda: keys._clock() - 600)
    keys.revoke(record.id)
    await refused(behind, key)


async def test_a_key_works_from_its_beginning_to_its_end(keys: ApiKeys) -> None:
    now = keys._clock()
    key, _ = keys.create("ada", not_before=now + 10, expires_at=now + 20)
    await refused(keys, key)
    keys._clock.now += 10  # type: ignore[attr-defined]
    assert await who(keys, key) == "ada"
    keys._clock.now += 10  # type: ignore[attr-defined]
    await refused(keys, key)


async def test_another_secret_behind_a_key_s_id_is_refused(keys: ApiKeys) -> None:
    _, record = keys.create("ada")
    body = f"art_{record.id}_{'7' * SECRET_LENGTH}"
    forged = body + _base62_encode(zlib.crc32(body.encode()), CHECKSUM_LENGTH)
    assert key_id_of(forged.encode()) == record.id  # its form and its checksum are right
    await refused(keys, forged)


async def test_an_unknown_id_and_a_wrong_secret_are_refused_alike(keys: ApiKeys) -> None:
    key, record = keys.create("ada")
    _, other = new_key()
    await refused(keys, other)
    wrong = new_key()[1]
    forged = f"art_{record.id}_{wrong[17:]}"  # a right id, another's secret and so a wrong checksum
    await refused(keys, forged)
    await refused(keys, key[:-1] + ("a" if key[-1] != "a" else "b"))


BAD_KEYS: list[Any] = [None, "", " ", "é", "key", "art_",
            "' UNION SELECT * FROM api_keys --", "x" * 1_000_000, b"\xff" * 20, 7, [], {},
            "art_" + "0" * 62, "\ud800"]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_KEYS, ids=lambda b: repr(b)[:20])
async def test_what_is_no_key_is_refused_before_the_store_is_asked(
    bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Untouched(MemoryKeyStore):
        async def arun_body(self, body: Any, args: Any) -> Any:
            raise AssertionError(operation_name(body))

    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated):
        await ApiKeys(Untouched(), PEPPER).authenticate(bad)
    assert "UNION" not in caplog.text


@given(st.text(max_size=100) | st.binary(max_size=100))
def test_any_text_is_refused(bad: str | bytes) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(ApiKeys(MemoryKeyStore(), PEPPER).authenticate(bad))


@given(st.integers(0, 65), st.characters(codec="ascii"))
def test_a_changed_character_breaks_the_checksum(place: int, character: str) -> None:
    key_id, key = new_key()
    assert key_id_of(key.encode()) == key_id
    changed = key[:place] + character + key[place + 1 :]
    assert changed == key or key_id_of(changed.encode()) is None


async def test_a_store_that_is_out_refuses(redis_url: str) -> None:
    keys = open_keys("redis://127.0.0.1:1", PEPPER)
    with pytest.raises(StoreUnavailable):
        await keys.authenticate(new_key()[1])


async def test_known_and_unknown_ids_take_the_same_time() -> None:
    keys = ApiKeys(MemoryKeyStore(), PEPPER)
    key, record = keys.create("ada")
    known = key[:17] + new_key()[1][17:]
    import zlib

    known = known[:60] + _base62_encode(zlib.crc32(known[:60].encode()), CHECKSUM_LENGTH)
    assert key_id_of(known.encode()) == record.id
    unknown = new_key()[1]
    times: dict[str, list[float]] = {known: [], unknown: []}
    for _ in range(300):
        for each, found in times.items():
            started = time.perf_counter()
            with pytest.raises(Unauthenticated):
                await keys.authenticate(each)
            found.append(time.perf_counter() - started)
    a, b = (statistics.median(each) for each in times.values())
    assert 0.5 < a / b < 2  # a bound against another path, not a timing


def test_what_cannot_be_made(keys: ApiKeys) -> None:
    for wrong in ({"scopes": ["a b"]}, {"scopes": [""]}, {"tenant": ""}, {"expires_at": 1.0}):
        with pytest.raises(ConfigurationError):
            keys.create("ada", **wrong)
    with pytest.raises(KeyNotFound):
        keys.revoke("nobody")
    with pytest.raises(ConfigurationError, match="32 bytes"):
        ApiKeys(MemoryKeyStore(), b"short")
    with pytest.raises(ConfigurationError):
        open_keys("postgres://somewhere", PEPPER)


def test_a_key_is_found_by_scanners_and_by_the_redactor() -> None:
    _, key = new_key()
    assert key.startswith("art_")
    assert SECRETS.text(f"got {key}!") == "got [redacted]!"


CHANGES: dict[str, Any] = {
    "user": "ceo", "tenant": "other", "scopes": ("*",), "expires_at": None, "not_before": 0.0,
    "revoked_at": None,
    "replaced_by": "x", "note": "trust me", "created_at": 5.0,
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
async def test_who_can_write_to_the_store_changes_no_key(keys: ApiKeys, field: str) -> None:
    """Each field of a record, and a whole record under another id, with the key that the attacker
    has."""
    ends = keys._clock() + 60
    key, record = keys.create(
        "mallory", tenant="b", scopes=["run:searcher"], not_before=5.0, expires_at=ends
    )
    assert await who(keys, key) == "mallory"
    if field == "revoked_at":
        record = keys.revoke(record.id)
    forged = replace(record, **{field: CHANGES[field]})
    keys.store.put_key(forged).run()
    keys._cache.clear()
    await refused(keys, key)
    assert not keys.is_signed(forged)


async def test_a_record_moved_to_another_id_is_refused(keys: ApiKeys) -> None:
    _, ceo = keys.create("ceo", scopes=["*"])
    key, own = keys.create("mallory")
    keys.store.put_key(replace(ceo, id=own.id, digest=own.digest)).run()
    await refused(keys, key)
    keys.store.put_key(replace(ceo, digest=own.digest)).run()
    keys._cache.clear()
    assert not keys.is_signed(stored_key(keys, ceo.id))
    keys.store.put_key(replace(own, mac="\u00e9")).run()
    keys._cache.clear()
    await refused(keys, key)


async def test_a_whole_record_in_another_s_place_is_none(tmp_path: Path) -> None:
    """The index of the store says whose place it is; a signed record of an admin is put there."""
    keys = open_keys(f"sqlite:{tmp_path / 'k.db'}", PEPPER)
    key, own = keys.create("mallory", tenant="b", scopes=["run:x"])
    _, admin = keys.create("admin", scopes=["*"])
    with sqlite3.connect(tmp_path / "k.db") as db:
        db.execute(
            "UPDATE api_keys SET record=(SELECT record FROM api_keys WHERE id=?) WHERE id=?",
            (admin.id, own.id),
        )
    await refused(keys, key)
    for operation in (keys.rotate, keys.revoke):
        with pytest.raises(KeyNotFound):
            operation(own.id)
    await keys.aclose()


async def test_records_without_a_signature_are_signed_once_and_by_hand(keys: ApiKeys) -> None:
    key, record = keys.create("ada")
    keys.store.put_key(replace(record, mac="")).run()
    await refused(keys, key)
    assert [each.id for each in keys.sign()] == [record.id]
    keys._cache.clear()
    assert await who(keys, key) == "ada"
    assert keys.sign() == []
    forged = replace(stored_key(keys, record.id), user="ceo")
    keys.store.put_key(forged).run()
    assert keys.sign() == []  # one that was signed and changed is not signed again
    with pytest.raises(ConfigurationError, match="not written by this release"):
        keys.rotate(record.id)


async def test_a_revocation_asks_about_successors(keys: ApiKeys) -> None:
    _, first = keys.create("ada")
    key, second = keys.rotate(first.id)
    _, third = keys.rotate(second.id)
    with pytest.raises(ConfigurationError, match=f"rotated to '{second.id}'"):
        keys.revoke(first.id)
    keys.revoke(first.id, with_successors=False)
    assert await who(keys, key) == "ada"
    keys.revoke(first.id, with_successors=True)
    assert {each.id for each in keys.list() if each.revoked_at is not None} == {
        first.id,
        second.id,
        third.id,
    }
    await refused(keys, key)
    keys.revoke(first.id)  # none works any more
