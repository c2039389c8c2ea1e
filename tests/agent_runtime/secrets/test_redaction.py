"""Secrets are found in every form in which they travel, quickly."""

from __future__ import annotations

import base64
import html
import json
import shlex
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from agent_runtime import AgentExecutor, AgentFailed
from agent_runtime.secrets import forms as secret_forms
from agent_runtime.secrets import redaction
from agent_runtime.secrets.redaction import MASK, MAX_TEXT, SECRETS, Redactor

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
    raw = bytes(range(200, 240))
    redactor = Redactor()
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
    st.text(max_size=200),
    st.text(min_size=6, max_size=40).filter(lambda s: len(s.strip()) >= 6),
    st.text(max_size=200),
)
def test_a_secret_never_comes_through(before: str, secret: str, after: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    assert secret.strip() not in redactor.text(before + secret + after).replace(MASK, "\0")


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "sk-",
        "://a:",
        "key=",
        "eyJ",
        ".",
        "Bearer ",
        "-----BEGIN ",
        "token ",
        "\\",
        "= ",
        "%25",
        "%",
        "&amp;",
        "&#0",
        "\\u00",
        "dummy/s",
        "64756d6d",
    ],
)
def test_no_text_takes_long(redactor: Redactor, unit: str) -> None:
    text = (unit * MAX_TEXT)[:MAX_TEXT]
    started = time.process_time()
    redactor.text(text)
    assert time.process_time() - started < 0.5  # a bound against blow-ups: 64 KiB take a few ms


LONG_S = "\u017f"
KELVIN = "\u212a"
DOTTED = "\u0130"
FRAGMENTS = st.sampled_from(
    [
        *(
            "sk-",
            "token",
            "TOKEN",
            "Api_Key",
            "apikey",
            "secret-key",
            "=",
            ": ",
            '": "',
            "x" * 20,
            f"{LONG_S}ecret",
        ),
        *(
            "https://",
            "a:b@c",
            "eyJ" + "a" * 9 + ".",
            "Bearer ",
            "AKIA" + "A" * 16,
            "hf_",
            "art_",
            "passwd",
            "\n",
            " ",
        ),
        *("-----BEGIN PRIVATE KEY-----", f"to{KELVIN}en", DOTTED, "longenough", f"api_{KELVIN}ey"),
    ]
)


@settings(max_examples=400)
@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=8))
def test_nothing_that_would_be_masked_is_passed_over(parts: list[str]) -> None:
    text = "".join(parts)
    redactor = Redactor()
    redactor.add("Kx" * 5)
    expressions = (redaction._KEY_PATTERNS, redaction._IN_ADDRESS, redaction._NAMED_SECRET)
    if any(each.search(text) for each in expressions) or "Kx" * 5 in text:
        assert redactor.may_contain_secret(text)
    assert redactor.redact_json([{"a": text}]) == [{"a": redactor._mask(text)}]


# -- forms of a registered secret

TOKEN = "S3cr3t/Value+With&Quote'9xyz"


def lines(text: str, width: int) -> str:
    """Break a text into lines."""
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def forms_in_the_wild(secret: str) -> dict[str, str]:
    """Return what shells, browsers, mail programs and serializers make of a secret."""
    raw = secret.encode()
    encoded = base64.b64encode(raw).decode()
    return {
        "as it is": secret,
        "in an address, slashes left": quote(secret),
        "in small hexadecimal": quote(secret, safe="").lower(),
        "quoted twice": quote(quote(secret, safe=""), safe=""),
        "quoted thrice": quote(quote(quote(secret, safe=""), safe=""), safe=""),
        "mail lines": base64.encodebytes(raw * 1).decode(),
        "short base64 lines": lines(encoded, 8),
        "base64 for addresses": base64.urlsafe_b64encode(raw).decode(),
        "base64 of UTF-16": base64.b64encode(secret.encode("utf-16-le")).decode(),
        "base64 of UTF-16 with its mark": base64.b64encode(secret.encode("utf-16")).decode(),
        "base64 twice": base64.b64encode(base64.b64encode(raw)).decode(),
        "base64 twice behind something": base64.b64encode(
            b"x: " + base64.b64encode(b"ab" + raw)
        ).decode(),
        "HTML": html.escape(secret),
        "HTML numbers": "".join(f"&#{ord(c)};" for c in secret),
        "HTML hexadecimal": "".join(f"&#x{ord(c):x};" for c in secret),
        "a shell's quotes": shlex.quote(secret),
        "JSON": json.dumps(secret),
        "JSON in JSON": json.dumps(json.dumps(secret)),
        "JSON escapes": "".join(f"\\u{ord(c):04x}" for c in secret),
        "byte escapes": "".join(f"\\x{ord(c):02x}" for c in secret),
        "repr of bytes": repr(raw),
        "hexadecimal": raw.hex(),
        "hexadecimal with colons": raw.hex(":"),
        "hexadecimal with blanks, large": raw.hex(" ").upper(),
        "large letters": secret.upper(),
        "small letters": secret.lower(),
        "over two lines": f"{secret[:12]}\n    {secret[12:]}",
        "a zero-width blank": f"{secret[:12]}\u200b{secret[12:]}",
        "a soft hyphen": f"{secret[:12]}\u00ad{secret[12:]}",
        "bytes of a database": "\\x" + raw.hex(),
        "behind an escape": "\\x" + secret,
        "behind a percentage": "100%" + secret,
        "in colours": f"\x1b[31m{secret[:8]}\x1b[0m{secret[8:]}",
        "with a tag": f"{secret[:9]}<wbr>{secret[9:]}",
        "in a table": f"{secret[:12]} | {secret[12:]}",
    }


