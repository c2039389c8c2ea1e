"""The protocol of everything that recognises callers."""

from __future__ import annotations

import logging
from typing import Any, Protocol, runtime_checkable

from agent_runtime.errors import Unauthenticated
from agent_runtime.size_limits import size_limit
from agent_runtime.types import Principal

LOG = logging.getLogger("agent_runtime.auth")
LOG.addHandler(logging.NullHandler())

MAX_CREDENTIAL_BYTES = size_limit("credential_bytes")
"""More is refused before anything is parsed."""


@runtime_checkable
class Authenticator(Protocol):
    """Authenticate callers by their credentials; implement it for methods that are not built in.

    `authenticate` returns a principal or raises `Unauthenticated`; there is no anonymous principal.
    It must neither log nor store the credential, and raises StoreError when it cannot decide.
    """

    async def authenticate(self, credentials: Any) -> Principal:
        """Return the principal of these credentials; raises Unauthenticated, StoreError."""


def unauthenticated_error(reason: str) -> Unauthenticated:
    """Return the error for any invalid credential; the reason is written to the log only."""
    LOG.info("a credential was refused: %s", reason)
    return Unauthenticated()


def token_bytes(credentials: Any) -> bytes:
    """Return a credential as ASCII bytes.

    Raises Unauthenticated for anything that cannot be a key or token.
    """
    if isinstance(credentials, str):
        if len(credentials) > MAX_CREDENTIAL_BYTES or not credentials.isascii():
            raise unauthenticated_error("too long or not ASCII")
        return credentials.encode("ascii")
    if isinstance(credentials, bytes) and len(credentials) <= MAX_CREDENTIAL_BYTES:
        return credentials
    raise unauthenticated_error("nothing that could be a key or a token")
