"""Frame messages on a pipe: four bytes of length, then a tuple of plain values.

Other values (messages, states, exceptions) are bytes inside such a tuple, so that an unreadable
value fails only its own task.
"""

from __future__ import annotations

import pickle
from typing import Any

from agent_runtime.errors import TransferFailed
from agent_runtime.size_limits import size_limit

MAX_FRAME_BYTES = size_limit("frame_bytes")
"""No message is longer.

A longer one is refused by its sender, and ends a process that claims to send it.
"""
_HEADER = 4


class FrameTooLong(Exception):
    """The other end announced a message that is longer than any may be."""


def encode_frame(message: tuple[Any, ...]) -> bytes:
    """Return a message as bytes; raises TransferFailed when it is too long."""
    data = pickle.dumps(message, 5)
    if len(data) > MAX_FRAME_BYTES:
        raise TransferFailed(
            f"a value of {len(data) >> 20} MiB is too large for the pipe to the agent's process"
        )
    return len(data).to_bytes(_HEADER, "big") + data


def dumps(value: Any) -> bytes:
    """Return a value as bytes inside a message; raises TransferFailed when it cannot be pickled."""
    try:
        return pickle.dumps(value, 5)
    except Exception as error:
        type_name = type(value).__name__
        raise TransferFailed(
            f"a value of type {type_name} does not pickle: {type(error).__name__}: {error}"
        ) from error


def loads(data: bytes) -> Any:
    """Return the value; raises TransferFailed when it cannot be loaded here."""
    try:
        return pickle.loads(data)  # noqa: S301 - from a process of the same user: isolation of faults, not a sandbox
    except Exception as error:
        raise TransferFailed(f"a value does not load: {type(error).__name__}: {error}") from error


class FrameReader:
    """Cuts a stream of bytes into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """Return the complete messages.

        Raises FrameTooLong, and pickle's errors for invalid ones.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            data = bytes(buffer) if len(buffer) < 65536 else data
            if len(buffer) >= 65536:
                return self._read_long_messages()
        messages = []
        offset = 0
        size = len(data)
        while size - offset >= _HEADER:
            length = int.from_bytes(data[offset : offset + _HEADER], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameTooLong(length)
            end = offset + _HEADER + length
            if end > size:
                break
            messages.append(pickle.loads(data[offset + _HEADER : end]))  # noqa: S301 - as in `loads`
            offset = end
        self._buffer = bytearray(data[offset:])
        return messages

    def _read_long_messages(self) -> list[tuple[Any, ...]]:
        # A long message arrives in many pieces: the buffer grows in place and is cut when complete.
        buffer = self._buffer
        messages = []
        while len(buffer) >= _HEADER:
            length = int.from_bytes(buffer[:_HEADER], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameTooLong(length)
            if len(buffer) < _HEADER + length:
                break
            messages.append(pickle.loads(memoryview(buffer)[_HEADER : _HEADER + length]))  # noqa: S301
            del buffer[: _HEADER + length]
        return messages
