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

from agent_runtime.remote.exceptions import received
from agent_runtime.remote.frames import FrameReader, frame, packed, unpacked
from agent_runtime.run.state import current_tool

_READ_BYTES = 262_144

_OPEN: list[Channel] = []

current_job: ContextVar[int] = ContextVar("agent_runtime_current_job", default=0)
"""The job whose code this is, 0 for none: what a job left running is not taken for the next one."""


def channel() -> Channel:
    """The channel of this process, which is a worker."""
    return _OPEN[0]


class Channel:
    """One socket. Sends block when the application does not read.

    That is how a slow reader slows an agent down.

    Calls may be made from the event loop, from threads, and (blocking) from the loop's own thread:
    then the socket is read in place, and what else arrives meanwhile is handled afterwards.
    """

    def __init__(self, sock: socket.socket) -> None:
        _OPEN[:] = [self]  # a worker has one
        self._socket = sock
        self._lock = threading.Lock()
        self._reader = FrameReader()
        self._ids = itertools.count(1)
        self._waiting: dict[int, Callable[[tuple[Any, ...]], None]] = {}
        self._backlog: list[tuple[Any, ...]] = []
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        os.register_at_fork(
            after_in_child=self._socket.close
        )  # a copy of this process has no part in it
        self.on_message: Callable[[tuple[Any, ...]], None] = lambda message: None
        self.on_end: Callable[[], None] = lambda: None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read from the socket whenever something is there."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._readable)
        self._handle_backlog()

    def send(self, *message: Any) -> None:
        """Send a message, from any thread.

        Raises TransferFailed when it is too long, OSError when nobody is there.
        """
        data = frame(message)
        with self._lock:
            self._socket.sendall(data)

    def tell(self, method: str, *args: Any) -> None:
        """Tell the application something, without waiting."""
        self.send("tell", current_job.get(), method, packed(args))

    # -- calls
    # ---------------------------------------------------------------------------------------------

    async def call(self, method: str, *args: Any) -> Any:
        """Ask the application; raises what it raises. Cancelling tells it to stop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        number = self._ask(method, args, lambda message: _settle(answer, message))
        try:
            return await answer
        except asyncio.CancelledError:
            self._give_up(number)
            raise

    async def stream(self, method: str, *args: Any) -> AsyncIterator[Any]:
        """Ask for many answers. Leaving early tells the application to stop."""
        parts: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        number = self._ask(method, args, parts.put_nowait)
        ended = False
        try:
            while True:
                message = await parts.get()
                if message[0] == "part":
                    yield message[2]
                    continue
                ended = True
                _answer(message)
                return
        finally:
            if not ended:
                self._give_up(number)

    def call_blocking(self, method: str, *args: Any) -> Any:
        """`call` for sync code, in whatever thread it runs."""
        if threading.get_ident() != self._thread:
            assert self._loop is not None  # noqa: S101 - there are threads only while the loop runs
            return asyncio.run_coroutine_threadsafe(self.call(method, *args), self._loop).result()
        found: list[tuple[Any, ...]] = []
        number = self._ask(method, args, found.append)
        while not found:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                self.on_end()
                raise ConnectionError("the application is gone")
            for message in self._reader.feed(data):
                if message[0] == "reply" and message[1] == number:
                    self._waiting.pop(number, None)
                    found.append(message)
                else:
                    self._backlog.append(message)
        if self._backlog and self._loop is not None:
            self._loop.call_soon(self._handle_backlog)
        return _answer(found[0])

    def _ask(
        self, method: str, args: tuple[Any, ...], answer: Callable[[tuple[Any, ...]], None]
    ) -> int:
        data = packed(args)
        number = next(self._ids)
        self._waiting[number] = answer
        self.send("call", current_job.get(), number, method, data, current_tool.get())
        return number

    def _give_up(self, number: int) -> None:
        if self._waiting.pop(number, None) is not None:
            self.send("end", number)

    # -- what comes in
    # -------------------------------------------------------------------------------------

    def _readable(self) -> None:
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
        wanted = self._waiting.get(message[1])
        if wanted is None:
            return  # the answer to a call that was given up
        if message[0] == "reply":
            del self._waiting[message[1]]
        wanted(message)


def _settle(future: asyncio.Future[Any], message: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        future.set_result(_answer(message))
    except BaseException as error:  # noqa: BLE001 - carried to whoever asked
        future.set_exception(error)


def _answer(message: tuple[Any, ...]) -> Any:
    _, _, good, data = message
    if good:
        return unpacked(data)
    raise received(unpacked(data), {})
