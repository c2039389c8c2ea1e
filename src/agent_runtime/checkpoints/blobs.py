"""Encode and seal values, and select the metadata of a run that may be stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, get_checkpoint_metadata

from agent_runtime.checkpoints.backends.backend import SEPARATOR
from agent_runtime.checkpoints.codec import Codec, UnreadableBytes
from agent_runtime.checkpoints.seal import Seal
from agent_runtime.errors import CheckpointCorrupt

_CREDENTIAL = re.compile(
    r"(?i)(^|[_-])((api|access|private|secret|auth)[_-]?keys?|token|secrets?|password|passwd|credentials?|"
    r"authorization|auth|cookies?|principal)$"
)


class Blobs:
    """Convert values to sealed blobs and back. The location is part of each blob's seal."""

    __slots__ = ("codec", "seal")

    def __init__(self, codec: Codec, seal: Seal) -> None:
        self.codec = codec
        self.seal = seal

    def encode(self, value: Any, *location_parts: str) -> bytes:
        """Return sealed bytes; raises StateNotSerializable."""
        return self.seal.seal(self.codec.encode(value), SEPARATOR.join(location_parts))

    def seal_payload(self, payload: bytes, *location_parts: str) -> bytes:
        """Return the sealed bytes of an encoded payload."""
        return self.seal.seal(payload, SEPARATOR.join(location_parts))

    def unseal_payload(self, data: bytes, *location_parts: str) -> bytes:
        """Return the verified payload, not decoded.

        Raises CheckpointCorrupt or CheckpointVersion.
        """
        return self.seal.unseal(data, SEPARATOR.join(location_parts))

    def decode_list(self, data: bytes, *location_parts: str) -> tuple[list[Any], bytes]:
        """Decode a blob of `Codec.encode_list`."""
        return self._unseal_and_decode(data, self.codec.decode_list, location_parts)

    def decode(self, data: bytes, *location_parts: str) -> tuple[Any, bytes]:
        """Return the value and its payload; executes nothing that the bytes name.

        Raises CheckpointCorrupt or CheckpointVersion.
        """
        return self._unseal_and_decode(data, self.codec.decode, location_parts)

    def decode_as(self, has_shape: Callable[[Any], bool], data: bytes, *location_parts: str) -> Any:
        """Return the value of a blob.

        Raises as `open`, and CheckpointCorrupt for a value of another shape.
        """
        value, _ = self._unseal_and_decode(data, self.codec.decode, location_parts)
        if not has_shape(value):
            location = SEPARATOR.join(location_parts)
            raise CheckpointCorrupt(
                location, "its bytes are intact, but of another type", damaged=False
            )
        return value

    def _unseal_and_decode(
        self, data: bytes, decode: Callable[[bytes], Any], location_parts: tuple[str, ...]
    ) -> tuple[Any, bytes]:
        location = SEPARATOR.join(location_parts)
        payload = self.seal.unseal(data, location)
        try:
            return decode(payload), payload
        except UnreadableBytes as error:
            reason = f"its bytes are whole, but cannot be read here: {error}"
            raise CheckpointCorrupt(location, reason, damaged=False) from error


def storable_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
    """Return the metadata that LangGraph would persist, without names of credentials.

    LangGraph copies every scalar of `configurable` and of the config's metadata into each
    checkpoint.
    """
    merged = cast("dict[str, Any]", get_checkpoint_metadata(config, metadata))
    return {
        n: _tuples_to_lists(v) if type(v) in _CONTAINER_TYPES else v
        for n, v in merged.items()
        if not _is_credential(n)
    }


_CONTAINER_TYPES = frozenset({dict, list, tuple})


def _tuples_to_lists(value: Any) -> Any:
    """Return metadata as every saver of LangGraph gives it back: as JSON, which has no tuples."""
    if isinstance(value, dict):
        return (
            {name: _tuples_to_lists(nested) for name, nested in value.items()} if value else value
        )
    return (
        [_tuples_to_lists(element) for element in value]
        if isinstance(value, tuple | list)
        else value
    )


@lru_cache(maxsize=1024)
def _is_credential(name: str) -> bool:
    return bool(_CREDENTIAL.search(name))
