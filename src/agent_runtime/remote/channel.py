"""The worker's end of the pipe: messages out, calls to the application and their answers."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

from agent_runtime.remote.exceptions import deserialize_exception
from agent_runtime.remote.frames import FrameReader, dumps, encode_frame, loads
from agent_runtime.run.state import current_tool

_READ_BYTES = 262_144

_CURRENT: list[Channel] = []

current_job: ContextVar[int] = ContextVar("agent_runtime_current_job", default=0)
"""The running job, 0 for none: code that a job left running does not count for the next one."""


def channel() -> Channel:
    """Return the channel of this worker process."""
    return _CURRENT[0]


class Channel:
    """Exchange messages with the application over one socket.

    Sends block when the application does not read, so that a slow reader slows an agent down. Calls
    may be made from the event loop, from threads, and (blocking) from the loop's own thread: then
    the socket is read in place, and other messages are handled afterwards.
    """

    def __init__(self, sock: socket.socket) -> None:
        _CURRENT[:] = [self]  # a worker has one
        self._socket = sock
        self._lock = threading.Lock()
        self._reader = FrameReader()
        self._call_numbers = itertools.count(1)
        self._reply_handlers: dict[int, Callable[[tuple[Any, ...]], None]] = {}
        self._backlog: list[tuple[Any, ...]] = []
        self._loop_thread_id = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        os.register_at_fork(
            after_in_child=self._socket.close
        )  # a copy of this process has no part in it
        self.on_message: Callable[[tuple[Any, ...]], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read from the socket on the event loop."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._on_readable)
        self._handle_backlog()

    def send(self, *message: Any) -> None:
        """Send a message, from any thread.

        Raises TransferFailed when it is too long, OSError on a closed socket.
        """
        data = encode_frame(message)
        with self._lock:
            self._socket.sendall(data)

    def notify(self, method: str, *args: Any) -> None:
        """Tell the application something, without waiting."""
        self.send("tell", current_job.get(), method, dumps(args))

    # -- calls

    async def call(self, method: str, *args: Any) -> Any:
        """Call the application; raises its error. Cancelling stops it there."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        number = self._send_call(method, args, lambda message: _resolve_future(reply, message))
        try:
            return await reply
        except asyncio.CancelledError:
            self._cancel_call(number)
            raise

    async def stream(self, method: str, *args: Any) -> AsyncIterator[Any]:
        """Call the application for many answers. Leaving early stops it there."""
        replies: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        number = self._send_call(method, args, replies.put_nowait)
        finished = False
        try:
            while True:
                message = await replies.get()
                if message[0] == "part":
                    yield message[2]
                    continue
                finished = True
                _unpack_reply(message)
                return
        finally:
            if not finished:
                self._cancel_call(number)

    def call_blocking(self, method: str, *args: Any) -> Any:
        """Call the application from sync code, in any thread."""
        if threading.get_ident() != self._loop_thread_id:
            assert self._loop is not None  # noqa: S101 - there are threads only while the loop runs
            return asyncio.run_coroutine_threadsafe(self.call(method, *args), self._loop).result()
        replies: list[tuple[Any, ...]] = []
        number = self._send_call(method, args, replies.append)
        while not replies:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                self.on_end()
                raise ConnectionError("the application is gone")
            for message in self._reader.feed(data):
                if message[0] == "reply" and message[1] == number:
                    self._reply_handlers.pop(number, None)
                    replies.append(message)
                else:
                    self._backlog.append(message)
        if self._backlog and self._loop is not None:
            self._loop.call_soon(self._handle_backlog)
        return _unpack_reply(replies[0])

    def _send_call(
        self, method: str, args: tuple[Any, ...], on_reply: Callable[[tuple[Any, ...]], None]
    ) -> int:
        data = dumps(args)
        number = next(self._call_numbers)
        self._reply_handlers[number] = on_reply
        self.send("call", current_job.get(), number, method, data, current_tool.get())
        return number

    def _cancel_call(self, number: int) -> None:
        if self._reply_handlers.pop(number, None) is not None:
            self.send("end", number)

    def _on_readable(self) -> None:
        self._handle_backlog()
        try:
            data = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.on_end()
            return
        for message in self._reader.feed(data):
            self._dispatch(message)

    def _handle_backlog(self) -> None:
        while self._backlog:
            self._dispatch(self._backlog.pop(0))

    def _dispatch(self, message: tuple[Any, ...]) -> None:
        if message[0] not in ("reply", "part"):
            self.on_message(message)
            return
        on_reply = self._reply_handlers.get(message[1])
        if on_reply is None:
            return  # the answer to an abandoned call
        if message[0] == "reply":
            del self._reply_handlers[message[1]]
        on_reply(message)


def _resolve_future(future: asyncio.Future[Any], message: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        future.set_result(_unpack_reply(message))
    except BaseException as error:  # noqa: BLE001 - carried to whoever asked
        future.set_exception(error)


def _unpack_reply(message: tuple[Any, ...]) -> Any:
    _, _, is_success, data = message
    if is_success:
        return loads(data)
    raise deserialize_exception(loads(data), {})
