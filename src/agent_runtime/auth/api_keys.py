"""API keys: made, checked, listed, revoked, rotated."""

from __future__ import annotations

import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent_runtime.auth.authenticator import LOG, refused, token_bytes
from agent_runtime.auth.identities import fault_of_name, is_reserved
from agent_runtime.auth.key_format import key_id_of, new_key
from agent_runtime.auth.scopes import checked_scopes
from agent_runtime.errors import ConfigurationError, KeyNotFound
from agent_runtime.secrets.redaction import SECRETS
from agent_runtime.secrets.strength import weakness_of
from agent_runtime.types import Principal

MAX_CACHED = 10_000
REVOKED_WITHIN_S = 5.0
"""A revocation is seen by every process within so many seconds."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key, never the key: `digest` is its HMAC under the pepper.

    Times are Unix seconds.

    `mac` is an HMAC over all other fields, so that who can write to the store cannot change whose
    key it is or what it may do; empty in records of versions that had none.
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

    def state(self, now: float) -> str:
        """`active`, `revoked`, `expired` or `pending`."""
        if self.revoked_at is not None:  # whatever the clocks say
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "pending" if self.not_before > now else "active"

    def to_dict(self) -> dict[str, Any]:
        """Return what may be shown: everything but the digests."""
        shown = asdict(self)
        del shown["digest"], shown["mac"]
        return {**shown, "scopes": list(self.scopes)}


class ApiKeys:
    """The keys in a store, as an Authenticator and as their administration.

    Args:
        store: where they are kept: `MemoryKeyStore`, `SqliteKeyStore`, `RedisKeyStore`.
        pepper: at least 32 bytes that are not in the store: who reads the store alone cannot check
        a guess.
        clock: seconds since the epoch, for the times of keys.
        monotonic: seconds that no change of the clock moves, for what is remembered.

    Methods of the administration block for the store; `authenticate` looks at it at most every five
    seconds for each key. Raises ConfigurationError for a short pepper, StoreError when the store
    fails.
    """

    def __init__(
        self,
        store: Any,
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
        self._known: OrderedDict[str, tuple[ApiKey | None, bytes, Principal | None, float]] = (
            OrderedDict()
        )
        self._nobody = self._digest(b"nobody's key")

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
        """Whose key this is; raises Unauthenticated, StoreError."""
        key = token_bytes(credentials)
        key_id = key_id_of(key)
        if key_id is None:
            raise refused("not an API key")
        now = self._monotonic()
        known = self._known.get(key_id)
        if known is None or known[3] <= now:
            known = self._remember(key_id, await self.store.acall("get", key_id), now)
        record, digest, principal, _ = known
        # An unknown id takes the same way: nothing is to be learnt from how long the answer takes.
        same = hmac.compare_digest(self._digest(key), digest)
        if record is None or principal is None or not same:
            raise refused("unknown key")
        if (state := record.state(self._clock())) != "active":
            raise refused(f"{state} key")
        return principal

    def _remember(
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
        digest = self._nobody if record is None else bytes.fromhex(record.digest)
        principal = (
            None
            if record is None
            else Principal(record.user, record.tenant, frozenset(record.scopes), key_id)
        )
        known = self._known[key_id] = (record, digest, principal, now + REVOKED_WITHIN_S)
        self._known.move_to_end(key_id)
        while len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return known

    async def aclose(self) -> None:
        """Close the store."""
        await self.store.aclose()

    # -- administration
    # ------------------------------------------------------------------------------------

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
        """A new key and its record. The key is shown this once: it is not kept.

        Raises ConfigurationError.
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
        chosen = tuple(sorted(checked_scopes(scopes)))
        digest = self._digest(key.encode()).hex()
        record = self._signed(
            ApiKey(key_id, digest, user, tenant, chosen, note, now, not_before, expires_at)
        )
        self.store.call("put", record)
        return key, record

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        """The records, oldest first; of one tenant, or of all."""
        found: list[ApiKey] = self.store.call("all")
        return sorted(
            (k for k in found if tenant in (None, k.tenant)), key=lambda k: (k.created_at, k.id)
        )

    def sign(self) -> Sequence[ApiKey]:
        """Sign the records that have no signature, once, after an upgrade; returns them.

        Look at them first (`list`): from then on they are what this version would have written.
        """
        unsigned = [record for record in self.list() if not record.mac]
        return [
            self._signed(record)
            for record in unsigned
            if self.store.call("change", record, self._signed(record))
        ]

    def revoke(self, key_id: str, *, with_successors: bool | None = None) -> ApiKey:
        """End a key; every process refuses it within five seconds.

        Args:
            key_id: whose record is changed.
            with_successors: whether the keys that it was rotated to end, too. Who stole the key may
                have rotated it, so it has to be said for a key with a successor that works.

        Raises KeyNotFound, ConfigurationError when that has to be said.
        """
        successors = self._successors(self._found(key_id))
        if successors and with_successors is None:
            raise ConfigurationError(
                f"the key '{key_id}' was rotated to '{successors[0].id}', which works: say "
                "with_successors=True to end "
                "both, False to end this one alone"
            )
        for each in successors if with_successors else ():
            self._end(each.id)
        return self._end(key_id)

    def _successors(self, record: ApiKey) -> Sequence[ApiKey]:
        """Return the keys that a key was rotated to, one after another, as far as they work."""
        successors = []
        seen = {record.id}
        while record.replaced_by and record.replaced_by not in seen:
            seen.add(record.replaced_by)
            record = self._found(record.replaced_by)
            if record.state(self._clock()) in ("active", "pending"):
                successors.append(record)
        return successors

    def _end(self, key_id: str) -> ApiKey:
        while (record := self._found(key_id)).revoked_at is None:
            revoked = self._signed(replace(record, revoked_at=self._clock()))
            if self.store.call("change", record, revoked):  # else it has been changed meanwhile
                record = revoked
                break
        self._known.pop(key_id, None)
        return record

    def rotate(self, key_id: str, overlap_s: float = 24 * 3600.0) -> tuple[str, ApiKey]:
        """A new key with the old one's rights; the old one works for `overlap_s` more seconds.

        Raises KeyNotFound, and ConfigurationError for a key that does not work any more.
        """
        old = self._found(key_id)
        now = self._clock()
        if overlap_s < 0:
            raise ConfigurationError(f"the overlap is not negative, not {overlap_s}")
        if not self.is_signed(old):
            raise ConfigurationError(
                f"the record of the key '{key_id}' was not written by this release: revoke it"
            )
        if (state := old.state(now)) in ("revoked", "expired") or old.replaced_by:
            raise ConfigurationError(
                f"the key '{key_id}' is {'replaced' if old.replaced_by else state}: make a new one"
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
        if not self.store.call("change", old, replaced):
            self._end(new.id)
            raise ConfigurationError(f"the key '{key_id}' was revoked or replaced meanwhile")
        self._known.pop(key_id, None)
        return key, new

    def _found(self, key_id: str) -> ApiKey:
        record: ApiKey | None = self.store.call("get", key_id)
        if record is None or record.id != key_id:  # the record of another key, put there by hand
            raise KeyNotFound(key_id)
        return record
