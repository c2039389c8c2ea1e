"""JSON web tokens, strictly.

Signed by a known key with that key's one algorithm, and every claim of its type.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from agent_runtime.auth.api_keys import KeyStore
from agent_runtime.auth.authenticator import LOG, token_bytes, unauthenticated_error
from agent_runtime.auth.identities import MAX_NAME, fault_of_name, is_reserved
from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import ConfigurationError, MissingExtra
from agent_runtime.secrets.strength import weakness_of
from agent_runtime.size_limits import size_limit
from agent_runtime.strict_json import loads_unique
from agent_runtime.types import Principal

LEEWAY_S = 60
"""How far clocks may be apart."""
MAX_AGE_S = 24 * 3600
MAX_TIME = 2**53
RECHECK_INTERVAL_S = 5.0
"""How often the file of keys and each token's revocation are looked at, by the monotonic clock."""
MAX_KEYS_BYTES = size_limit("jwt_keys_bytes")
STALE_AFTER_S = 300.0
"""How long the keys that were read last are trusted when their file cannot be read any more."""
ALGORITHMS = frozenset({"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384",
    "PS512", "ES256",
                        "ES384", "ES512", "EdDSA"})  # fmt: skip
MIN_HMAC_BYTES = 32
MIN_RSA_BITS = 2048
_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class JwtAuthenticator:
    """Authenticate callers by signed tokens. Needs the extra `jwt`.

    Args:
        keys: a JWKS (RFC 7517) as a dict, or the path of a file with one, which is read every five
            seconds. Each key has `kid` and `alg`: a token names its key, and no other algorithm is
            tried on it. An unreadable file is logged at once, and no token is accepted after five
            minutes; an empty list of keys accepts none at once.
        issuer, audience: the exact values of `iss` and `aud`; a list of audiences is refused.
        max_age_s: the longest time from `iat` (or now, without one) to `exp`.
        required: claims that must be present, beside `exp`, `iss`, `aud` and `sub`.
        tenant_claim, scope_claim: the claims with the tenant and the scopes (a list, or words).
        revocations: a key store with revoked token ids; `jti` is then required.
        ascii_names: refuse users and tenants with other than ASCII characters.
        clock: Unix seconds, for the times in tokens.
        monotonic: seconds that no change of the clock affects, for the cache.

    Raises ConfigurationError for weak or incomplete keys, MissingExtra.
    """

    def __init__(
        self,
        keys: Mapping[str, Any] | str | Path,
        *,
        issuer: str,
        audience: str,
        max_age_s: float = MAX_AGE_S,
        required: Sequence[str] = (),
        tenant_claim: str = "tenant",
        scope_claim: str = "scope",
        revocations: KeyStore | None = None,
        ascii_names: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._ascii_names = ascii_names
        self._issuer = issuer
        self._audience = audience
        self._max_age_s = max_age_s
        self._clock = clock
        self._tenant_claim = tenant_claim
        self._scope_claim = scope_claim
        self._revocations = revocations
        needed = {"exp", "iss", "aud", "sub", *required} | (
            {"jti"} if revocations is not None else set()
        )
        self._required = sorted(needed)
        self._path = None if isinstance(keys, Mapping) else Path(keys)
        self._keys: dict[str, tuple[str, Any]] = {}
        self._content = b""
        self._checked_at = monotonic()
        self._read_at = monotonic()
        self._revocation_recheck_at: dict[str, float] = {}
        if self._path is None:
            self._keys = _parse_jwks(cast("Mapping[str, Any]", keys))
        else:
            try:
                self._content = read_bounded(self._path, MAX_KEYS_BYTES)
                self._keys = _parse_jwks(loads_unique(self._content))
            except (OSError, ValueError, ConfigurationError) as error:
                raise ConfigurationError(f"no keys in '{self._path}': {error}") from None

    def _reload(self, path: Path, now: float) -> None:
        """Read the file of keys and compare its contents.

        Times and sizes can stay the same when a file is replaced.
        """
        was_readable = self._read_at == self._checked_at
        self._checked_at = now
        try:
            content = read_bounded(path, MAX_KEYS_BYTES)
            if content != self._content:
                self._keys = _parse_jwks(loads_unique(content), may_be_empty=True)
                self._content = content
                if not self._keys:
                    LOG.warning("the key file '%s' has no key: no token is accepted", path)
            self._read_at = now
        except (OSError, ValueError, ConfigurationError) as error:
            # The file may be in the middle of a replacement, so the last keys stay valid for a
            # while.
            if was_readable:
                LOG.warning(
                    "the key file '%s' cannot be read: %s; tokens are refused from %.0f s after "
                    "it was read last on",
                    path, error, STALE_AFTER_S,
                )  # fmt: skip
            if now - self._read_at >= STALE_AFTER_S:
                self._keys = {}
                self._content = b""

    async def authenticate(self, credentials: Any) -> Principal:
        """Return the principal of a token; raises Unauthenticated, StoreError."""
        token = token_bytes(credentials)
        if _TOKEN.fullmatch(token) is None:
            raise unauthenticated_error("not a signed token")
        now = self._monotonic()
        if self._path is not None and now - self._checked_at >= RECHECK_INTERVAL_S:
            self._reload(self._path, now)
        claims = self._verify_token(token)
        principal = self._principal_from_claims(claims, self._clock())
        if self._revocations is not None:
            await self._check_revoked(self._revocations, claims["jti"], now)
        return principal

    def _verify_token(self, token: bytes) -> dict[str, Any]:
        import jwt

        try:
            # PyJWT takes the last of two equal names; another reader of the same token may take the
            # first.
            for part in token.split(b".")[:2]:
                loads_unique(jwt.utils.base64url_decode(part))
            header = jwt.get_unverified_header(token)
            algorithm, key = self._keys[header["kid"]]
            if header.get("alg") != algorithm:
                raise unauthenticated_error("a token with another algorithm than its key's")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                # Times are checked below: against our own clock, and with their types.
                options={
                    "require": self._required,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (
            jwt.PyJWTError,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
            OverflowError,
        ) as error:
            # From None: the library's message may quote the token.
            raise unauthenticated_error(
                f"a token that does not verify ({type(error).__name__})"
            ) from None
        return claims

    def _principal_from_claims(self, claims: dict[str, Any], now: float) -> Principal:
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if not all(
            type(t) in (int, float) and -MAX_TIME < t < MAX_TIME for t in times.values()
        ):  # NaN is not either
            raise unauthenticated_error("an invalid time")
        if times["exp"] <= now - LEEWAY_S:
            raise unauthenticated_error("an expired token")
        if max(times.get("nbf", 0), times.get("iat", 0)) > now + LEEWAY_S:
            raise unauthenticated_error("a token from the future")
        if times["exp"] - times.get("iat", now) > self._max_age_s + LEEWAY_S:
            raise unauthenticated_error("a token that lives too long")
        names = {name: claims.get(name, "") for name in ("sub", "jti")}
        names["tenant"] = claims.get(self._tenant_claim, "default")
        if not all(
            isinstance(n, str) and len(n) <= MAX_NAME and n.isprintable() for n in names.values()
        ):
            raise unauthenticated_error("an invalid name")
        if self._revocations is not None and not names["jti"].strip():
            raise unauthenticated_error("an empty name")
        for name in (names["sub"], names["tenant"]):
            if (fault := fault_of_name(name, ascii_only=self._ascii_names)) is not None:
                raise unauthenticated_error(fault)
        if is_reserved(names["sub"]):
            raise unauthenticated_error("a name that is the runtime's own")
        return Principal(
            names["sub"], names["tenant"], self._scopes_from_claims(claims), names["jti"]
        )

    def _scopes_from_claims(self, claims: dict[str, Any]) -> frozenset[str]:
        claim_value = claims.get(self._scope_claim, "")
        scopes = claim_value.split() if isinstance(claim_value, str) else claim_value
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise unauthenticated_error("invalid scopes")
        return frozenset(scopes)

    async def _check_revoked(self, revocations: KeyStore, token_id: str, now: float) -> None:
        if self._revocation_recheck_at.get(token_id, 0.0) > now:
            return
        if await revocations.is_token_revoked(token_id):
            raise unauthenticated_error("a revoked token")
        if len(self._revocation_recheck_at) >= 10_000:
            self._revocation_recheck_at.clear()
        self._revocation_recheck_at[token_id] = now + RECHECK_INTERVAL_S


def _parse_jwks(
    jwks: Mapping[str, Any], *, may_be_empty: bool = False
) -> dict[str, tuple[str, Any]]:
    """Return key ids with algorithm and key; raises ConfigurationError without key material."""
    try:
        import jwt
    except ImportError as error:
        raise MissingExtra("JWT", "langchain-agent-runtime[jwt]") from error
    keys_by_id: dict[str, tuple[str, Any]] = {}
    entries = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(entries, list) or not (entries or may_be_empty):
        raise ConfigurationError("a JWKS is an object with a list `keys`")
    for number, entry in enumerate(entries):
        kid, algorithm = (
            (entry.get("kid"), entry.get("alg")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(kid, str) or not kid or algorithm not in ALGORITHMS or kid in keys_by_id:
            raise ConfigurationError(
                f"keys[{number}] needs a `kid` of its own and an `alg` of {sorted(ALGORITHMS)}"
            )
        try:
            key = jwt.PyJWK.from_dict(entry, algorithm).key
        except Exception:  # noqa: BLE001 - whatever the library finds, its message may quote the key
            raise ConfigurationError(
                f"keys[{number}] ('{kid}') is not a valid key for {algorithm}"
            ) from None
        _check_strength(kid, key)
        keys_by_id[kid] = (algorithm, key)
    return keys_by_id


def _check_strength(kid: str, key: Any) -> None:
    if isinstance(key, bytes) and (reason := weakness_of(key, MIN_HMAC_BYTES)) is not None:
        raise ConfigurationError(f"the HMAC key '{kid}' could be guessed: {reason}")
    # An elliptic key's size is its curve's; RSA's is free, and small ones are broken.
    if (size := getattr(key, "key_size", MIN_RSA_BITS)) < MIN_RSA_BITS and "RSA" in type(
        key
    ).__name__:
        raise ConfigurationError(
            f"the RSA key '{kid}' has at least {MIN_RSA_BITS} bits, not {size}"
        )
