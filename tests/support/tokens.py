"""Make JSON web tokens and their authenticators."""

from __future__ import annotations

import base64
import json
from typing import Any

from agent_runtime.auth import JwtAuthenticator

SECRET = b"a dummy key of at least 32 bytes........"


NOW = 1_800_000_000.0


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwks(secret: bytes = SECRET, **fields: Any) -> dict[str, Any]:
    return {"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": b64(secret), **fields}]}


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "iss": "us",
        "aud": "runtime",
        "sub": "ada",
        "iat": NOW,
        "exp": NOW + 600,
        "jti": "t1",
        "tenant": "acme",
    }
    made |= {"scope": "run:analyst resume:*", **changes}
    return {name: value for name, value in made.items() if value is not None}


def raw(payload: str, header: dict[str, Any] | str | None = None) -> str:
    """A token with a right signature over any payload, JSON or not."""
    import hashlib
    import hmac

    stated = (
        header
        if isinstance(header, str)
        else json.dumps(header or {"alg": "HS256", "kid": "k1", "typ": "JWT"})
    )
    head = b64(stated.encode())
    body = f"{head}.{b64(payload.encode())}"
    return f"{body}.{b64(hmac.digest(SECRET, body.encode(), hashlib.sha256))}"


def token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    return raw(json.dumps(claims(**changes)), header)


def made(**settings: Any) -> JwtAuthenticator:
    given = {
        "keys": jwks(),
        "issuer": "us",
        "audience": "runtime",
        "clock": lambda: NOW,
        **settings,
    }
    return JwtAuthenticator(given.pop("keys"), **given)
