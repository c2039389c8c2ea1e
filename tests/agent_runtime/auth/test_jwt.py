"""JSON web tokens: every row of what must not pass."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from tests.support.tokens import NOW, SECRET, b64, claims, jwks, made, raw, token

from agent_runtime import (
    ConfigurationError,
    MissingExtra,
    RuntimeTracing,
    StoreUnavailable,
    Unauthenticated,
)
from agent_runtime.auth.jwt import STALE_AFTER_S
from agent_runtime.auth.key_stores import MemoryKeyStore, RedisKeyStore


async def test_a_good_token_gives_its_principal() -> None:
    principal = await made().authenticate(token())
    assert (principal.id, principal.tenant, principal.key) == ("ada", "acme", "t1")
    assert principal.scopes == frozenset({"run:analyst", "resume:*"})
    assert (
        await made().authenticate(token(tenant=None, scope=["run:x"], iat=None))
    ).tenant == "default"


def twice(name: str, value: Any) -> str:
    """A rightly signed token that says a claim twice."""
    return raw(
        f"{json.dumps(claims())[:-1]}, {json.dumps(name)}: {json.dumps(value)}, "
        f"{json.dumps(name)}: 1}}"
    )


ROWS: list[tuple[str, Callable[[], str]]] = [
    ("K-15 alg none", lambda: token({"alg": "none", "kid": "k1"}).rpartition(".")[0] + "."),
    ("K-15 alg none signed", lambda: token({"alg": "none", "kid": "k1"})),
    ("K-16 unknown crit", lambda: token({"alg": "HS256", "kid": "k1", "crit": ["x"], "x": 1})),
    ("K-17 no exp", lambda: token(exp=None)),
    ("K-18 exp a string", lambda: token(exp=str(int(NOW + 600)))),
    ("K-19 exp 1e400", lambda: raw(json.dumps(claims()).replace(str(NOW + 600), "1e400"))),
    ("exp 10^400", lambda: raw(json.dumps(claims()).replace(str(NOW + 600), "1" + "0" * 400))),
    ("exp NaN", lambda: token(exp=float("nan"))),
    ("exp true", lambda: token(exp=True)),
    ("K-20 exp in the year 9999", lambda: token(exp=253_402_300_000, iat=None)),
    ("lives too long", lambda: token(exp=NOW + 90_000)),
    ("K-21 wrong aud", lambda: token(aud="other")),
    ("K-22 wrong iss", lambda: token(iss="them")),
    ("no iss", lambda: token(iss=None)),
    ("K-23 several auds", lambda: token(aud=["runtime", "other"])),
    ("K-24 sub an integer", lambda: token(sub=7)),
    ("K-25 sub of 4 KiB", lambda: token(sub="x" * 4096)),
    ("sub empty", lambda: token(sub="")),
    ("K-26 unknown kid", lambda: token({"alg": "HS256", "kid": "k2"})),
    ("no kid", lambda: token({"alg": "HS256"})),
    ("kid a list", lambda: token({"alg": "HS256", "kid": ["k1"]})),
    ("K-27 five parts", lambda: "a.b.c.d.e"),
    ("K-28 two parts", lambda: ".".join(token().split(".")[:2])),
    ("K-29 bad base64", lambda: token().replace(".", ".!", 1)),
    ("K-30 padding", lambda: token().replace(".", "=.", 1)),
    ("K-31 1 MB", lambda: token(sub="x" * 1_000_000)),
    ("K-33 61 s ago", lambda: token(exp=NOW - 61)),
    ("from the future", lambda: token(iat=NOW + 61)),
    ("not before", lambda: token(nbf=NOW + 61)),
    ("other algorithm", lambda: token({"alg": "HS512", "kid": "k1"})),
    ("tenant a list", lambda: token(tenant=["acme"])),
    ("tenant empty", lambda: token(tenant="")),
    ("scope a number", lambda: token(scope=7)),
    ("scope of numbers", lambda: token(scope=[7])),
    ("payload a list", lambda: raw("[]")),
    ("payload no JSON", lambda: raw("{")),
    ("payload deep", lambda: raw("[" * 2000)),
    ("sub blank", lambda: token(sub=" \u2003 ")),
    ("tenant blank", lambda: token(tenant="  ")),
    ("empty", lambda: ""),
    *[(f"{name} twice", lambda name=name, value=value: twice(name, value)) for name, value in (
        ("sub", "eve"), ("tenant", "evil"), ("exp", NOW + 600), ("scope", "*"), ("aud", "runtime"),
        ("note", "a"),
    )],
    ("inner name twice", lambda: raw(json.dumps(claims())[:-1] + ', "act": {"sub": "a", "sub": '
                                                                 '"b"}}')),
    *[((f"{name} twice in the "
       "header"), lambda head=head: raw(json.dumps(claims()), head)) for name, head in (
        ("alg", '{"alg": "none", "kid": "k1", "alg": "HS256"}'), ("kid", ('{"kid": "k2", "alg": '
                                                                         '"HS256", "kid": "k1"}')),
        ("crit", '{"crit": ["x"], "alg": "HS256", "kid": "k1", "crit": []}'),
    )],
    ("changed payload", lambda: ".".join([token().split(".")[0], b64(b'{"sub":"eve"}'),
    token().split(".")[2]])),
]  # fmt: skip


@pytest.mark.parametrize(("row", "bad"), ROWS, ids=[r[0] for r in ROWS])
async def test_a_bad_token_is_refused(row: str, bad: Callable[[], str]) -> None:
    with pytest.raises(Unauthenticated) as failed:
        await made().authenticate(bad())
    assert str(failed.value) == "a valid credential is needed"
    assert failed.value.__cause__ is None


async def test_clocks_may_be_a_minute_apart() -> None:
    assert (await made().authenticate(token(exp=NOW - 59))).id == "ada"
    assert (await made().authenticate(token(iat=NOW + 59, nbf=NOW + 59))).id == "ada"


async def test_a_public_key_is_no_hmac_secret() -> None:
    private = rsa.generate_private_key(65537, 2048)
    entry = json.loads(RSAAlgorithm.to_jwk(private.public_key())) | {"kid": "k1", "alg": "RS256"}
    good = jwt.encode(claims(), private, "RS256", headers={"kid": "k1"})
    one = made(keys={"keys": [entry]})
    assert (await one.authenticate(good)).id == "ada"
    with pytest.raises(Unauthenticated):
        await one.authenticate(token())  # HS256 with whatever is public as the secret
    curve = ec.generate_private_key(ec.SECP256R1())
    entry = json.loads(ECAlgorithm.to_jwk(curve.public_key())) | {"kid": "k1", "alg": "ES256"}
    good = jwt.encode(claims(), curve, "ES256", headers={"kid": "k1"})
    assert (await made(keys={"keys": [entry]}).authenticate(good)).id == "ada"


async def test_a_revoked_token_is_refused_within_five_seconds(redis_url: str) -> None:
    now = [time.time()]
    redis = RedisKeyStore(redis_url, prefix="revoked-test")
    for store in (MemoryKeyStore(), redis):
        one = made(revocations=store, clock=lambda: now[0], monotonic=lambda: now[0])
        good = token(iat=now[0], exp=now[0] + 600, jti=f"j-{type(store).__name__}-{now[0]}")
        assert (await one.authenticate(good)).id == "ada"
        await store.revoke_token(f"j-{type(store).__name__}-{now[0]}", now[0] + 600)
        now[0] += 5
        with pytest.raises(Unauthenticated):
            await one.authenticate(good)
        await store.revoke_token("another", now[0] + 600)
        now[0] += 600 - 5 + 30  # over, but within the leeway: still revoked
        one._revocation_recheck_at.clear()
        with pytest.raises(Unauthenticated):
            await one.authenticate(good)
        now[0] -= 600
        with pytest.raises(Unauthenticated):
            await one.authenticate(token(jti=None, iat=now[0], exp=now[0] + 600))
    await redis.aclose()


async def test_a_store_of_revocations_that_is_out_refuses() -> None:
    one = made(revocations=RedisKeyStore("redis://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        await one.authenticate(token())


OTHER = b"another dummy key, of 32 bytes or more"


async def test_keys_in_a_file_are_read_again_when_it_changes(tmp_path: Path) -> None:
    """Also when the new file has the time and the size of the old one, and when the clock was set
    back."""
    wall = [NOW]
    now = [0.0]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks()))
    os.utime(path, (1, 1))
    one = made(keys=path, clock=lambda: wall[0], monotonic=lambda: now[0])
    assert (await one.authenticate(token())).id == "ada"
    path.write_text(json.dumps(jwks(OTHER[: len(SECRET)].ljust(len(SECRET), b"."))))
    os.utime(path, (1, 1))
    wall[0] -= 50.0
    now[0] += 5
    with pytest.raises(Unauthenticated):
        await one.authenticate(token())
    with pytest.raises(ConfigurationError):
        made(keys=tmp_path / "missing.json")


BROKEN_ENTRY = {
    "keys": [*jwks(OTHER, kid="k2")["keys"], {"kty": "oct", "kid": "k3", "alg": "HS256", "k": "x"}]
}


@pytest.mark.parametrize(
    "content", ["{", json.dumps(BROKEN_ENTRY), "[]", None], ids=["cut", "entry", "list", "gone"]
)
async def test_a_key_file_that_cannot_be_read_is_told_at_once_and_refuses_after_a_while(
    content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks()))
    one = made(keys=path, monotonic=lambda: now[0])
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    now[0] += 5
    with caplog.at_level("WARNING", "agent_runtime.auth"):
        for _ in range(3):  # said once, while it stays so
            assert (await one.authenticate(token())).id == "ada"
            now[0] += 5
    assert [record.message for record in caplog.records if "cannot be read" in record.message] == [
        caplog.records[0].message
    ]
    now[0] += STALE_AFTER_S
    with pytest.raises(Unauthenticated):
        await one.authenticate(token())
    path.write_text(json.dumps(jwks()))
    now[0] += 5
    assert (await one.authenticate(token())).id == "ada"


async def test_a_key_file_without_keys_accepts_no_token(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks()))
    one = made(keys=path, monotonic=lambda: now[0])
    path.write_text('{"keys": []}')
    now[0] += 5
    with pytest.raises(Unauthenticated):
        await one.authenticate(token())


@pytest.mark.parametrize(
    "keys",
    [{}, {"keys": []}, {"keys": ["k"]}, jwks(kid=None), jwks(alg=None), jwks(alg="none"),
    jwks(kty="x"),
     jwks(k="secret-that-is-not-echoed"), jwks(b"x" * 31), {"keys": jwks()["keys"] * 2}],
)  # fmt: skip
def test_bad_keys_are_refused_and_not_echoed(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as failed:
        made(keys=keys)
    assert "secret-that" not in str(failed.value)


def test_a_small_rsa_key_is_refused() -> None:
    small = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - that is the point
    entry = json.loads(RSAAlgorithm.to_jwk(small)) | {"kid": "k", "alg": "RS256"}
    with pytest.raises(ConfigurationError, match="2048"):
        made(keys={"keys": [entry]})


def test_without_the_extras_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(MissingExtra, match=r"langchain-agent-runtime\[jwt\]"):
        made()
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match=r"langchain-agent-runtime\[otel\]"):
        RuntimeTracing()


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: f"{b64(b)}.{b64(b)}.{b64(b)}"))
def test_any_text_is_refused(bad: str) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(made().authenticate(bad))


def test_a_file_of_keys_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks())[:-1] + ', "keys": []}')
    with pytest.raises(ConfigurationError, match="twice"):
        made(keys=path)


@pytest.mark.parametrize(
    "weak", [b" " * 40, b"k" * 40, b"abcd" * 10, b"abcdefghijklmnopqrstuvwxyz0123456789"]
)
def test_a_key_that_could_be_guessed_is_refused(weak: bytes) -> None:
    with pytest.raises(ConfigurationError, match="could be guessed") as refused:
        made(keys=jwks(weak))
    assert weak.decode() not in str(refused.value)
