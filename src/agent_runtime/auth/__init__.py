"""Who calls: API keys, JSON web tokens, and the protocol for anything else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runtime.auth.api_keys import ApiKey, ApiKeys
    from agent_runtime.auth.authenticator import Authenticator
    from agent_runtime.auth.headers import credentials_of
    from agent_runtime.auth.jwt import JwtAuthenticator
    from agent_runtime.auth.key_stores import open_keys
    from agent_runtime.auth.scopes import allows

# Loaded at first use: PyJWT is an extra, Redis and SQLite are not everybody's.
_HOME = {
    "ApiKey": "api_keys",
    "ApiKeys": "api_keys",
    "Authenticator": "authenticator",
    "JwtAuthenticator": "jwt",
    "allows": "scopes",
    "credentials_of": "headers",
    "open_keys": "key_stores",
}

__all__ = ["ApiKey", "ApiKeys", "Authenticator", "JwtAuthenticator", "allows", "credentials_of", "open_keys"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agent_runtime.auth' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"agent_runtime.auth.{_HOME[name]}"), name)
    globals()[name] = value
    return value
