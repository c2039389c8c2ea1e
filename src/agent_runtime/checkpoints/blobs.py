"""Values as sealed bytes, and what of a run's metadata may be stored."""

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
    """`close` makes a sealed blob of a value, `open` the value of a blob.

    The place says which blob it is.
    """

    __slots__ = ("codec", "seal")

    def __init__(self, codec: Codec, seal: Seal) -> None:
        self.codec = codec
        self.seal = seal

    def close(self, value: Any, *place: str) -> bytes:
        """Sealed bytes; raises StateNotSerializable."""
        return self.seal.close(self.codec.encode(value), SEPARATOR.join(place))

    def close_payload(self, payload: bytes, *place: str) -> bytes:
        """Sealed bytes of what has been encoded already."""
        return self.seal.close(payload, SEPARATOR.join(place))

    def payload(self, data: bytes, *place: str) -> bytes:
        """The verified bytes, not decoded; raises CheckpointCorrupt or CheckpointVersion."""
        return self.seal.open(data, SEPARATOR.join(place))

    def open_list(self, data: bytes, *place: str) -> tuple[list[Any], bytes]:
        """`open` for what `Codec.encode_list` made."""
        return self._opened(data, self.codec.decode_list, place)

    def open(self, data: bytes, *place: str) -> tuple[Any, bytes]:
        """The value and its payload; raises CheckpointCorrupt or CheckpointVersion.

        Runs nothing that bytes name.
        """
        return self._opened(data, self.codec.decode, place)

    def open_as(self, has_shape: Callable[[Any], bool], data: bytes, *place: str) -> Any:
        """Return the value of a blob.

        Raises as `open`, and CheckpointCorrupt for a value of another shape.
        """
        value, _ = self._opened(data, self.codec.decode, place)
        if not has_shape(value):
            where = SEPARATOR.join(place)
            raise CheckpointCorrupt(
                where, "its bytes are whole, but are not what is stored here", damaged=False
            )
        return value

    def _opened(
        self, data: bytes, decode: Callable[[bytes], Any], place: tuple[str, ...]
    ) -> tuple[Any, bytes]:
        where = SEPARATOR.join(place)
        payload = self.seal.open(data, where)
        try:
            return decode(payload), payload
        except UnreadableBytes as error:
            why = f"its bytes are whole, but cannot be read here: {error}"
            raise CheckpointCorrupt(where, why, damaged=False) from error


def storable_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
    """What LangGraph would persist, without anything whose name says that it is a credential.

    LangGraph copies every scalar of `configurable` and of the config's metadata into each
    checkpoint.
    """
    merged = cast("dict[str, Any]", get_checkpoint_metadata(config, metadata))
    return {
        n: _listed(v) if type(v) in _NESTED else v
        for n, v in merged.items()
        if not _is_credential(n)
    }


_NESTED = frozenset({dict, list, tuple})


def _listed(value: Any) -> Any:
    """Return metadata as every saver of LangGraph gives it back: as JSON, which has no tuples."""
    if isinstance(value, dict):
        return {name: _listed(each) for name, each in value.items()} if value else value
    return [_listed(each) for each in value] if isinstance(value, tuple | list) else value


@lru_cache(maxsize=1024)
def _is_credential(name: str) -> bool:
    return bool(_CREDENTIAL.search(name))
