"""API keys: made, checked, listed, revoked, rotated."""

from __future__ import annotations

import hmac
import json
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent_runtime.auth.authenticator import LOG, token_bytes, unauthenticated_error
from agent_runtime.auth.identities import fault_of_name, is_reserved
from agent_runtime.auth.key_format import key_id_of, new_key
from agent_runtime.auth.scopes import validate_scopes
from agent_runtime.errors import ConfigurationError, KeyNotFound
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.secrets.strength import weakness_of
from agent_runtime.storage.operations import Operation
from agent_runtime.types import Principal

MAX_CACHED = 10_000
KEY_CACHE_TTL_S = 5.0
"""Seconds within which every process sees a revocation."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Store one API key's metadata, never the key itself; `digest` is its HMAC under the pepper.

    Times are Unix seconds. `mac` is an HMAC over all other fields, so that write access to the
    store is not enough to change a key's owner or scopes; it is empty in records of versions
    without signatures.
    """

    id: str
    digest: str
    user: str
    tenant: str = "default"
    scopes: tuple[str, ...] = ()
    note: str = ""
    created_at: float = 0.0
    not_before: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    replaced_by: str = ""
    mac: str = ""

    def status(self, now: float) -> str:
        """Return `active`, `revoked`, `expired` or `pending`."""
        if self.revoked_at is not None:  # independent of the clock
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "pending" if self.not_before > now else "active"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but the digests, which must not be shown."""
        public_fields = asdict(self)
        del public_fields["digest"], public_fields["mac"]
        return {**public_fields, "scopes": list(self.scopes)}


class KeyStore(ABC):
    """Store API keys and revoked tokens. Operations raise StoreError when the store fails."""

    @abstractmethod
    def put_key(self, key: ApiKey) -> Operation[None]:
        """Store a key under its id."""

    @abstractmethod
    def get_key(self, key_id: str) -> Operation[ApiKey | None]:
        """Return a key, also a revoked one."""

    @abstractmethod
    def list_keys(self) -> Operation[Sequence[ApiKey]]:
        """Return all keys."""

    @abstractmethod
    def replace_key(self, old: ApiKey, new: ApiKey) -> Operation[bool]:
        """Store `new` in place of `old`; False when that has changed meanwhile."""

    @abstractmethod
    def revoke_token(self, token_id: str, until: float) -> Operation[None]:
        """Revoke a token that expires at the Unix time `until`."""

    @abstractmethod
    def is_token_revoked(self, token_id: str) -> Operation[bool]:
        """Return whether a token is revoked; it may be forgotten 120 s after its expiry."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the store."""


