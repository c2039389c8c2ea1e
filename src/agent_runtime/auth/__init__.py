"""Authenticate callers: API keys, JSON web tokens, and the protocol for other methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime._lazy import lazy_exports

if TYPE_CHECKING:
    from agent_runtime.auth.api_keys import ApiKey, ApiKeys, KeyStore
    from agent_runtime.auth.authenticator import Authenticator
    from agent_runtime.auth.headers import credentials_of
    from agent_runtime.auth.jwt import JwtAuthenticator
    from agent_runtime.auth.key_stores import open_keys
    from agent_runtime.auth.scopes import allows

# Loaded at first use: PyJWT is an extra, Redis and SQLite are not everybody's.
_HOME = {
    "KeyStore": "agent_runtime.auth.api_keys",
    "ApiKey": "agent_runtime.auth.api_keys",
    "ApiKeys": "agent_runtime.auth.api_keys",
    "Authenticator": "agent_runtime.auth.authenticator",
    "JwtAuthenticator": "agent_runtime.auth.jwt",
    "allows": "agent_runtime.auth.scopes",
    "credentials_of": "agent_runtime.auth.headers",
    "open_keys": "agent_runtime.auth.key_stores",
}

__all__ = [
    "ApiKey",
    "ApiKeys",
    "Authenticator",
    "JwtAuthenticator",
    "KeyStore",
    "allows",
    "credentials_of",
    "open_keys",
]


__getattr__ = lazy_exports(__name__, _HOME)
