"""From the headers of an HTTP request to a credential."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

from agent_runtime.auth.authenticator import MAX_CREDENTIAL_BYTES, refused
from agent_runtime.errors import CredentialTooLarge, KeyInUrl

_IN_URL = frozenset(
    {"api_key", "api-key", "apikey", "key", "token", "access_token", "x-api-key", "authorization"}
)


def credentials_of(headers: Iterable[tuple[bytes, bytes]], query: bytes = b"") -> str:
    """The key or token in `Authorization: Bearer ...` or `x-api-key.

    ...`, as ASGI gives headers and query string.

    Raises Unauthenticated when there is none (401), KeyInUrl for one in the query string (400),
    which ends up in logs and histories, and CredentialTooLarge (431). Other schemes than Bearer are
    none.
    """
    if query and any(
        name.lower() in _IN_URL
        for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    ):
        raise KeyInUrl
    found = [
        (name.lower(), value)
        for name, value in headers
        if name.lower() in (b"authorization", b"x-api-key")
    ]
    if any(len(value) > MAX_CREDENTIAL_BYTES for _, value in found):
        raise CredentialTooLarge(MAX_CREDENTIAL_BYTES)
    if len(found) != 1:
        raise refused("no credential" if not found else "several credentials")
    (name, value) = found[0]
    if name == b"authorization":
        scheme, _, value = value.partition(b" ")
        if scheme.lower() != b"bearer":
            raise refused("not the Bearer scheme")
    text = value.strip(b" ").decode("latin-1")
    if not text:
        raise refused("an empty credential")
    return text
