"""What makes stored bytes trustworthy.

A version, and a digest or a MAC over the bytes and over where they belong.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

from agent_runtime.errors import CheckpointCorrupt, CheckpointVersion, ConfigurationError
from agent_runtime.secrets.strength import weakness_of

VERSION = 1
_PLAIN = 0
_KEYED = 1
_DIGEST = 16
_HEAD = 6
_START = _HEAD + _DIGEST
MIN_KEY_BYTES = 32


class Seal:
    """Wraps bytes for storage and checks them before anything reads them.

    Without a key the digest finds damage and misplacement; with one (at least 32 bytes) it is a MAC
    (keyed BLAKE2b, 128 bit), so that nobody without the key can make or move a blob. With a key
    unkeyed blobs are refused.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and not MIN_KEY_BYTES <= len(key) <= 64:
            raise ConfigurationError(
                f"a MAC key has {MIN_KEY_BYTES} to 64 bytes, this one {len(key)}"
            )
        if key is not None and (reason := weakness_of(key)) is not None:
            raise ConfigurationError(f"the MAC key could be guessed: {reason}")
        self._key = key or b""
        self._head = bytes((VERSION, _KEYED if key else _PLAIN)) + _key_id(self._key)

    @property
    def is_keyed(self) -> bool:
        """Whether nobody without the key can make a blob."""
        return bool(self._key)

    @staticmethod
    def digest_of(blob: bytes) -> bytes:
        """Return the digest that a sealed blob begins with."""
        return blob[_HEAD:_START]

    def close(self, payload: bytes, place: str) -> bytes:
        """`payload`, sealed for `place` (tenant, session and all that says which blob it is)."""
        return self._head + self._digest(payload, place) + payload

    def open(self, blob: bytes, place: str) -> bytes:
        """The payload again.

        Raises CheckpointVersion for a format of another version, CheckpointCorrupt for anything
        that was not sealed for exactly this place.
        """
        if len(blob) >= _START and blob[0] != VERSION and self._was_sealed(blob, place):
            raise CheckpointVersion(blob[0], VERSION)
        if blob[:_HEAD] != self._head or len(blob) < _START:
            whole = len(blob) >= _START and blob[0] == VERSION
            why = (
                "it was sealed with another key, or without one"
                if whole
                else "it is no sealed blob"
            )
            raise CheckpointCorrupt(place, why, damaged=not whole)
        payload = blob[_START:]
        if not hmac.compare_digest(blob[_HEAD:_START], self._digest(payload, place)):
            raise CheckpointCorrupt(place, "the digest does not match")
        return payload

    def _was_sealed(self, blob: bytes, place: str) -> bool:
        # Another version's blob carries a digest over its own head: so damage of the version byte
        # is not taken for one.
        return hmac.compare_digest(
            blob[_HEAD:_START], self._digest(blob[_START:], place, blob[:_HEAD])
        )

    def _digest(self, payload: bytes, place: str, head: bytes | None = None) -> bytes:
        mac = blake2b(self._head if head is None else head, digest_size=_DIGEST, key=self._key)
        mac.update(place.encode())
        mac.update(b"\x00")
        mac.update(payload)
        return mac.digest()


def _key_id(key: bytes) -> bytes:
    """Four bytes that tell keys apart, and nothing of them.

    So that a wrong key is not taken for damage.
    """
    return blake2b(b"key id", digest_size=4, key=key).digest() if key else bytes(4)