class ApiKeys:
    """Authenticate callers by API keys in a store, and administer the keys.

    The administrative methods block on the store. `authenticate` reads it at most every five
    seconds for each key.

    Args:
        store: the KeyStore: `MemoryKeyStore`, `SqliteKeyStore`, `RedisKeyStore` or your own.
        pepper: at least 32 bytes that are kept outside the store: a copy of the store alone is not
            enough to verify a guess.
        clock: Unix seconds, for the times of keys.
        monotonic: seconds that no change of the clock affects, for the cache.

    Raises ConfigurationError for a short pepper, StoreError when the store fails.
    """

    def __init__(
        self,
        store: KeyStore,
        pepper: bytes,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        if (reason := weakness_of(pepper)) is not None:
            raise ConfigurationError(f"the pepper of API keys could be guessed: {reason}")
        self.store = store
        self._pepper = pepper
        self._clock = clock
        SECRETS.add(pepper)
        self._cache: OrderedDict[str, tuple[ApiKey | None, bytes, Principal | None, float]] = (
            OrderedDict()
        )
        self._unknown_key_digest = self._digest(b"the key of no record")

    def _digest(self, key: bytes) -> bytes:
        return hmac.digest(self._pepper, key, "sha256")

    def _signed(self, record: ApiKey) -> ApiKey:
        """Return the record with its MAC."""
        fields = json.dumps({**asdict(record), "mac": ""}, sort_keys=True)
        return replace(record, mac=self._digest(b"api key record\0" + fields.encode()).hex())

    def is_signed(self, record: ApiKey) -> bool:
        """Tell whether a record was written by these keys, or by others with the same pepper."""
        return hmac.compare_digest(
            record.mac.encode(errors="replace"), self._signed(record).mac.encode()
        )

    async def authenticate(self, credentials: Any) -> Principal:
        """Return the principal of an API key; raises Unauthenticated, StoreError."""
        key = token_bytes(credentials)
        key_id = key_id_of(key)
        if key_id is None:
            raise unauthenticated_error("not an API key")
        now = self._monotonic()
        cached = self._cache.get(key_id)
        if cached is None or cached[3] <= now:
            cached = self._cache_record(key_id, await self.store.get_key(key_id), now)
        record, digest, principal, _ = cached
        # Unknown ids take the same path, so that the response time reveals nothing.
        same = hmac.compare_digest(self._digest(key), digest)
        if record is None or principal is None or not same:
            raise unauthenticated_error("unknown key")
        if (status := record.status(self._clock())) != "active":
            raise unauthenticated_error(f"{status} key")
        return principal

    def _cache_record(
        self, key_id: str, record: ApiKey | None, now: float
    ) -> tuple[ApiKey | None, bytes, Principal | None, float]:
        if record is not None and (record.id != key_id or not self.is_signed(record)):
            LOG.warning(
                "the record of the key %s is refused: it was changed in the store, or is of a "
                "version that signed none "
                "(`agent-runtime keys sign` signs those, once)",
                key_id,
            )
            record = None
        digest = self._unknown_key_digest if record is None else bytes.fromhex(record.digest)
        principal = (
            None
            if record is None
            else Principal(record.user, record.tenant, frozenset(record.scopes), key_id)
        )
        cached = self._cache[key_id] = (record, digest, principal, now + KEY_CACHE_TTL_S)
        self._cache.move_to_end(key_id)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return cached

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()

    # -- administration

    def create(
        self,
        user: str,
        *,
        tenant: str = "default",
        scopes: Iterable[str] = ("run:*", "resume:*"),
        note: str = "",
        not_before: float = 0.0,
        expires_at: float | None = None,
    ) -> tuple[str, ApiKey]:
        """Create a key; return it and its record.

        The key is returned only this once: only its digest is stored. Raises ConfigurationError.
        """
        for name, value in (("user", user), ("tenant", tenant)):
            if (fault := fault_of_name(value)) is not None:
                raise ConfigurationError(f"the {name} of a key cannot be '{value[:80]}': {fault}")
        if is_reserved(user):
            raise ConfigurationError(f"the user '{user[:80]}' is the runtime's own")
        now = self._clock()
        if expires_at is not None and expires_at <= max(now, not_before):
            raise ConfigurationError("a key expires after now and after it becomes valid")
        key_id, key = new_key()
        chosen = tuple(sorted(validate_scopes(scopes)))
        digest = self._digest(key.encode()).hex()
        record = self._signed(
            ApiKey(key_id, digest, user, tenant, chosen, note, now, not_before, expires_at)
        )
        self.store.put_key(record).run()
        return key, record

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        """Return the records, oldest first, of one tenant or of all."""
        records = self.store.list_keys().run()
        return sorted(
            (k for k in records if tenant in (None, k.tenant)), key=lambda k: (k.created_at, k.id)
        )

    def sign(self) -> Sequence[ApiKey]:
        """Sign the records without a signature, once, after an upgrade; return them.

        Review them with `list` before: a signature vouches for the record as it is stored.
        """
        unsigned = [record for record in self.list() if not record.mac]
        return [
            self._signed(record)
            for record in unsigned
            if self.store.replace_key(record, self._signed(record)).run()
        ]

    def revoke(self, key_id: str, *, with_successors: bool | None = None) -> ApiKey:
        """Revoke a key; every process refuses it within five seconds.

        Args:
            key_id: the key's id.
            with_successors: whether to revoke the keys it was rotated to as well. A thief may have
                rotated the key, so a key with a working successor requires an explicit choice.

        Raises KeyNotFound, and ConfigurationError when that choice is missing.
        """
        successors = self._successors(self._load_record(key_id))
        if successors and with_successors is None:
            raise ConfigurationError(
                f"the key '{key_id}' was rotated to '{successors[0].id}', which works: say "
                "with_successors=True to end "
                "both, False to end this one alone"
            )
        for successor in successors if with_successors else ():
            self._revoke_record(successor.id)
        return self._revoke_record(key_id)

    def _successors(self, record: ApiKey) -> Sequence[ApiKey]:
        """Return the keys that a key was rotated to, one after another, as far as they work."""
        successors = []
        visited_ids = {record.id}
        while record.replaced_by and record.replaced_by not in visited_ids:
            visited_ids.add(record.replaced_by)
            record = self._load_record(record.replaced_by)
            if record.status(self._clock()) in ("active", "pending"):
                successors.append(record)
        return successors

    def _revoke_record(self, key_id: str) -> ApiKey:
        while (record := self._load_record(key_id)).revoked_at is None:
            revoked = self._signed(replace(record, revoked_at=self._clock()))
            if self.store.replace_key(record, revoked).run():  # else it has been changed meanwhile
                record = revoked
                break
        self._cache.pop(key_id, None)
        return record

    def rotate(self, key_id: str, overlap_s: float = 24 * 3600.0) -> tuple[str, ApiKey]:
        """Create a key with the same rights; the old one works for `overlap_s` more seconds.

        Raises KeyNotFound, and ConfigurationError for a key that is no longer active.
        """
        old = self._load_record(key_id)
        now = self._clock()
        if overlap_s < 0:
            raise ConfigurationError(f"the overlap is not negative, not {overlap_s}")
        if not self.is_signed(old):
            raise ConfigurationError(
                f"the record of the key '{key_id}' was not written by this release: revoke it"
            )
        if (status := old.status(now)) in ("revoked", "expired") or old.replaced_by:
            raise ConfigurationError(
                f"the key '{key_id}' is {'replaced' if old.replaced_by else status}: make a new one"
            )
        key, new = self.create(
            old.user,
            tenant=old.tenant,
            scopes=old.scopes,
            note=old.note,
            not_before=old.not_before,
            expires_at=old.expires_at,
        )
        ends = now + overlap_s if old.expires_at is None else min(old.expires_at, now + overlap_s)
        replaced = self._signed(replace(old, expires_at=ends, replaced_by=new.id))
        if not self.store.replace_key(old, replaced).run():
            self._revoke_record(new.id)
            raise ConfigurationError(f"the key '{key_id}' was revoked or replaced meanwhile")
        self._cache.pop(key_id, None)
        return key, new

    def _load_record(self, key_id: str) -> ApiKey:
        record: ApiKey | None = self.store.get_key(key_id).run()
        if record is None or record.id != key_id:  # the record of another key, put there by hand
            raise KeyNotFound(key_id)
        return record
