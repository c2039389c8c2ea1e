"""From the headers of an HTTP request to a credential."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

from agent_runtime.auth.authenticator import MAX_CREDENTIAL_BYTES, unauthenticated_error
from agent_runtime.errors import CredentialTooLarge, KeyInUrl

_CREDENTIAL_PARAMETERS = frozenset(
    {"api_key", "api-key", "apikey", "key", "token", "access_token", "x-api-key", "authorization"}
)


def credentials_of(headers: Iterable[tuple[bytes, bytes]], query: bytes = b"") -> str:
    """Return the key or token of `Authorization: Bearer ...` or `x-api-key: ...`.

    Headers and query string have the ASGI types. Other schemes than Bearer are ignored. Raises
    Unauthenticated when there is no credential (401), KeyInUrl for one in the query string (400),
    which would end up in logs and histories, and CredentialTooLarge (431).
    """
    if query and any(
        name.lower() in _CREDENTIAL_PARAMETERS
        for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    ):
        raise KeyInUrl
    credential_headers = [
        (name.lower(), value)
        for name, value in headers
        if name.lower() in (b"authorization", b"x-api-key")
    ]
    if any(len(value) > MAX_CREDENTIAL_BYTES for _, value in credential_headers):
        raise CredentialTooLarge(MAX_CREDENTIAL_BYTES)
    if len(credential_headers) != 1:
        raise unauthenticated_error(
            "no credential" if not credential_headers else "several credentials"
        )
    (name, value) = credential_headers[0]
    if name == b"authorization":
        scheme, _, value = value.partition(b" ")
        if scheme.lower() != b"bearer":
            raise unauthenticated_error("not the Bearer scheme")
    text = value.strip(b" ").decode("latin-1")
    if not text:
        raise unauthenticated_error("an empty credential")
    return text
