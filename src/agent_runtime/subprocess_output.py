"""Read a child process's output: count its bytes, and keep the last ones."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

TAIL_BYTES = 8_192


class OutputTail:
    """Read the end of a pipe on the current loop.

    Args:
        fd: the descriptor; it is closed at its end, or by `close`.
        on_bytes: called with the number of received bytes.
    """

    def __init__(self, fd: int, on_bytes: Callable[[int], None]) -> None:
        self._fd = fd
        self._on_bytes = on_bytes
        self._tail_chunks: deque[bytes] = deque()
        self._tail_bytes = 0
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._on_readable)

    @property
    def tail(self) -> str:
        """Return the last of the output."""
        return b"".join(self._tail_chunks)[-TAIL_BYTES:].decode(errors="replace")

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._tail_chunks.append(data[-TAIL_BYTES:])
        self._tail_bytes += min(len(data), TAIL_BYTES)
        while self._tail_bytes - len(self._tail_chunks[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(self._tail_chunks.popleft())
        self._on_bytes(len(data))

    def drain(self) -> None:
        """Read the available bytes."""
        for _ in range(64):
            if self._fd < 0:
                return
            before = self._tail_bytes
            self._on_readable()
            if self._fd < 0 or self._tail_bytes == before:
                return

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
