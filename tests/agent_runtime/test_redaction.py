"""Secrets are found in every form in which they travel, quickly."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime import redaction
from agent_runtime.redaction import MASK, MAX_TEXT, Redactor

SECRET = 'dummy/sécret+with "odd" characters'


@pytest.fixture
def redactor() -> Redactor:
    """One that knows SECRET."""
    made = Redactor()
    made.add(SECRET)
    return made


def forms(secret: str) -> list[str]:
    raw = secret.encode()
    return [
        secret,
        quote(secret, safe=""),
        repr(secret),
        json.dumps(secret),
        raw.hex(),
        *(base64.b64encode(b"x" * n + raw + b"y").decode() for n in range(3)),
        base64.urlsafe_b64encode(raw).decode(),
    ]


@pytest.mark.parametrize("form", forms(SECRET))
def test_every_form_of_a_registered_secret_is_masked(redactor: Redactor, form: str) -> None:
    assert MASK in redactor.text(f"before {form} after")
    assert form[4:-4] not in redactor.text(f"before {form} after")


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefghijklmnop1234",
        "Authorization: Bearer abcdefgh12345678",
        "redis://user:dummypassword@host:6379/0",
        "postgresql://:dummypassword@host/db",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "api_key=dummyvalue123",
        '"password": "dummyvalue123"',
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEdummy\n",
    ],
)
def test_the_usual_forms_of_keys_are_masked(text: str) -> None:
    masked = Redactor().text(text)
    assert MASK in masked
    for part in ("dummy", "abcdefgh", "ABCDEFGH", "eyJzdWI", "MIIE"):
        assert part not in masked


@pytest.mark.parametrize(
    "text",
    [
        "input_tokens=451 output_tokens=51",
        "max_tokens: 8192",
        "the key: ingredients",
        "https://example.com/a@b",
        "a" * 99,
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_short_values_are_no_secrets() -> None:
    redactor = Redactor()
    for value in ("", "  ", "abc", None):
        redactor.add(value)
    assert redactor.text("abc def") == "abc def"


def test_long_text_is_cut_and_no_half_secret_stays(redactor: Redactor) -> None:
    text = "x" * (MAX_TEXT - 5) + SECRET + "y" * 100_000
    masked = redactor.text(text)
    assert len(masked) <= MAX_TEXT + 10
    assert SECRET[:5] not in masked


@pytest.mark.parametrize("shift", range(40))
def test_no_part_of_a_secret_stands_at_the_cut(shift: int) -> None:
    redactor = Redactor()
    redactor.add("S3cr3tValue-0123456789abcdefghijklmno")
    masked = redactor.text("x" * shift + "S3cr3tValue-0123456789abcdefghijklmno" * 4000)
    assert "S3cr3t" not in masked
    assert "abcdef" not in masked


def test_binary_secrets_are_masked_as_they_are_shown() -> None:
    raw, redactor = bytes(range(200, 240)), Redactor()
    redactor.add(raw)
    for text in (raw.hex(), raw.hex().upper(), repr(raw), base64.b64encode(raw).decode()):
        assert MASK in redactor.text(text)


def test_nested_values_are_masked(redactor: Redactor) -> None:
    class Odd:
        def __repr__(self) -> str:
            return f"Odd({SECRET})"

    masked = repr(redactor.value({"a": [SECRET, {SECRET: 1}], "b": Odd(), "c": (None, 1.5, True)}))
    assert SECRET not in masked
    assert "1.5, True" in masked


@given(
    st.text(max_size=200), st.text(min_size=6, max_size=40).filter(lambda s: len(s.strip()) >= 6), st.text(max_size=200)
)
def test_a_secret_never_comes_through(before: str, secret: str, after: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    assert secret.strip() not in redactor.text(before + secret + after).replace(MASK, "\0")


@pytest.mark.parametrize(
    "unit", ["a", "sk-", "://a:", "key=", "eyJ", ".", "Bearer ", "-----BEGIN ", "token ", "\\", "= "]
)
def test_no_text_takes_long(redactor: Redactor, unit: str) -> None:
    text = (unit * MAX_TEXT)[:MAX_TEXT]
    started = time.process_time()
    redactor.text(text)
    assert time.process_time() - started < 0.5  # a bound against blow-ups: 64 KiB take a few ms


LONG_S, KELVIN, DOTTED = "\u017f", "\u212a", "\u0130"
FRAGMENTS = st.sampled_from(
    [
        *("sk-", "token", "TOKEN", "Api_Key", "apikey", "secret-key", "=", ": ", '": "', "x" * 20, f"{LONG_S}ecret"),
        *("https://", "a:b@c", "eyJ" + "a" * 9 + ".", "Bearer ", "AKIA" + "A" * 16, "hf_", "art_", "passwd", "\n", " "),
        *("-----BEGIN PRIVATE KEY-----", f"to{KELVIN}en", DOTTED, "longenough", f"api_{KELVIN}ey"),
    ]
)


@settings(max_examples=400)
@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=8))
def test_nothing_that_would_be_masked_is_passed_over(parts: list[str]) -> None:
    text = "".join(parts)
    redactor = Redactor()
    redactor.add("Kx" * 5)
    expressions = (redaction._FORMS, redaction._IN_ADDRESS, redaction._NAMED)
    if any(each.search(text) for each in expressions) or "Kx" * 5 in text:
        assert redactor.suspects(text)
    assert redactor.whole([{"a": text}]) == [{"a": redactor._masked(text)}]
