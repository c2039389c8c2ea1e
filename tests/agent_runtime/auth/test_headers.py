"""From headers to credentials."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import CredentialTooLarge, InputInvalid, KeyInUrl, Unauthenticated
from agent_runtime.auth import credentials_of

KEY = b"art_dummy"


def test_the_two_places() -> None:
    assert credentials_of([(b"authorization", b"Bearer " + KEY)]) == "art_dummy"
    assert credentials_of([(b"Authorization", b"bearer " + KEY)]) == "art_dummy"
    assert credentials_of([(b"x-api-key", KEY), (b"host", b"x")], b"q=1") == "art_dummy"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"")],
        [(b"x-api-key", b" ")],
        [(b"authorization", b"Basic " + KEY)],
        [(b"authorization", KEY)],
        [(b"authorization", b"Bearer " + KEY), (b"x-api-key", KEY)],
    ],
)
def test_no_credential(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated):
        credentials_of(headers)


def test_one_in_the_url_and_one_that_is_too_long() -> None:
    for query in (b"api_key=x", b"a=1&Token=", b"x-api-key=1"):
        with pytest.raises(KeyInUrl) as failed:
            credentials_of([(b"x-api-key", KEY)], query)
        assert failed.value.code == "key_in_url"
    with pytest.raises(CredentialTooLarge):
        credentials_of([(b"authorization", b"Bearer " + b"x" * 1_000_000)])


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"a"]), st.binary())),
    st.binary(),
)
def test_any_headers_give_a_text_or_a_typed_error(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    with suppress(Unauthenticated, InputInvalid):
        assert credentials_of(headers, query)