@pytest.mark.parametrize("form", forms_in_the_wild(TOKEN))
def test_a_registered_secret_is_masked_in_every_form(form: str) -> None:
    redactor = Redactor()
    redactor.add(TOKEN)
    shown = forms_in_the_wild(TOKEN)[form]
    masked = redactor.text(f"the value is {shown}, and the rest stays")
    assert masked.startswith("the value is ")
    assert masked.endswith(", and the rest stays")
    left = secret_forms.normalize(
        masked.removeprefix("the value is ").removesuffix(", and the rest stays")
    )
    # Of base64 some edge characters depend on what stands beside it, and may stay.
    assert len(left.replace(b"redacted", b"")) <= 12, masked


@pytest.mark.parametrize(
    "secret", ["\u5bc6\u7801\u5bc6\u7801\u5bc6\u7801", "!!$$%%^^&&**", "a!b@c#d$"]
)
def test_a_secret_of_other_signs_is_masked_as_it_is_written(secret: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    for shown in (secret, json.dumps(secret)[1:-1], quote(secret, safe="")):
        assert redactor.text(f"x {shown} y") == f"x {MASK} y"


@given(
    st.text(
        st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=12, max_size=60
    ),
    st.sampled_from(sorted(forms_in_the_wild(TOKEN))),
    st.text(st.sampled_from(" \n.,=:%&x"), max_size=20),
)
def test_no_letters_of_a_secret_come_through(secret: str, form: str, around: str) -> None:
    if len(secret_forms.normalize(secret)) < 15 or "base64" in form or "mail" in form:
        return
    redactor = Redactor()
    redactor.add(secret)
    masked = redactor.text(f"{around}{forms_in_the_wild(secret)[form]}{around}")
    assert secret_forms.normalize(secret) not in secret_forms.normalize(masked.replace(MASK, "|"))


@given(
    st.lists(st.text(st.sampled_from("abcde12"), min_size=7, max_size=30), min_size=1, max_size=5),
    st.text("abcde12"),
)
def test_the_quick_look_and_the_thorough_one_agree(secrets: list[str], text: str) -> None:
    forms = secret_forms.SecretForms()
    for each in secrets:
        forms.add(each)
    has_secret = any(
        secret_forms.normalize(each) in secret_forms.normalize(text) for each in secrets
    )
    found = forms.find(text)
    assert bool(found) >= has_secret
    assert forms.may_be_in(text) >= bool(found)


def test_an_error_that_a_caller_sees_has_no_secret() -> None:
    SECRETS.add(TOKEN)
    database = f"postgres://svc:{TOKEN}@db/x"

    def fails(given: Any) -> str:
        raise RuntimeError(f"no connection to {database}; env {TOKEN.upper()}")

    with pytest.raises(AgentFailed) as failed:
        AgentExecutor(RunnableLambda(fails)).execute_sync("x")
    shown = f"{failed.value} {failed.value.args}"
    assert secret_forms.normalize(TOKEN) not in secret_forms.normalize(shown)
    assert failed.value.code == "agent_failed"
    assert TOKEN in str(failed.value.__cause__)


@given(
    st.lists(
        st.sampled_from(
            [
                "%41",
                "%2541",
                "&amp;",
                "&#65;",
                "\\u0041",
                "\\n",
                "\\",
                "%",
                "&",
                "aB1",
                "/",
                "\u00e9",
            ]
        )
    ).map("".join)
)
def test_places_are_those_of_the_reduced_text(text: str) -> None:
    content, starts, ends = secret_forms._normalize_with_positions(text, secret_forms._PIECE)
    assert content == secret_forms.normalize(text)
    assert len(starts) == len(content)
    assert all(
        ends.get(n, starts[n] + 1) <= (starts[n + 1] if n + 1 < len(starts) else len(text))
        for n in range(len(starts))
    )


def test_a_text_that_repeats_a_part_of_a_secret_takes_no_longer() -> None:
    """A hostile text has every window of a short secret, two million times, and not the secret."""
    redactor = Redactor()
    redactor.add("wordpass12")
    redactor.add("a long secret of words and more")
    text = "word pass " * 60_000 + "longsecr etofword" * 15_000
    started = time.process_time()
    assert not redactor._forms.may_be_in(text)
    assert redactor._mask(text + " wordpass12 ").endswith(f" {MASK} ")
    assert (
        time.process_time() - started < 2.5
    )  # 0.9 MB; walking through every repetition took minutes


def test_names_of_variables_that_hold_secrets() -> None:
    secret = [
        "OPENAI_API_KEY",
        "GITHUB_TOKEN",
        "CRM_PW",
        "DB_PASS",
        "SENTRY_DSN",
        "KEY_PEPPER",
        "PASSWORD",
    ]
    other = ["PWD", "OLDPWD", "HOME", "REGION", "SSH_AUTH_SOCK", "KEYBOARD", "PASSENGERS"]
    assert [name for name in [*secret, *other] if redaction.names_a_secret(name)] == secret
