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
    """Recognises callers by what they show; write your own for anything that is not built in.

    `authenticate` returns a principal or raises `Unauthenticated`, whatever is wrong: there is no
    anonymous principal. It must not log or keep the credential, and raises StoreError when it
    cannot know.
    """

    async def authenticate(self, credentials: Any) -> Principal:
        """Who shows these credentials; raises Unauthenticated, StoreError."""


def unauthenticated_error(reason: str) -> Unauthenticated:
    """The one answer to every bad credential.

    Why it is bad is for the log, which sees nothing of it.
    """
    LOG.info("a credential was refused: %s", reason)
    return Unauthenticated()


def token_bytes(credentials: Any) -> bytes:
    """A credential as ASCII bytes; raises Unauthenticated for what no key or token is."""
    if isinstance(credentials, str):
        if len(credentials) > MAX_CREDENTIAL_BYTES or not credentials.isascii():
            raise unauthenticated_error("too long or not ASCII")
        return credentials.encode("ascii")
    if isinstance(credentials, bytes) and len(credentials) <= MAX_CREDENTIAL_BYTES:
        return credentials
    raise unauthenticated_error("nothing that could be a key or a token")
