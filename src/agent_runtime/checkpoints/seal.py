"""Seal stored bytes: a version, and a digest or MAC over the bytes and their location."""

from __future__ import annotations

import hmac
from hashlib import blake2b

from agent_runtime.errors import CheckpointCorrupt, CheckpointVersion, ConfigurationError
from agent_runtime.secrets.strength import weakness_of

VERSION = 1
_PLAIN = 0
_KEYED = 1
_DIGEST_BYTES = 16
_HEAD_BYTES = 6
_PAYLOAD_START = _HEAD_BYTES + _DIGEST_BYTES
MIN_KEY_BYTES = 32


class Seal:
    """Seal bytes for storage and verify them before they are read.

    Without a key the digest detects damage and misplacement; with one (at least 32 bytes) it is a
    MAC (keyed BLAKE2b, 128 bit), so that blobs cannot be forged or moved without the key. With a
    key, unkeyed blobs are refused.
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
        """Return whether forging a blob requires a key."""
        return bool(self._key)

    @staticmethod
    def digest_of(blob: bytes) -> bytes:
        """Return the digest at the start of a sealed blob."""
        return blob[_HEAD_BYTES:_PAYLOAD_START]

    def seal(self, payload: bytes, location: str) -> bytes:
        """Return `payload` sealed for `location`: tenant, session and the rest of its identity."""
        return self._head + self._digest(payload, location) + payload

    def unseal(self, blob: bytes, location: str) -> bytes:
        """Return the verified payload.

        Raises CheckpointVersion for another version's format, CheckpointCorrupt for anything that
        was not sealed for exactly this location.
        """
        if len(blob) >= _PAYLOAD_START and blob[0] != VERSION and self._was_sealed(blob, location):
            raise CheckpointVersion(blob[0], VERSION)
        if blob[:_HEAD_BYTES] != self._head or len(blob) < _PAYLOAD_START:
            is_intact = len(blob) >= _PAYLOAD_START and blob[0] == VERSION
            reason = (
                "it was sealed with another key, or without one"
                if is_intact
                else "it is no sealed blob"
            )
            raise CheckpointCorrupt(location, reason, damaged=not is_intact)
        payload = blob[_PAYLOAD_START:]
        if not hmac.compare_digest(
            blob[_HEAD_BYTES:_PAYLOAD_START], self._digest(payload, location)
        ):
            raise CheckpointCorrupt(location, "the digest does not match")
        return payload

    def _was_sealed(self, blob: bytes, location: str) -> bool:
        # Another version's blob carries a digest over its own head: so damage of the version byte
        # is not taken for one.
        return hmac.compare_digest(
            blob[_HEAD_BYTES:_PAYLOAD_START],
            self._digest(blob[_PAYLOAD_START:], location, blob[:_HEAD_BYTES]),
        )

    def _digest(self, payload: bytes, location: str, head: bytes | None = None) -> bytes:
        mac = blake2b(
            self._head if head is None else head, digest_size=_DIGEST_BYTES, key=self._key
        )
        mac.update(location.encode())
        mac.update(b"\x00")
        mac.update(payload)
        return mac.digest()


def _key_id(key: bytes) -> bytes:
    """Return four bytes that identify a key, so that a wrong key is told from damage.

    They reveal nothing of the key.
    """
    return blake2b(b"key id", digest_size=4, key=key).digest() if key else bytes(4)
