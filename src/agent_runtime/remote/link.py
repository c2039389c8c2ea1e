"""The application's end of the pipe to one worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from agent_runtime.remote.frames import FrameReader, encode_frame

MAX_INBOX = 1_000
"""Messages that a job may have waiting before its pipe is read no further."""
MAX_INBOX_BYTES = 8 * 1024 * 1024


class Link(asyncio.Protocol):
    """Exchange messages with a worker. Those of the running job wait in `inbox` for its reader."""

    def __init__(
        self, on_message: Callable[[tuple[Any, ...]], None], on_broken: Callable[[Exception], None]
    ) -> None:
        self._on_message = on_message
        self._on_broken = on_broken
        self._frames = FrameReader()
        self._transport: Any = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.last_received_time = asyncio.get_running_loop().time()
        self.paused = False
        self.received_count = 0

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        on_message: Callable[[tuple[Any, ...]], None],
        on_broken: Callable[[Exception], None],
    ) -> Link:
        """Open a link over a connected socket."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(on_message, on_broken), sock=sock)
        return link

    def send(self, *message: Any) -> None:
        """Send a message without waiting; raises TransferFailed when it is too long."""
        data = encode_frame(message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def wait_writable(self) -> None:
        """Wait until the worker has read most of the sent data."""
        await self._writable.wait()

    def pause(self) -> None:
        """Read no further: the worker's sends will wait."""
        if not self.paused:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            self.last_received_time = asyncio.get_running_loop().time()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        """Close the socket; unsent data is discarded."""
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.last_received_time = asyncio.get_running_loop().time()
        self.received_count += 1
        try:
            messages = self._frames.feed(data)
        except Exception as error:  # noqa: BLE001 - what came is no message: the worker is not to be trusted again
            self._on_broken(error)
            return
        for message in messages:
            if message[0] != "beat":
                self._on_message(message)

    @override
    def pause_writing(self) -> None:
        self._writable.clear()

    @override
    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Allow further writes; whether the worker has ended is known from its exit only."""
        self._writable.set()
