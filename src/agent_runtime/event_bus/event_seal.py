"""Seal events in a broker's log, so that write access to the server is not enough to forge one."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from agent_runtime.errors import ConfigurationError, InputInvalid
from agent_runtime.secrets.strength import weakness_of

ATTRIBUTE = "seal"
"""The CloudEvents extension attribute that carries it."""
MIN_KEY_BYTES = 32


class EventSeal:
    """Signs CloudEvents (BLAKE2b, 128 bit) over all attributes and their log's name.

    Every publisher and reader of the log has the same key. Raises ConfigurationError for a key that
    could be guessed.
    """

    def __init__(self, key: bytes, log: str) -> None:
        if not MIN_KEY_BYTES <= len(key) <= 64:
            raise ConfigurationError(
                f"an event key has {MIN_KEY_BYTES} to 64 bytes, this one {len(key)}"
            )
        if (reason := weakness_of(key)) is not None:
            raise ConfigurationError(f"the event key could be guessed: {reason}")
        self._key = key
        self._log = log

    def sign(self, content: dict[str, Any]) -> None:
        """Add the seal to an event's attributes."""
        content[ATTRIBUTE] = self._mac(content)

    def check(self, content: Mapping[str, Any]) -> None:
        """Raise InputInvalid for an event without a valid seal of this key and log."""
        seal = content.get(ATTRIBUTE)
        if (
            not isinstance(seal, str)
            or not seal.isascii()
            or not hmac.compare_digest(seal, self._mac(content))
        ):
            raise InputInvalid("not sealed with the key of this log", ATTRIBUTE)

    def _mac(self, content: Mapping[str, Any]) -> str:
        attributes = {name: value for name, value in content.items() if name != ATTRIBUTE}
        text = json.dumps([self._log, attributes], sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16, key=self._key).hexdigest()
